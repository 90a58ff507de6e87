"""The container image, built and run as it is shipped: with what the Kubernetes manifests demand.

User, read-only root, capabilities and limits are read out of the rendered manifests, so that what
is tested here is what a cluster runs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from glancing import __version__
from tests import images, manifests
from tests.container import Built, Container, EngineError, base_image, build, engine, lacking
from tests.program import wait_until
from tests.sandbox import Sandbox
from tests.servers import Action, Authority, BadServer, ImageServer, Request, Served, head
from tests.shelf import Shelf

pytestmark = pytest.mark.timeout(600)  # the first test makes a base and builds the image

MUST_RUN = os.environ.get("CI") == "true"
if not MUST_RUN and (missing := lacking()):
    pytest.skip(f"the container tests need Docker: {missing}", allow_module_level=True)

MIB = 1 << 20
MOST_ADDED_BYTES = 120 * MIB
STOP_S = 10.0
PYTHON = "/opt/glancing/bin/python"
LIST = "/etc/glancing/vmlist"
RAW = images.raw()
NEWER = images.raw(700 * 1024)
QCOW2 = images.qcow2()


# --- what the tests share -------------------------------------------------------------------------


@pytest.fixture(scope="session")
def docker() -> Iterator[Any]:
    """A Docker engine; without one the tests are skipped, but never where all have to run."""
    try:
        with engine() as client:
            yield client
    except EngineError as error:
        if MUST_RUN:
            pytest.fail(f"the container tests cannot run: {error}")
        pytest.skip(f"the container tests need Docker: {error}")


@pytest.fixture(scope="session")
def built(docker: Any) -> Built:
    return build(docker, base_image(docker), __version__)


class Site:
    """A folder with a list and whatever else is mounted, and the cloud's credentials."""

    def __init__(self, folder: Path, built: Built, sandbox: Sandbox) -> None:
        self.folder = folder
        self._built = built
        self._sandbox = sandbox
        folder.chmod(0o755)
        (folder / "lists").mkdir()

    def hardened(self, overlay: str = "base", user: str | None = None) -> Container:
        """The image under everything that the manifests state, with the list where it belongs."""
        rendered = manifests.manifests(overlay)
        container, pod = manifests.container(rendered), manifests.pod_spec(rendered)
        scratch = self.new_folder("scratch")
        flags = manifests.hardening(container, pod, scratch=scratch, user=user)
        stated = manifests.environment(container)
        return self._container([*flags, *stated])

    def bare(self) -> Container:
        """A read-only root and nothing else: there is not one place that can be written to."""
        return self._container(["--read-only", "--cap-drop=ALL", "--user=65532:65532"])

    def _container(self, flags: Iterable[str]) -> Container:
        mounted = f"--volume={self.folder / 'lists'}:/etc/glancing:ro"
        environ = self._sandbox.member.environ()
        return Container(self._built.tag, [*flags, mounted], environ)

    def write_list(self, *lines: str) -> None:
        (self.folder / "lists" / "vmlist").write_text("".join(f"{line}\n" for line in lines))

    def new_folder(self, name: str, *, mode: int = 0o755, gid: int = -1) -> Path:
        """A folder to mount; ``gid`` gives it to a group, as Kubernetes does with fsGroup."""
        made = self.folder / f"{name}-{len(list(self.folder.iterdir()))}"
        made.mkdir()
        os.chown(made, -1, gid)
        made.chmod(mode)
        return made


@pytest.fixture
def site(tmp_path: Path, built: Built, clean_cloud: Sandbox) -> Site:
    for above in list(tmp_path.parents)[:3]:
        with suppress(PermissionError):
            above.chmod(above.stat().st_mode | 0o011)  # the container's user has to get there
    return Site(tmp_path, built, clean_cloud)


@pytest.fixture
def shelf(clean_cloud: Sandbox) -> Iterator[Shelf]:
    with Shelf(clean_cloud) as found:
        yield found


