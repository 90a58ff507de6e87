"""Section F: what a dead run can leave in Glance, built there first, and what the next run does.

That a run is dead is told by a lock in the work directory that nobody holds, or by the age of what
it left (fault 52).
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import sha512
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import images
from tests.faults.killer import PATIENCE_S, Trigger
from tests.marketplace import Marketplace
from tests.program import Program, Run, wait_until
from tests.servers import Answer, Call, FaultProxy, on
from tests.shelf import Image, Shelf

NAME = "debian"
OLD = images.raw(12 * 1024)
NEW = OLD[:-1] + b"\x02"
OTHER = OLD[:-1] + b"\x03"
OLDER = f"{NAME}_old_20260101T000000Z"
PAST, FUTURE = "2020-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(slots=True)
class Scene:
    """One image of a marketplace in version 2, and what is in Glance before the run."""

    shelf: Shelf
    market: Marketplace
    folder: Path
    mpid: str = ""
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.mpid = self.market.publish(NAME, NEW, "2")
        (self.folder / "vmlist").write_text(f"{self.mpid}\n")
        self.lock.touch()

    @property
    def program(self) -> Program:
        return Program(self.folder, self.shelf.sandbox.member.environ())

    @property
    def lock(self) -> Path:
        """What the dead run left in the work directory."""
        return self.folder / f"glancing-{self.run_id}.lock"

    def words(self, *others: str) -> tuple[str, ...]:
        return ("sync", "-l", "vmlist", "-u", self.market.base, "--work-dir", ".", *others)

    def run(self, *others: str) -> Run:
        return self.program.run(*self.words(*others))

    def set(self, status: str, *, age_s: float = 0, deadline: str = FUTURE) -> Image:
        """An incoming image in a state that the member's own requests do not lead to."""
        fields = {**self.incoming(), "glancing_deadline": deadline}
        if status == "active":
            made = self.shelf.put(f"{NAME}.incoming", NEW, **fields)
        else:
            made = self.shelf.record(f"{NAME}.incoming", **fields)
        self.shelf.sandbox.set_image(made["id"], status=status, age_s=age_s)
        return made

    def marks(self, state: str, **others: object) -> dict[str, object]:
        return {
            "tags": ["glancing"],
            "mpid": self.mpid,
            "version": "2",
            "glancing_identity": self.mpid,
            "glancing_name": NAME,
            "glancing_source": self.market.url(f"/images/{NAME}-2.img"),
            "glancing_state": state,
            "glancing_run": self.run_id,
            **others,
        }

    def incoming(self) -> dict[str, object]:
        """The record of an image that a run began."""
        deadline = {"glancing_deadline": FUTURE}
        hidden = {"visibility": "private", "os_hidden": True}
        return self.marks("incoming", **deadline, **hidden)

    def current(self, data: bytes = OLD, version: str = "1") -> Image:
        return self.shelf.put(NAME, data, **self.marks("current", version=version))


def queued(scene: Scene) -> None:
    scene.shelf.record(f"{NAME}.incoming", **scene.incoming())


def staged(scene: Scene) -> None:
    made = scene.shelf.record(f"{NAME}.incoming", **scene.incoming())
    scene.shelf.call("PUT", f"/{made['id']}/stage", data=NEW[:-100], headers=OCTETS)
    assert scene.shelf.get(made["id"])["status"] == "uploading"


def import_failed(scene: Scene) -> None:
    """Glance finds that what was staged is not of the format that its record says."""
    made = scene.shelf.record(f"{NAME}.incoming", **scene.incoming(), disk_format="qcow2")
    path = f"/{made['id']}"
    scene.shelf.call("PUT", f"{path}/stage", data=NEW, headers=OCTETS)
    scene.shelf.call("POST", f"{path}/import", json={"method": {"name": "glance-direct"}})
    wait_until(lambda: bool(scene.shelf.get(made["id"]).get("os_glance_failed_import")), "it fails")


def importing(scene: Scene) -> None:
    """Glance died in the middle of an import."""
    made = scene.shelf.record(f"{NAME}.incoming", **scene.incoming())
    scene.shelf.call("PUT", f"/{made['id']}/stage", data=NEW, headers=OCTETS)
    scene.shelf.sandbox.set_image(made["id"], status="importing")
    assert scene.shelf.get(made["id"])["status"] == "importing"


