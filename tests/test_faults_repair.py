"""Section F: what a dead run can leave in Glance, built there first, and what the next run does.

That a run is dead is told by a lock in the work directory that nobody holds (fault 52).
"""

from __future__ import annotations

import fcntl
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha512
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import images
from tests.marketplace import Marketplace
from tests.program import Program, Run, wait_until
from tests.shelf import Image, Shelf

NAME = "debian"
OLD = images.raw(12 * 1024)
NEW = OLD[:-1] + b"\x02"
OTHER = OLD[:-1] + b"\x03"
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
        (self.folder / f"glancing-{self.run_id}.lock").touch()

    def run(self) -> Run:
        program = Program(self.folder, self.shelf.sandbox.member.environ())
        return program.run("sync", "-l", "vmlist", "-u", self.market.base, "--work-dir", ".")

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
        deadline = {"glancing_deadline": "2099-01-01T00:00:00+00:00"}
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
    "active, right": Row(filled(NEW), "uploaded", ADOPTED, ALONE),
    "active, right, replacing": Row(with_old(filled(NEW)), "replaced", ADOPTED, BOTH),
    "active, wrong": Row(with_old(filled(OTHER)), "replaced", REMOVED, BOTH),
    "active, and not needed": Row(right_already(filled(NEW)), "unchanged", REMOVED, ALONE),
    "queued, and not needed": Row(right_already(queued), "unchanged", REMOVED, ALONE),
    "two current": Row(replaced_halfway, "unchanged", None, BOTH),
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


@pytest.mark.parametrize("status", ["queued", "active"])
def test_what_a_living_run_is_at_is_left_alone(status: str, scene: Scene) -> None:
    """Fault 52: its lock is held, so it is busy, however old its record is."""
    scene.current()
    if status == "active":
        held = scene.shelf.put(f"{NAME}.incoming", NEW, **scene.incoming())
    else:
        held = scene.shelf.record(f"{NAME}.incoming", **scene.incoming())
    path = scene.folder / f"glancing-{scene.run_id}.lock"
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = scene.run()
    assert (run.exit_code, run.outcomes) == (4, {NAME: "busy"})
    assert scene.shelf.get(held["id"])["status"] == status and path.exists()
    scene.shelf.delete(held)


def test_images_of_others_are_never_touched(scene: Scene) -> None:
    """Fault 49: what is not marked as ours is no leftover, whatever it is called."""
    theirs = scene.shelf.put(f"{NAME}.incoming", OTHER, glancing_state="incoming")
    assert scene.run().outcomes == {NAME: "uploaded"}
    assert scene.shelf.get(theirs["id"]) == theirs
    scene.shelf.delete(theirs)
