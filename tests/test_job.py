"""The workflow with a store in memory: crashes after every step, runs at once, what is left behind.

The store is held to Glance's behaviour by ``test_store_conformance``.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import pytest

from glancing.carrier import Mode
from glancing.catalogue import Catalogue, ImportRequest
from glancing.errors import ConfigError, ErrorKind, ExitCode, StoreError
from glancing.files import Directories
from glancing.intake import Tools
from glancing.job import Job
from glancing.model import (
    TAG,
    Digest,
    LocalPath,
    Options,
    Outcome,
    RetryPolicy,
    SourceStream,
    StoredImage,
    UploadBody,
    Url,
    Validators,
)
from glancing.report import RunResult
from glancing.sharding import Shard
from tests.fakes import Crash, FakeClock, FakeSource, FakeSources, FakeStore, ListEvents

LIST = LocalPath(Path("/lists/vmlist"))
IMAGE = Url("https://example.org/debian.img")
OLD, NEW = b"old bytes" * 1000, b"new bytes" * 1000


class PatientStop(threading.Event):
    """An event whose waiting passes the fake clock's time instead of ours."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.advance(timeout or 0)
        return self.is_set()


@dataclass
class World:
    """One cloud, one list and one clock, for as many runs as a test wants."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    events: ListEvents = field(default_factory=ListEvents)
    sources: FakeSources = field(default_factory=FakeSources)
    store: FakeStore = field(init=False)
    run_id: str = "run"

    def __post_init__(self) -> None:
        self.store = FakeStore(self.clock)
        self.publish(OLD)

    def publish(self, data: bytes, *lines: str) -> None:
        """What the source and the list have from now on."""
        etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        self.sources.put(IMAGE, FakeSource(data, Validators(etag=etag, size_bytes=len(data))))
        self.sources.put(LIST, "\n".join([IMAGE.full, *lines]).encode())

    def job(self, options: Options | None = None, mode: Mode = Mode.APPLY) -> Job:
        tools = Tools(
            sources=self.sources,
            workspace=Directories(work_dir=self.folder, backup_dir=self.folder),
            clock=self.clock,
            events=self.events,
            stop=PatientStop(self.clock),
            retry=RetryPolicy(attempts=3, first_wait_s=0, longest_wait_s=0),
        )
        catalogue = Catalogue(self.sources, self.events, self.clock, folder=Path("/lists"))
        options = options or Options(jobs=1)
        return Job("sync", self.run_id, catalogue, lambda: self.store, tools, options, mode)

    def sync(self, options: Options | None = None) -> RunResult:
        return self.job(options).sync([LIST])

    def import_one(self, options: Options | None = None) -> RunResult:
        return self.job(options).import_one(ImportRequest(IMAGE.full))

    def images(self) -> dict[str, bytes]:
        """The data of every image by its name, hidden ones included."""
        found = {image.name: self.store.data_of(image.id) for image in self.store.images()}
        assert len(found) == len(self.store.images()), "two images of one name"
        return found

    def usable(self, name: str) -> bool:
        """Whether somebody could boot the name at this instant."""
        return any(
            image.name == name and image.status == "active" and not image.hidden
            for image in self.store.images()
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def outcomes(result: RunResult) -> list[Outcome]:
    return [image.outcome for image in result.images]


# --- the plain course of things -------------------------------------------------------------------


def test_an_image_comes_is_left_alone_and_is_replaced(world: World) -> None:
    assert outcomes(world.sync()) == [Outcome.UPLOADED]
    calls = len(world.store.calls)
    assert outcomes(world.sync()) == [Outcome.UNCHANGED]
    assert [call.method for call in world.store.calls[calls:]] == ["inventory"]
    world.publish(NEW)
    result = world.sync(Options(backup=True, jobs=1))
    assert outcomes(result) == [Outcome.REPLACED] and result.exit_code == ExitCode.OK
    assert world.images() == {"debian": NEW, "debian_old": OLD}
    assert Path(str(result.images[0].backup_path)).read_bytes() == OLD


def test_the_one_before_gets_a_dated_name(world: World) -> None:
    for data in (OLD, NEW, b"newer bytes" * 1000):
        world.publish(data)
        world.clock.advance(1000)
        world.sync()
    names = sorted(world.images())
    assert names[:2] == ["debian", "debian_old"] and names[2].startswith("debian_old_2026")
    assert world.images()["debian_old"] == NEW and world.images()[names[2]] == OLD


def test_what_the_list_does_not_say_is_inherited(world: World) -> None:
    world.sync()
    (image,) = world.store.images()
    scene = replace(
        image,
        tags=image.tags | {"mine"},
        min_disk_gib=8,
        protected=True,
        properties=MappingProxyType({**image.properties, "os_distro": "debian", "stores": "s1"}),
    )
    world.store.add(scene, OLD, members=["friend"])
    world.publish(NEW)
    world.sync()
    new = next(image for image in world.store.images() if image.name == "debian")
    assert new.tags == frozenset({"mine", TAG}) and new.min_disk_gib == 8 and new.protected
    assert new.properties["os_distro"] == "debian" and "stores" not in new.properties
    assert world.store.members(new.id) == ("friend",)


def test_bytes_that_turn_out_the_same_change_nothing(world: World) -> None:
    world.sync()
    source = world.sources.contents[IMAGE]
    source.validators = Validators(etag="another", size_bytes=len(OLD))
    result = world.sync(Options(backup=True, jobs=1))
    assert outcomes(result) == [Outcome.UNCHANGED] and world.images() == {"debian": OLD}
    assert not list(world.folder.iterdir()), "no copy of what stays"
    opened = len(world.sources.opened)
    assert outcomes(world.sync()) == [Outcome.UNCHANGED]
    assert len(world.sources.opened) == opened, "the new validators were noted"


def test_one_failing_image_does_not_stop_the_others(world: World) -> None:
    world.publish(OLD, "https://example.org/missing.img", "https://example.org/b.img")
    world.sources.put(Url("https://example.org/b.img"), b"b" * 3000)
    result = world.sync()
    expected = [Outcome.UPLOADED, Outcome.FAILED, Outcome.UPLOADED]
    assert outcomes(result) == expected and result.exit_code == ExitCode.IMAGES_FAILED


def test_a_plan_and_a_dry_run_change_nothing(world: World) -> None:
    for mode in (Mode.PLAN, Mode.VERIFY):
        assert outcomes(world.job(mode=mode).sync([LIST])) == [Outcome.PLANNED]
    assert {call.method for call in world.store.calls} == {"inventory"}
    assert not world.sources.opened[1:], "a plan downloads nothing"


@pytest.mark.parametrize(
    ("data", "options", "kind"),
    [
        (b"", Options(), ErrorKind.EMPTY),
        (OLD, Options(max_size_bytes=10), ErrorKind.TOO_LARGE),
    ],
)
@pytest.mark.parametrize("mode", list(Mode))
def test_a_plan_fails_where_a_run_would_for_the_size_alone(
    world: World, data: bytes, options: Options, kind: ErrorKind, mode: Mode
) -> None:
    """A plan exits as `sync` would."""
    world.publish(data)
    result = world.job(options, mode).sync([LIST])
    assert result.exit_code == ExitCode.IMAGES_FAILED
    assert result.images[0].error and result.images[0].error.kind == kind


def test_only_what_was_asked_for(world: World) -> None:
    world.publish(OLD, "https://example.org/b.img")
    world.sources.put(Url("https://example.org/b.img"), b"b" * 3000)
    assert outcomes(world.sync(Options(jobs=1, only=("b",)))) == [Outcome.UPLOADED]
    assert list(world.images()) == ["b"]
    with pytest.raises(ConfigError, match="typo"):
        world.sync(Options(only=("typo",)))


def test_two_backups_of_one_run_do_not_share_a_name(world: World) -> None:
    world.sync()
    (image,) = world.store.images()
    twin = replace(image, id="twin", created_at=world.clock.now() - timedelta(days=1))
    world.store.add(twin, OLD)
    world.publish(NEW)
    world.clock.advance(60)
    assert outcomes(world.sync()) == [Outcome.REPLACED]
    names = sorted(world.images())
    assert names[:2] == ["debian", "debian_old"] and names[2].startswith("debian_old_2026")


def test_two_shards_bring_every_image_of_a_list_exactly_once(world: World) -> None:
    urls = [Url(f"https://example.org/image-{number}.img") for number in range(200)]
    for number, url in enumerate(urls):
        world.sources.put(url, b"%d" % number * 700)
    world.sources.put(LIST, "\n".join(url.full for url in urls).encode())
    shares = [world.sync(Options(jobs=1, shard=Shard(index, 2))).images for index in range(2)]
    assert {image.outcome for share in shares for image in share} == {Outcome.UPLOADED}
    names = [image.name for share in shares for image in share]
    assert len(names) == len(set(names)) == 200 and len(world.images()) == 200
    assert all(75 <= len(share) <= 125 for share in shares)


# --- crashes --------------------------------------------------------------------------------------


Run = Callable[..., RunResult]


def crashed_runs() -> Iterator[tuple[str, int]]:
    """Every call of an upload and of a replace with copy, and a crash before and after it."""
    for position in range(12):
        yield "before", position
        yield "after", position


@pytest.mark.parametrize(("side", "position"), list(crashed_runs()))
@pytest.mark.parametrize("first", [True, False], ids=["upload", "replace"])
@pytest.mark.parametrize("run", [World.sync, World.import_one], ids=["sync", "import"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_run_after_any_crash_converges(
    world: World, side: str, position: int, run: Run, *, first: bool
) -> None:
    """Promises P2 and P3, and fault 51, for every call of a run of either command."""
    options = Options(jobs=1, backup=True)
    if not first:
        run(world)
        (old,) = world.store.images()
        world.store.add(old, OLD, members=["friend"])
        world.publish(NEW)
        world.clock.advance(3600)
    start = len(world.store.calls)
    setattr(world.store, f"crash_{side}", start + position)
    with suppress(Crash):
        run(world, options)
    assert first or world.usable("debian"), "the name had an image and has none"
    world.store.revive()
    world.clock.advance(5)
    result = run(world, options)
    assert result.exit_code == ExitCode.OK
    expected = {"debian": OLD} if first else {"debian": NEW, "debian_old": OLD}
    assert world.images() == expected and world.usable("debian")
    current = next(image for image in world.store.images() if image.name == "debian")
    assert world.store.members(current.id) == (() if first else ("friend",))
    assert outcomes(run(world, options)) == [Outcome.UNCHANGED]


# --- what a dead run has filled -------------------------------------------------------------------


def proven(world: World, data: bytes = NEW, *sums: Digest) -> RunResult:
    """A run that is told a digest of the wanted bytes which Glance does not keep."""
    expected = sums or (Digest("sha256", hashlib.sha256(data).hexdigest()),)
    job = replace(world.job(Options(jobs=1, backup=True)), command="import")
    return job.import_one(ImportRequest(IMAGE.full, sums=expected))


def leave_filled(world: World) -> StoredImage:
    """Let a run die between its upload and its publishing, as a replacement of OLD."""
    world.sync()
    world.publish(NEW)
    with suppress(Crash):
        world.store.crash_before = len(world.store.calls) + 5
        proven(world)
    world.store.revive()
    assert [call.method for call in world.store.calls[-2:]] == ["get", "update"]
    world.clock.advance(3600)
    return next(image for image in world.store.images() if image.state == "incoming")


def calls_of(world: World, method: str) -> list[str]:
    return [call.subject for call in world.store.calls if call.method == method]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_a_dead_run_filled_is_published_without_another_upload(world: World) -> None:
    """Section F: read back, as Glance keeps no digest of the algorithm that was published."""
    left = leave_filled(world)
    uploads, opened = len(calls_of(world, "upload")), len(world.sources.opened)
    result = proven(world)
    assert outcomes(result) == [Outcome.REPLACED] and result.images[0].image_id == left.id
    assert world.images() == {"debian": NEW, "debian_old": OLD}
    assert len(calls_of(world, "upload")) == uploads and len(world.sources.opened) == opened
    assert result.images[0].matched and Path(str(result.images[0].backup_path)).read_bytes() == OLD
    assert "image.adopted" in world.events.names


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("position", range(9))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_run_after_a_crash_of_the_adopting_run_converges(
    world: World, side: str, position: int
) -> None:
    """Promises P2 and P3, and fault 51, where the run that repairs is killed as well."""
    leave_filled(world)
    setattr(world.store, f"crash_{side}", len(world.store.calls) + position)
    with suppress(Crash):
        proven(world)
    assert world.usable("debian"), "the name had an image and has none"
    world.store.revive()
    world.clock.advance(3600)
    assert proven(world).exit_code == ExitCode.OK
    assert world.images() == {"debian": NEW, "debian_old": OLD} and world.usable("debian")
    assert outcomes(proven(world)) == [Outcome.UNCHANGED]


def truncated(left: StoredImage) -> tuple[StoredImage, bytes]:
    return left, NEW[:-1]


def of_another_format(left: StoredImage) -> tuple[StoredImage, bytes]:
    return replace(left, disk_format="qcow2"), NEW


def not_what_glance_says(left: StoredImage) -> tuple[StoredImage, bytes]:
    return replace(left, checksum="0" * 32), NEW


@pytest.mark.parametrize("spoil", [truncated, of_another_format, not_what_glance_says])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_cannot_be_proven_is_uploaded_anew(
    world: World, spoil: Callable[[StoredImage], tuple[StoredImage, bytes]]
) -> None:
    """Promise P1: nothing is published for having been there already."""
    left = leave_filled(world)
    world.store.add(*spoil(left))
    result = proven(world)
    assert outcomes(result) == [Outcome.REPLACED] and result.images[0].image_id != left.id
    assert world.images() == {"debian": NEW, "debian_old": OLD}
    assert "image.leftover_unusable" in world.events.names and "image.adopted" not in (
        world.events.names
    )
    assert calls_of(world, "delete") == [left.id]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_another_digest_is_expected_of_is_not_published(world: World) -> None:
    """Promise P1: the list has moved on to another image meanwhile."""
    left = leave_filled(world)
    newer = b"newer bytes" * 1000
    world.publish(newer)
    assert outcomes(proven(world, newer)) == [Outcome.REPLACED]
    assert world.images() == {"debian": newer, "debian_old": OLD}
    assert calls_of(world, "delete") == [left.id]


class Overtaken(FakeStore):
    """Another run publishes what a dead one filled, between two looks of ours."""

    def __init__(self, world: World, method: str) -> None:
        super().__init__(world.clock)
        self._world = world
        self._method = method
        self.armed = False

    def inventory(self) -> tuple[StoredImage, ...]:
        found = super().inventory()
        self._overtake("inventory")
        return found

    def download(self, image: StoredImage) -> AbstractContextManager[SourceStream]:
        self._overtake("download")
        return super().download(image)

    def _overtake(self, method: str) -> None:
        if self.armed and method == self._method:
            self.armed = False
            assert outcomes(proven(self._world)) == [Outcome.REPLACED]


@pytest.mark.parametrize("method", ["inventory", "download"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_two_runs_that_repair_publish_it_once(world: World, method: str) -> None:
    """Fault 52: the other one says busy, and takes away nothing."""
    world.store = store = Overtaken(world, method)
    left = leave_filled(world)
    store.armed = True
    result = proven(world)
    assert outcomes(result) == [Outcome.BUSY] and result.exit_code == ExitCode.BUSY
    assert world.images() == {"debian": NEW, "debian_old": OLD}
    assert store.get(left.id) and not calls_of(world, "delete")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_leftover_that_another_run_has_published_is_not_removed(world: World) -> None:
    """Promise P2: this run has another image to bring, and saw the leftover before."""
    world.store = store = Overtaken(world, "inventory")
    left = leave_filled(world)
    world.sources.put(Url("https://example.org/b.img"), b"b" * 3000)
    world.sources.put(LIST, b"https://example.org/b.img")
    store.armed = True
    assert outcomes(world.sync()) == [Outcome.UPLOADED]
    assert world.images() == {"debian": NEW, "debian_old": OLD, "b": b"b" * 3000}
    assert store.get(left.id) and not calls_of(world, "delete")


# --- other runs -----------------------------------------------------------------------------------


def incoming(world: World, status: str, **properties: str) -> StoredImage:
    """An incoming image of another run, as Glance would have it."""
    given = {
        "glancing_identity": IMAGE.public,
        "glancing_name": "debian",
        "glancing_state": "incoming",
        "glancing_run": "another",
        **properties,
    }
    image = StoredImage(
        id="theirs",
        name="debian.incoming",
        status=status,
        visibility="private",
        hidden=True,
        tags=frozenset({TAG}),
        properties=MappingProxyType(given),
        created_at=world.clock.now(),
        updated_at=world.clock.now(),
    )
    world.store.add(image)
    return image


def test_an_image_that_a_living_run_is_at_is_busy(world: World) -> None:
    deadline = (world.clock.now() + timedelta(hours=1)).isoformat()
    incoming(world, "saving", glancing_deadline=deadline)
    result = world.sync()
    assert outcomes(result) == [Outcome.BUSY] and result.exit_code == ExitCode.BUSY
    assert list(world.images()) == ["debian.incoming"]


def test_past_its_deadline_nobody_is_at_it(world: World) -> None:
    deadline = (world.clock.now() - timedelta(seconds=1)).isoformat()
    incoming(world, "saving", glancing_deadline=deadline)
    assert outcomes(world.sync()) == [Outcome.UPLOADED] and world.images() == {"debian": OLD}


@pytest.mark.parametrize("status", ["queued", "uploading", "importing", "active"])
def test_a_minute_without_a_change_tells_that_nobody_is_at_it(world: World, status: str) -> None:
    """Section F: what a killed run left is removed, whatever state it is in."""
    incoming(world, status)
    before = world.clock.now()
    assert outcomes(world.sync()) == [Outcome.UPLOADED] and world.images() == {"debian": OLD}
    assert world.clock.now() - before >= timedelta(seconds=60), "it was too early to tell"
    assert "image.leftover_removed" in world.events.names


@pytest.mark.parametrize("other", ["glancing_identity", "glancing_name"])
def test_what_others_are_filling_for_another_image_is_not_waited_for(
    world: World, other: str
) -> None:
    incoming(world, "queued", **{other: "something else"})
    before = world.clock.now()
    assert outcomes(world.sync()) == [Outcome.UPLOADED] and world.clock.now() == before
    assert set(world.images()) == {"debian", "debian.incoming"}


class Overloaded(FakeStore):
    """A Glance that takes records, and neither data nor deletions."""

    def upload(self, image_id: str, body: UploadBody) -> None:  # noqa: ARG002
        raise StoreError("Glance did not take the image's data", transient=True)

    def delete(self, image_id: str) -> None:  # noqa: ARG002
        raise StoreError("Glance did not delete the image", transient=True)


def test_what_this_run_could_not_remove_is_no_other_run(world: World) -> None:
    """Promise P9: a Glance that fails again and again is told as that, not as another run."""
    world.store = Overloaded(world.clock)
    result = world.sync()
    assert result.exit_code == ExitCode.IMAGES_FAILED and outcomes(result) == [Outcome.FAILED]
    assert result.images[0].error and result.images[0].error.kind == ErrorKind.STORE


class TwoAtOnce(FakeStore):
    """Another run comes in between our inventory and our record."""

    def __init__(self, world: World, *, finishes: bool) -> None:
        super().__init__(world.clock)
        self._world = world
        self._finishes = finishes
        self._came = False

    def inventory(self) -> tuple[StoredImage, ...]:
        found = super().inventory()
        if not self._came:
            self._came = True
            self._other_run()
        return found

    def _other_run(self) -> None:
        other = World(
            self._world.folder,
            clock=self._world.clock,
            sources=self._world.sources,
            run_id="another",
        )
        other.store = self
        if not self._finishes:
            self.crash_before = len(self.calls) + 2
        with suppress(Crash):
            other.sync()
        self.revive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("finishes", [True, False])
def test_two_runs_never_make_one_image_twice(world: World, *, finishes: bool) -> None:
    """Fault 52: the record's id is a test-and-set."""
    world.store = TwoAtOnce(world, finishes=finishes)
    result = world.sync()
    assert outcomes(result) == [Outcome.BUSY] and result.exit_code == ExitCode.BUSY
    assert len(world.store.images()) == 1


# --- refusals before anything ---------------------------------------------------------------------


def test_an_image_without_digest_is_told_and_can_be_forbidden(world: World) -> None:
    result = world.sync(Options(jobs=1, require_digest="any"))
    assert outcomes(result) == [Outcome.REFUSED] and result.images[0].error
    assert result.images[0].error.kind == ErrorKind.NO_DIGEST
    assert not world.sources.opened and outcomes(world.sync()) == [Outcome.UPLOADED]
    assert "image.unverified" in world.events.names


def test_a_wrong_digest_leaves_the_old_image_and_no_copy(world: World) -> None:
    world.sync()
    world.publish(NEW)
    job = world.job(Options(jobs=1, backup=True))
    request = ImportRequest(IMAGE.full, name="debian", sums=_wrong_sums())
    result = replace(job, command="import").import_one(request)
    assert outcomes(result) == [Outcome.FAILED] and result.images[0].error
    assert result.images[0].error.kind == ErrorKind.WRONG_DIGEST
    assert world.images() == {"debian": OLD} and not list(world.folder.iterdir())


def _wrong_sums() -> tuple[Digest, ...]:
    return (Digest("sha256", "0" * 64),)