def saving(scene: Scene) -> None:
    """Glance died with the run; it leaves the image as it was."""
    made = scene.shelf.record(f"{NAME}.incoming", **scene.incoming())
    sandbox, token = scene.shelf.sandbox, scene.shelf.login.token_id
    address = urlsplit(sandbox.image_url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        lines = (
            f"PUT /v2/images/{made['id']}/file HTTP/1.1",
            "Host: glance",
            f"X-Auth-Token: {token}",
            "Content-Type: application/octet-stream",
            f"Content-Length: {len(NEW)}",
        )
        request = "\r\n".join([*lines, "", ""])
        connection.sendall(request.encode() + NEW[:5000])
        wait_until(lambda: scene.shelf.get(made["id"])["status"] == "saving", "Glance takes it")
        sandbox.stop_glance(kill=True)
    sandbox.start_glance()
    assert scene.shelf.get(made["id"])["status"] == "saving"


def filled(data: bytes) -> Callable[[Scene], None]:
    def build(scene: Scene) -> None:
        scene.shelf.put(f"{NAME}.incoming", data, **scene.incoming())

    return build


def replaced_halfway(scene: Scene) -> None:
    """Between the two last steps two images are current."""
    scene.current(OLD)
    scene.current(NEW, "2")


def bad_twin(scene: Scene) -> None:
    """The later one does not hold the bytes that it was made of: the newest good one counts."""
    scene.current(NEW, "2")
    made_of = f"sha512:{sha512(NEW).hexdigest()}"
    scene.shelf.put(NAME, OTHER, **scene.marks("current", glancing_image=made_of))


def several_backups(scene: Scene) -> None:
    scene.current(NEW, "2")
    for name, data in ((f"{NAME}_old", OLD), (OLDER, OTHER)):
        scene.shelf.put(name, data, os_hidden=True, **scene.marks("backup", version="1"))


def with_old(build: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def both(scene: Scene) -> None:
        scene.current()
        build(scene)

    return both


def right_already(build: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def both(scene: Scene) -> None:
        scene.current(NEW, "2")
        build(scene)

    return both


def only_a_backup(scene: Scene) -> None:
    scene.shelf.put(f"{NAME}_old", OLD, os_hidden=True, **scene.marks("backup", version="1"))


@dataclass(frozen=True, slots=True)
class Row:
    """A state, what the run says, which events tell of the repair, and the images in the end."""

    build: Callable[[Scene], None]
    outcome: str
    event: str | None
    end: Mapping[str, bytes]


BOTH = {NAME: NEW, f"{NAME}_old": OLD}
ALONE = {NAME: NEW}
REMOVED, ADOPTED = "image.leftover_removed", "image.adopted"
ROWS: Mapping[str, Row] = {
    "queued": Row(queued, "uploaded", REMOVED, ALONE),
    "queued, replacing": Row(with_old(queued), "replaced", REMOVED, BOTH),
    "saving, Glance died": Row(with_old(saving), "replaced", REMOVED, BOTH),
    "staged in part": Row(with_old(staged), "replaced", REMOVED, BOTH),
    "import failed": Row(with_old(import_failed), "replaced", REMOVED, BOTH),
    "import broken off": Row(with_old(importing), "replaced", REMOVED, BOTH),
    "active, right": Row(filled(NEW), "uploaded", ADOPTED, ALONE),
    "active, right, replacing": Row(with_old(filled(NEW)), "replaced", ADOPTED, BOTH),
    "active, wrong": Row(with_old(filled(OTHER)), "replaced", REMOVED, BOTH),
    "active, and not needed": Row(right_already(filled(NEW)), "unchanged", REMOVED, ALONE),
    "queued, and not needed": Row(right_already(queued), "unchanged", REMOVED, ALONE),
    "two current": Row(replaced_halfway, "unchanged", None, BOTH),
    "two current, the later one bad": Row(
        bad_twin, "unchanged", None, {NAME: NEW, f"{NAME}_old": OTHER}
    ),
    "several backups": Row(several_backups, "unchanged", None, {**BOTH, OLDER: OTHER}),
    "only a backup": Row(only_a_backup, "uploaded", None, BOTH),
}


@pytest.fixture
def scene(shelf: Shelf, tmp_path: Path) -> Iterator[Scene]:
    with Marketplace({}) as market:
        yield Scene(shelf, market, tmp_path)


@pytest.mark.parametrize("name", ROWS)
def test_what_a_dead_run_left_is_repaired(name: str, scene: Scene) -> None:
    """Faults 44, 51 and 52: in one run, without waiting, and with nothing left over."""
    row = ROWS[name]
    row.build(scene)
    run = scene.run()
    assert (run.exit_code, run.outcomes) == (0, {NAME: row.outcome}), run.output
    assert not run.named("image.awaited")
    told = [event for event in (REMOVED, ADOPTED) if run.named(event)]
    assert told == ([row.event] if row.event else [])
    found = {image["name"]: image for image in scene.shelf.all()}
    assert {name: image["os_hash_value"] for name, image in found.items()} == {
        name: sha512(data).hexdigest() for name, data in row.end.items()
    }
    assert {name: image["os_hidden"] for name, image in found.items()} == {
        name: name != NAME for name in row.end
    }
    assert "glancing_deadline" not in found[NAME]
    assert not list(scene.folder.glob("*.lock"))
    again = scene.run()
    assert again.outcomes == {NAME: "unchanged"}


def check_repaired(scene: Scene) -> None:
    """The new image, the backup where there was an old one, and nothing else."""
    found = {image["name"]: image["os_hash_value"] for image in scene.shelf.all()}
    wanted = {NAME: NEW, **({f"{NAME}_old": OLD} if f"{NAME}_old" in found else {})}
    assert found == {name: sha512(data).hexdigest() for name, data in wanted.items()}


@pytest.mark.parametrize("status", ["queued", "uploading", "saving", "importing", "active"])
def test_what_a_living_run_is_at_is_left_alone(status: str, scene: Scene) -> None:
    """Fault 52: its lock is held, so it is busy, however old its record is."""
    scene.current()
    held = scene.set(status, age_s=10**6, deadline=PAST)
    before = scene.shelf.all()
    with scene.lock.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = scene.run()
    assert (run.exit_code, run.outcomes) == (4, {NAME: "busy"})
    assert scene.shelf.all() == before and scene.lock.exists()
    scene.shelf.delete(held)


# --- without a lock -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Age:
    """What is there, since when, and what a run makes of it that knows nothing else."""

    status: str
    age_s: float
    outcome: str = "uploaded"
    event: str | None = REMOVED
    deadline: str = FUTURE
    awaited: bool = False


AGES: Mapping[str, Age] = {
    "queued, old": Age("queued", 70),
    "queued, young": Age("queued", 55, awaited=True),
    "staged, old": Age("uploading", 70),
    "importing, old": Age("importing", 70),
    "importing, young": Age("importing", 55, awaited=True),
    "active, old": Age("active", 70, event=ADOPTED),
    "active, young": Age("active", 55, event=ADOPTED, awaited=True),
    "saving, past its deadline": Age("saving", 0, deadline=PAST),
    "saving, before its deadline": Age("saving", 10**6, "busy", None),
}


@pytest.mark.parametrize("name", AGES)
def test_without_a_lock_its_age_tells(name: str, scene: Scene) -> None:
    """Fault 52: in another work directory there is no lock, and Glance's own clock decides."""
    scene.lock.unlink()
    age = AGES[name]
    made = scene.set(age.status, age_s=age.age_s, deadline=age.deadline)
    run = scene.run()
    assert (run.exit_code, run.outcomes) == (4 if age.outcome == "busy" else 0, {NAME: age.outcome})
    assert bool(run.named("image.awaited")) == age.awaited
    told = [event for event in (REMOVED, ADOPTED) if run.named(event)]
    assert told == ([age.event] if age.event else [])
    if age.outcome == "busy":
        assert scene.shelf.get(made["id"])["status"] == age.status
        scene.shelf.delete(made)
    else:
        check_repaired(scene)


def a_link(place: Path) -> None:
    (place.parent / "free").touch()
    place.symlink_to(place.parent / "free")


def a_folder(place: Path) -> None:
    place.mkdir()


def of_another_user(place: Path) -> None:
    place.touch()
    try:
        os.chown(place, 12345, -1)
    except PermissionError:
        pytest.skip("only root can give files away")


@pytest.mark.parametrize("build", [a_link, a_folder, of_another_user])
def test_a_lock_that_is_not_our_own_file_is_not_believed(
    build: Callable[[Path], None], scene: Scene
) -> None:
    """Fault 52: in a shared folder anybody could call a living run dead."""
    scene.lock.unlink()
    build(scene.lock)
    made = scene.set("saving", age_s=10**6)
    run = scene.run()
    assert (run.exit_code, run.outcomes) == (4, {NAME: "busy"})
    assert scene.shelf.get(made["id"])["status"] == "saving"
    assert scene.lock.exists()
    scene.shelf.delete(made)


# --- killed for real ------------------------------------------------------------------------------


def end_in(scene: Scene, number: signal.Signals, phase: str, *others: str) -> int:
    """Run the program, and send it a signal before a request of this phase."""
    trigger = Trigger(number, Future())
    with FaultProxy(scene.shelf.sandbox.image_url, on(phase, Call(trigger))) as proxy:
        variables = {"OS_IMAGE_ENDPOINT_OVERRIDE": proxy.origin}
        with scene.program.start(*scene.words(*others), variables=variables) as running:
            trigger.process.set_result(running.process)
            exit_code = running.process.wait(PATIENCE_S)
    assert trigger.pulled
    return exit_code


@pytest.mark.parametrize("shared", [True, False], ids=["its work directory", "another one"])
@pytest.mark.parametrize("phase", ["upload", "publish"])
def test_a_run_right_after_a_kill_repairs(phase: str, scene: Scene, *, shared: bool) -> None:
    """Fault 52: at once where the lock is, and elsewhere once what it left is old enough."""
    scene.current()
    assert end_in(scene, signal.SIGKILL, phase) == -signal.SIGKILL
    (left,) = scene.shelf.incoming()
    if not shared:
        scene.shelf.sandbox.set_image(left["id"], age_s=70)
        (scene.folder / "elsewhere").mkdir()
    run = scene.run("--work-dir", "." if shared else "elsewhere")
    assert (run.exit_code, run.outcomes) == (0, {NAME: "replaced"})
    assert not run.named("image.awaited")
    assert bool(run.named(ADOPTED)) == (phase == "publish")
    check_repaired(scene)
    assert scene.run().outcomes == {NAME: "unchanged"}


def test_a_run_that_is_told_to_end_leaves_to_the_next_what_it_would_adopt(scene: Scene) -> None:
    """Fault 50: exit 143, and the data need not be sent again."""
    filled(NEW)(scene)
    assert end_in(scene, signal.SIGTERM, "download") == 143
    (left,) = scene.shelf.incoming()
    run = scene.run()
    assert run.named(ADOPTED) and run.row["image_id"] == left["id"]
    check_repaired(scene)


def test_what_a_killed_run_was_to_keep_goes_with_it(scene: Scene) -> None:
    """Fault 51: a file is kept once its image is complete in Glance, and else is left over."""
    end_in(scene, signal.SIGKILL, "upload", "-k")
    assert list(scene.folder.glob("glancing-*-debian"))
    run = scene.run()
    assert run.exit_code == 0
    assert not list(scene.folder.glob("glancing-*"))


def test_an_image_that_is_not_published_keeps_no_file(scene: Scene) -> None:
    """The row of an image that failed names no file, so none is left."""
    with FaultProxy(scene.shelf.sandbox.image_url, on("publish", then=Answer(403))) as proxy:
        variables = {"OS_IMAGE_ENDPOINT_OVERRIDE": proxy.origin}
        run = scene.program.run(*scene.words("-k"), **variables)
    assert run.outcomes == {NAME: "failed"} and run.row["kept_path"] is None
    assert not list(scene.folder.glob("glancing-*"))


# --- whose it is ----------------------------------------------------------------------------------


def test_images_of_others_are_never_touched(scene: Scene) -> None:
    """Fault 49: what is not marked as ours is no leftover, whatever it is called."""
    theirs = scene.shelf.put(f"{NAME}.incoming", OTHER, glancing_state="incoming")
    assert scene.run().outcomes == {NAME: "uploaded"}
    assert scene.shelf.get(theirs["id"]) == theirs
    scene.shelf.delete(theirs)
