"""The sandbox is a real cloud, is separate from every other one, and leaves nothing behind."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.conftest import refuse_other_clouds, strip_environment
from tests.sandbox import Credentials, Request, Sandbox
from tests.sandbox.identity import Login

OCTETS = {"Content-Type": "application/octet-stream"}
BARE = {"disk_format": "raw", "container_format": "bare"}
COMMAND = [sys.executable, "-m", "tests.sandbox"]


def create(login: Login, cloud: Sandbox, **values: object) -> str:
    answer = login.call("POST", f"{cloud.image_url}/v2/images", json={**BARE, **values})
    identifier: str = answer.json()["id"]
    return identifier


def names(login: Login, cloud: Sandbox) -> set[str]:
    listing = login.call("GET", f"{cloud.image_url}/v2/images").json()["images"]
    return {image["name"] for image in listing}


def test_a_member_creates_uploads_and_deletes_an_image(clean_cloud: Sandbox) -> None:
    before = len(clean_cloud.glance_requests())
    with Login(clean_cloud.member) as login:
        path = f"/v2/images/{create(login, clean_cloud, name='tiny')}"
        url = clean_cloud.image_url + path
        login.call("PUT", f"{url}/file", data=iter([b"some ", b"bytes"]), headers=OCTETS)
        image = login.call("GET", url).json()
        assert (image["status"], image["size"]) == ("active", 10)
        assert login.call("GET", f"{url}/file").content == b"some bytes"
        login.call("DELETE", url)
    assert clean_cloud.glance_requests()[before:] == [
        Request("POST", "/v2/images", 201),
        Request("PUT", f"{path}/file", 204),
        Request("GET", path, 200),
        Request("GET", f"{path}/file", 200),
        Request("DELETE", path, 204),
    ]


def test_several_uploads_at_once(clean_cloud: Sandbox) -> None:
    def upload(number: int) -> None:
        with Login(clean_cloud.member) as login:
            identifier = create(login, clean_cloud, name=f"image {number}")
            url = f"{clean_cloud.image_url}/v2/images/{identifier}/file"
            login.call("PUT", url, data=os.urandom(1 << 20), headers=OCTETS)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(upload, range(8)))
    with Login(clean_cloud.member) as login:
        assert names(login, clean_cloud) == {f"image {number}" for number in range(8)}


def test_the_users_are_members_of_their_own_project_only(clean_cloud: Sandbox) -> None:
    with Login(clean_cloud.member) as member, Login(clean_cloud.other) as other:
        for login in (member, other):
            roles = {role["name"] for role in login.token["roles"]}
            assert "member" in roles and "admin" not in roles
        assert member.token["project"]["id"] != other.token["project"]["id"]
        create(other, clean_cloud, name="private")
        assert names(member, clean_cloud) == set()
        with pytest.raises(Exception, match="403"):
            create(member, clean_cloud, name="for all", visibility="public")


def test_an_administrator_may_publish_images(clean_cloud: Sandbox) -> None:
    with Login(clean_cloud.admin) as admin, Login(clean_cloud.member) as member:
        identifier = create(admin, clean_cloud, name="for all", visibility="public")
        assert names(member, clean_cloud) == {"for all"}
        admin.call("DELETE", f"{clean_cloud.image_url}/v2/images/{identifier}")


def test_an_application_credential_logs_in(sandbox: Sandbox) -> None:
    made = sandbox.application_credential().environ()
    identity = {
        "methods": ["application_credential"],
        "application_credential": {
            "id": made["OS_APPLICATION_CREDENTIAL_ID"],
            "secret": made["OS_APPLICATION_CREDENTIAL_SECRET"],
        },
    }
    url = f"{made['OS_AUTH_URL']}/auth/tokens"
    answer = requests.post(url, json={"auth": {"identity": identity}}, timeout=30)
    assert answer.status_code == 201
    assert answer.json()["token"]["project"]["name"] == sandbox.member.project


@pytest.mark.parametrize("kill", [False, True])
def test_glance_comes_back_with_its_images(clean_cloud: Sandbox, kill: bool) -> None:
    with Login(clean_cloud.member) as login:
        create(login, clean_cloud, name="kept")
        clean_cloud.stop_glance(kill=kill)
        with pytest.raises(requests.ConnectionError):
            names(login, clean_cloud)
        clean_cloud.start_glance()
        assert names(login, clean_cloud) == {"kept"}


def test_no_other_cloud_is_known_or_touched(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not [name for name in os.environ if name.startswith(("OS_", "GLANCING_"))]
    monkeypatch.setenv("OS_AUTH_URL", "https://cloud.example.org:5000/v3")
    monkeypatch.setenv("GLANCING_LISTS", "/etc/lists")
    strip_environment()
    assert "OS_AUTH_URL" not in os.environ and "GLANCING_LISTS" not in os.environ
    with Login(sandbox.member) as login:
        login.auth_url = "https://cloud.example.org:5000/v3"
        with pytest.raises(pytest.fail.Exception, match="refusing to delete"):
            refuse_other_clouds(sandbox, login)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path that every account may enter, as the services need."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_the_command_runs_another_command_and_keeps_its_exit_code(directory: Path) -> None:
    script = 'printenv | grep ^OS_ | sort; ls "$TMPDIR"; exit 7'
    environment = {**os.environ, "TMPDIR": str(directory), "OS_CLOUD": "elsewhere"}
    left_by_one_that_was_killed = directory / "glancing-sandbox-old"
    left_by_one_that_was_killed.mkdir()
    (left_by_one_that_was_killed / "alive").touch()
    done = subprocess.run(
        [*COMMAND, "--", "sh", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    variables = [line.split("=")[0] for line in done.stdout.splitlines() if "=" in line]
    assert variables == sorted(Credentials("", "", "", "").environ())
    assert "glancing-sandbox-" in done.stdout
    assert left_by_one_that_was_killed.name not in done.stdout
    assert list(directory.iterdir()) == []


def user_of(exports: list[str]) -> Credentials:
    words = [shlex.split(line) for line in exports]
    assert all(word[0] == "export" for word in words)
    given = dict(word[1].split("=", 1) for word in words)
    names = ("OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_TENANT_NAME", "OS_REGION_NAME")
    return Credentials(*(given[name] for name in names))


def is_gone(user: Credentials) -> bool:
    try:
        Login(user)
    except requests.ConnectionError:
        return True
    return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_command_stays_up_until_it_is_ended(directory: Path, how: signal.Signals) -> None:
    environment = {**os.environ, "TMPDIR": str(directory)}
    with subprocess.Popen(
        COMMAND, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        user = user_of([process.stdout.readline() for _ in range(5)])
        with Login(user):
            process.send_signal(how)
        code = process.wait(timeout=30)
    if how == signal.SIGTERM:
        assert code == 128 + how and list(directory.iterdir()) == []
    deadline = time.monotonic() + 10
    while not is_gone(user) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_gone(user)