@pytest.fixture
def server() -> Iterator[ImageServer]:
    files = {"/disk.qcow2": QCOW2, "/packed.gz": gzip.compress(RAW)}
    with ImageServer(files) as running:
        yield running


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\ncontainer: {text}")


# --- the image itself -----------------------------------------------------------------------------


def test_it_adds_little_to_its_base(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    added = built.size_bytes - built.base_bytes
    say(capsys, f"the image adds {added / MIB:.1f} MiB to its base; built in {built.seconds:.0f} s")
    assert MIB < added <= MOST_ADDED_BYTES


def test_it_states_what_it_is_and_how_it_runs(built: Built) -> None:
    assert built.config["Entrypoint"] == ["glancing"]
    assert built.config["Cmd"] == ["sync"]
    user, _, group = built.config["User"].partition(":")
    assert int(user) > 0 and int(group) > 0
    labels = built.config["Labels"]
    told = {
        key.rpartition(".")[2]: value for key, value in labels.items() if "opencontainers" in key
    }
    assert told["title"] == "glancing" and told["licenses"] == "Apache-2.0"
    assert told["version"] == __version__
    assert told["description"] and told["source"]


def test_the_manifests_user_is_the_images_own(built: Built) -> None:
    pod = manifests.pod_spec(manifests.manifests("base"))
    context = pod["securityContext"]
    assert built.config["User"] == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_nothing_to_build_or_install_with_is_left_in_it(site: Site) -> None:
    program = (
        "import shutil, pathlib, sys, importlib.util as u; "
        "print([n for n in ('gcc', 'cc', 'make', 'git') if shutil.which(n)], "
        "[n for n in ('pip', 'hatchling', 'wheel') if u.find_spec(n)], "
        "[str(p) for p in map(pathlib.Path, ('/build', '/root/.cache')) if p.exists()])"
    )
    flags = [f"--entrypoint={PYTHON}", "--user=0:0"]  # root sees all there is
    with site.bare().start("-c", program, flags=flags) as contained:
        assert contained.wait() == (0, "[] [] []\n", "")


def test_what_verifies_signatures_is_there(site: Site) -> None:
    program = (
        "import shutil; from glancing.signatures import _openpgp; "
        "print([n for n in ('gpgv', 'openssl') if not shutil.which(n)])"
    )
    with site.bare().start("-c", program, flags=[f"--entrypoint={PYTHON}"]) as contained:
        assert contained.wait() == (0, "[]\n", "")


def test_all_modules_come_from_bytecode(site: Site) -> None:
    """A read-only root can keep none, so compiling would be paid for at each start."""
    program = "import glancing.__main__, glancing.wiring, glancing.glance"
    flags = [f"--entrypoint={PYTHON}"]
    with site.bare().start("-v", "-c", program, flags=flags) as contained:
        code, _, told = contained.wait()
    loaded = [line for line in told.splitlines() if line.startswith("# code object from ")]
    assert code == 0 and len(loaded) > 500
    assert [line for line in loaded if not line.endswith(".pyc'")] == []


def test_it_needs_no_shell(site: Site, shelf: Shelf, server: ImageServer) -> None:
    site.write_list(server.url("/disk.qcow2"))
    flags = []
    for shell in ("/usr/bin/dash", "/usr/bin/bash"):
        nothing = site.folder / Path(shell).name
        nothing.touch(mode=0o644)
        flags.append(f"--volume={nothing}:{shell}:ro")
    assert site.hardened().run(flags=flags).exit_code == 0
    assert shelf.names() == ["disk"]


# --- the job --------------------------------------------------------------------------------------


def test_a_mounted_list_is_synchronised(site: Site, shelf: Shelf, server: ImageServer) -> None:
    site.write_list(server.url("/disk.qcow2"), server.url("/packed.gz"))
    first = site.hardened().run()
    assert first.outcomes == {"disk": "uploaded", "packed": "uploaded"}
    assert first.exit_code == 0
    assert shelf.data("disk") == QCOW2 and shelf.data("packed") == RAW
    second = site.hardened().run()
    assert second.outcomes == {"disk": "unchanged", "packed": "unchanged"}


@pytest.mark.parametrize("named_volume", [True, False])
def test_a_replaced_image_is_kept_on_the_volume(
    docker: Any, site: Site, shelf: Shelf, server: ImageServer, *, named_volume: bool
) -> None:
    """On a new volume of Docker's, and on a folder that belongs to the group, as a cluster's."""
    container = site.hardened("backups")
    volume = docker.volumes.create() if named_volume else None
    folder = site.new_folder("backups", mode=0o2770, gid=65532)
    mounted = f"--volume={volume.name if volume else folder}:/backups"
    try:
        site.write_list(server.url("/disk.qcow2"))
        assert container.run(flags=[mounted]).outcomes == {"disk": "uploaded"}
        server.files["/disk.qcow2"] = Served(NEWER, etag='"2"')
        replaced = container.run("sync", "--disk-format", "detected", flags=[mounted])
        assert replaced.outcomes == {"disk": "replaced"}
        path = replaced.row["backup_path"]
        read = f"import hashlib; print(hashlib.sha512(open({path!r}, 'rb').read()).hexdigest())"
        flags = [mounted, f"--entrypoint={PYTHON}"]
        with container.start("-c", read, flags=flags) as contained:
            assert contained.wait()[1].strip() == hashlib.sha512(QCOW2).hexdigest()
    finally:
        if volume:
            volume.remove()
    assert shelf.data("disk") == NEWER and shelf.data("disk_old") == QCOW2


def test_one_image_by_url_and_digest(site: Site, shelf: Shelf, server: ImageServer) -> None:
    digest = hashlib.sha256(QCOW2).hexdigest()
    run = site.hardened().run("import", server.url("/disk.qcow2"), "-s", digest, "-n", "mine")
    assert run.outcomes == {"mine": "uploaded"} and run.row["integrity"] == "published"
    wrong = site.hardened().run("import", server.url("/disk.qcow2"), "-s", "0" * 64, "-n", "other")
    assert wrong.exit_code == 1 and wrong.row["error"]["kind"] == "wrong-digest"
    assert shelf.names() == ["mine"]


def test_a_plan_changes_nothing(site: Site, shelf: Shelf, server: ImageServer) -> None:
    site.write_list(server.url("/disk.qcow2"))
    run = site.hardened().run("plan")
    assert run.exit_code == 0 and run.outcomes == {"disk": "planned"}
    assert shelf.all() == []


def test_files_of_a_mounted_folder_are_hashed(site: Site) -> None:
    folder = site.new_folder("data", mode=0o777)
    (folder / "disk.img").write_bytes(RAW)
    flags = [f"--volume={folder}:/data", "--workdir=/data"]
    assert site.hardened().run("hash", "disk.img", flags=flags).exit_code == 0
    expected = f"{hashlib.sha512(RAW).hexdigest()}  disk.img\n"
    assert (folder / "SHA512SUMS").read_text() == expected


def test_two_shards_share_a_list(site: Site, shelf: Shelf, server: ImageServer) -> None:
    names = [f"image{number:02}" for number in range(40)]
    server.files = {f"/{name}.img": RAW for name in names}
    site.write_list(*(server.url(path) for path in server.files))
    shards = [site.hardened() for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        runs = list(
            threads.map(lambda index: shards[index].run("sync", "--shard", f"{index}/2"), range(2))
        )
    done = [set(run.outcomes) for run in runs]
    assert [run.exit_code for run in runs] == [0, 0]
    assert all(done) and not done[0] & done[1] and done[0] | done[1] == set(names)
    assert shelf.names() == names


# --- who it runs as, and where --------------------------------------------------------------------


def test_any_user_id_will_do(site: Site, shelf: Shelf, server: ImageServer) -> None:
    """OpenShift gives each project ids of its own, without a name, and group 0."""
    site.write_list(server.url("/disk.qcow2"))
    container = site.hardened(user="1000730000:0")
    assert container.run("sync", "--spool").outcomes == {"disk": "uploaded"}
    assert shelf.names() == ["disk"]


def test_without_a_home(site: Site, shelf: Shelf, server: ImageServer) -> None:
    """Fault 54: neither HOME nor an entry in the list of users."""
    site.write_list(server.url("/disk.qcow2"))
    flags = ["--entrypoint=/usr/bin/env", "--user=54321:0"]
    assert site.hardened().run("-u", "HOME", "glancing", "sync", flags=flags).exit_code == 0
    assert shelf.names() == ["disk"]


def test_one_pass_needs_no_place_to_write(site: Site, shelf: Shelf, server: ImageServer) -> None:
    """Fault 54: a read-only root and no place to write at all."""
    site.write_list(server.url("/disk.qcow2"), server.url("/packed.gz"))
    run = site.bare().run()
    assert run.exit_code == 0 and len(run.named("work_dir.unusable")) == 1
    assert shelf.names() == ["disk", "packed"]


@pytest.mark.parametrize("what", ["WORK", "BACKUP"])
@pytest.mark.parametrize("trouble", ["missing", "not writable"])
def test_a_directory_that_was_asked_for_has_to_be_usable(
    site: Site, clean_cloud: Sandbox, server: ImageServer, what: str, trouble: str
) -> None:
    site.write_list(server.url("/disk.qcow2"))
    folder = site.new_folder("asked", mode=0o755)
    flags = [] if trouble == "missing" else [f"--volume={folder}:/asked"]
    before = len(clean_cloud.glance_requests())
    run = site.hardened().run(flags=flags, **{f"GLANCING_{what}_DIR": "/asked"})
    assert run.exit_code == 2 and "/asked" in run.result["error"]["message"]
    assert server.requests == [] and len(clean_cloud.glance_requests()) == before


def test_wrong_credentials(site: Site, server: ImageServer) -> None:
    site.write_list(server.url("/disk.qcow2"))
    message = site.folder / "termination-log"
    message.touch()
    message.chmod(0o666)  # as the kubelet makes it
    flags = [f"--volume={message}:/dev/termination-log"]
    run = site.hardened().run(flags=flags, OS_PASSWORD="not this one")
    assert run.exit_code == 3 and run.result["error"]["kind"] == "login-refused"
    assert "login-refused" in message.read_text()
    assert "not this one" not in run.output + message.read_text()
    assert server.requests == []


def test_a_missing_list(site: Site) -> None:
    run = site.hardened().run()
    assert run.exit_code == 2 and LIST in run.result["error"]["message"]


# --- the end, asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(("signal", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_breaks_the_upload_off(site: Site, shelf: Shelf, signal: str, code: int) -> None:
    halted = threading.Event()
    big = images.noise(MIB)

    def half(_request: Request) -> Iterable[Action]:
        return [head(200, content_length=64 * MIB), images.raw(MIB), *[big] * 31, halted]

    with BadServer(half) as server:
        site.write_list(server.url("/disk.img"), server.url("/later.img"))
        with site.hardened().start("sync", "--jobs", "1") as contained:
            wait_until(lambda: bool(shelf.incoming()), "an upload under way")
            contained.send(signal)
            run = contained.finish(STOP_S)
    assert run.exit_code == code
    assert run.outcomes == {"disk": "failed", "later": "failed"}
    assert {row["error"]["kind"] for row in run.rows} == {"interrupted"}
    assert len(server.requests) == 1 or all("later" not in r.path for r in server.requests[1:])
    assert shelf.all() == []


def test_a_signal_that_comes_while_the_program_is_loaded_is_not_lost(
    site: Site, shelf: Shelf, server: ImageServer
) -> None:
    """The kernel keeps from process 1 every signal that it has not asked for."""
    site.write_list(server.url("/disk.qcow2"))
    first = site.new_folder("first")
    (first / "click.py").write_text(
        "import os, signal, sys\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.path.remove(os.path.dirname(__file__))\n"
        "del sys.modules['click']\n"
        "import click\n"
    )
    flags = [f"--volume={first}:/first:ro", "--env=PYTHONPATH=/first"]
    run = site.hardened().run(flags=flags)
    assert run.exit_code == 143
    assert server.requests == [] and shelf.all() == []


# --- limits ---------------------------------------------------------------------------------------


def test_a_gibibyte_goes_through_the_manifests_memory(
    site: Site, shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault 55: with the limit of 256 MiB; 10 GiB are a matter for a campaign."""
    blocks = [images.raw(MIB), *[images.noise(MIB)] * 1023]
    digest = hashlib.sha512(b"".join(blocks)).hexdigest()
    sent, go_on = threading.Event(), threading.Event()

    def nearly_all(_request: Request) -> Iterator[Action]:
        yield head(200, content_length=1024 * MIB)
        yield from blocks[:-1]
        sent.set()
        yield go_on
        yield blocks[-1]

    with BadServer(nearly_all) as server:
        container = site.hardened()
        with container.start("import", server.url("/big.img"), "-s", digest) as contained:
            assert sent.wait(120)
            peak = contained.peak_memory_bytes()
            go_on.set()
            run = contained.finish()
    assert run.outcomes == {"big": "uploaded"} and run.row["size_bytes"] == 1024 * MIB
    limit = manifests.quantity(
        manifests.container(manifests.manifests("base"))["resources"]["limits"]["memory"]
    )
    if peak is not None:
        say(capsys, f"{peak / MIB:.0f} MiB of {limit / MIB:.0f} for an image of 1 GiB")
        assert peak < limit
    assert shelf.named("big")["os_hash_value"] == digest


# --- authorities of one's own ---------------------------------------------------------------------


@pytest.fixture
def authority(site: Site) -> Authority:
    folder = site.new_folder("authority")
    return Authority(folder)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_downloads_trust_an_authority_of_ones_own(
    site: Site, shelf: Shelf, authority: Authority, variable: str
) -> None:
    flags = [f"--volume={authority.file}:/ca.pem:ro"]
    with ImageServer({"/disk.qcow2": QCOW2}, tls=authority.server()) as server:
        site.write_list(server.url("/disk.qcow2"))
        untold = site.hardened().run(flags=flags)
        assert untold.exit_code == 1 and shelf.all() == []
        told = site.hardened().run(flags=flags, **{variable: "/ca.pem"})
    assert told.outcomes == {"disk": "uploaded"}
    assert shelf.names() == ["disk"]


def test_the_cloud_is_trusted_by_an_authority_of_ones_own(
    site: Site, shelf: Shelf, sandbox: Sandbox, server: ImageServer, authority: Authority
) -> None:
    site.write_list(server.url("/disk.qcow2"))
    flags = [f"--volume={authority.file}:/ca.pem:ro"]
    identity = urlsplit(sandbox.auth_url)
    with in_front_of(identity.port or 0, authority.server()) as port:
        auth_url = f"https://127.0.0.1:{port}{identity.path}"
        untold = site.hardened().run(flags=flags, OS_AUTH_URL=auth_url)
        assert untold.exit_code == 3 and "certificate" in json.dumps(untold.result).lower()
        told = site.hardened().run(flags=flags, OS_AUTH_URL=auth_url, OS_CACERT="/ca.pem")
    assert told.outcomes == {"disk": "uploaded"}
    assert shelf.names() == ["disk"]


@contextmanager
def in_front_of(port: int, tls: ssl.SSLContext) -> Iterator[int]:
    """A port where TLS ends and what was inside goes on to another port of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                plain, _ = listener.accept()
                threading.Thread(target=carry, args=(plain,), daemon=True).start()

    def carry(plain: socket.socket) -> None:
        with (
            suppress(OSError),
            tls.wrap_socket(plain, server_side=True) as client,
            socket.create_connection(("127.0.0.1", port)) as service,
        ):
            back = threading.Thread(target=pump, args=(service, client), daemon=True)
            back.start()
            pump(client, service)
            back.join()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
