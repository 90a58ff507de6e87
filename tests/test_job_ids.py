"""Images whose record is to have an id that their list gives them.

Faults 42, 51 and 52, P3: Glance never gives an id twice, so none is spent on bytes that are wrong,
and what a dead run has begun is gone on with.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from glancing.errors import ErrorKind, StoreError
from glancing.files import LocalSources
from glancing.model import (
    ImageResult,
    LocalPath,
    Location,
    Outcome,
    SourceStream,
    StoredImage,
    UploadBody,
)
from tests.fakes import Crash, FakeSources, FakeStore
from tests.test_job import IMAGE, LIST, NEW, OLD, World

ID = "0c5b6c2e-1d52-4b4f-9e9b-0a8c5d9f0001"


class SpooledSources(FakeSources):
    """What was spooled lies on the disk; all else is made up."""

    def open(self, location: Location) -> AbstractContextManager[SourceStream]:
        if isinstance(location, LocalPath) and location not in self.contents:
            return LocalSources().open(location)
        return super().open(location)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, sources=SpooledSources())
    define(world, OLD)
    return world


def define(world: World, data: bytes, name: str = "web", version: str = "1") -> None:
    digest = hashlib.sha256(data).hexdigest()
    said = f"version: '{version}', url: '{IMAGE.full}', checksum: '{digest}', id: {ID}"
    text = f"images:\n- name: {name}\n  format: raw\n  versions:\n  - {{{said}}}\n"
    world.sources.put(LIST, text.encode())


def sync(world: World) -> ImageResult:
    (row,) = world.sync().images
    return row


def test_a_record_gets_its_id(world: World) -> None:
    row = sync(world)
    assert (row.outcome, row.image_id) == (Outcome.UPLOADED, ID)
    assert sync(world).outcome is Outcome.UNCHANGED


def test_no_id_is_spent_on_wrong_bytes(world: World) -> None:
    large = OLD * 2000  # more than is held back while it is sent
    world.sources.put(IMAGE, large)
    define(world, NEW)
    assert sync(world).outcome is Outcome.FAILED
    assert "create" not in {call.method for call in world.store.calls}
    define(world, large)
    assert sync(world).image_id == ID


@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize("side", ["before", "after"])
def test_one_run_after_any_crash_converges(world: World, side: str, position: int) -> None:
    setattr(world.store, f"crash_{side}", position)
    with suppress(Crash):
        world.sync()
    world.store.revive()
    world.run_id = "next"
    assert sync(world).image_id == ID
    assert world.images() == {"web 1": OLD}


class Cutting(FakeStore):
    """The first so many uploads break off."""

    cuts = 1

    def upload(self, image_id: str, body: UploadBody) -> None:
        if self.cuts:
            self.cuts -= 1
            raise StoreError("cut", transient=True)
        super().upload(image_id, body)


@pytest.mark.parametrize("cuts", [1, 10])
def test_an_upload_that_is_cut_goes_to_the_same_record_again(world: World, cuts: int) -> None:
    store = world.store = Cutting(world.clock)
    store.cuts = cuts
    if cuts > 1:
        assert sync(world).outcome is Outcome.FAILED
        (left,) = store.images()
        assert (left.id, left.status, left.hidden) == (ID, "queued", True)
        store.cuts = 0
    row = sync(world)
    assert (row.outcome, row.image_id) == (Outcome.UPLOADED, ID)


@pytest.mark.parametrize(
    ("holder", "message"),
    [
        (None, "Glance gives no id twice"),
        (StoredImage(ID, "theirs", "active", size_bytes=1), "image 'theirs' has the id"),
    ],
)
def test_an_id_that_cannot_be_had_is_refused(
    world: World, holder: StoredImage | None, message: str
) -> None:
    world.store.add(holder or StoredImage(ID, "gone", "active"))
    if holder is None:
        world.store.delete(ID)
    row = sync(world)
    assert row.outcome is Outcome.FAILED and row.error is not None
    assert row.error.kind == ErrorKind.ID_SPENT and message in row.error.message


def test_an_image_that_is_there_gets_no_other_id(world: World) -> None:
    plain = world.sources.contents[LIST].data.replace(f", id: {ID}".encode(), b"")
    world.sources.put(LIST, plain)
    first = sync(world)
    define(world, OLD)
    row = sync(world)
    assert row.outcome is Outcome.REFUSED and row.image_id == first.image_id
    assert row.error is not None and row.error.kind == ErrorKind.ID_SPENT
