"""Names that pass from one image to another in one run: their order, crashes, and who is asked.

Fault 51, P2 and P3: at no instant is there no image of a name, and one run after any crash
puts everything right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from glancing.model import ImageChange, LocalPath, Options, Outcome, StoredImage
from glancing.report import RunResult
from glancing.sharding import Shard, owner
from tests.fakes import Crash, FakeStore
from tests.test_job import LIST, World

JOBS = Options(jobs=3)


class Watched(FakeStore):
    """Tells at every change whether there still is an image of each name that there was one of."""

    def __init__(self) -> None:
        super().__init__()
        self.gaps: list[str] = []

    def update(self, image: StoredImage, change: ImageChange) -> StoredImage:
        before = self._usable()
        changed = super().update(image, change)
        self.gaps += sorted(before - self._usable())
        return changed

    def _usable(self) -> set[str]:
        return {each.name for each in self.images() if each.status == "active" and not each.hidden}


@dataclass
class Versions(World):
    """A list of definitions whose versions each have bytes of their own."""

    number: int = field(default=0)

    def __post_init__(self) -> None:
        self.store: Watched = Watched()
        self.clock = self.store.clock

    def define(self, *versions: str, name: str = "web") -> None:
        lines = ["images:", f"- name: {name}", "  multi: true", "  versions:"]
        for version in versions:
            path = LocalPath(Path(f"/lists/{version}.img"))
            self.sources.put(path, content(version))
            digest = hashlib.sha256(content(version)).hexdigest()
            fields = f"version: '{version}', url: '{path.path.as_uri()}', checksum: '{digest}'"
            lines.append(f"  - {{{fields}}}")
        self.sources.put(LIST, "\n".join(lines).encode())

    def outcomes(self, options: Options = JOBS) -> dict[str, Outcome]:
        return told(self.sync(options))


def content(version: str) -> bytes:
    return f"version {version}".encode() * 1000


def told(result: RunResult) -> dict[str, Outcome]:
    return {row.name: row.outcome for row in result.images}


@pytest.fixture
def world(tmp_path: Path) -> Versions:
    return Versions(tmp_path)


def test_the_newest_comes_before_the_one_that_it_follows(world: Versions) -> None:
    world.define("1")
    world.outcomes()
    (first,) = world.store.images()
    for versions in (("1", "2"), ("3", "1", "2")):
        world.define(*versions)
        found = world.outcomes()
        assert found["web"] is Outcome.UPLOADED and not world.store.gaps
    assert world.images() == {"web": content("3"), "web (2)": content("2"), "web (1)": content("1")}
    assert world.store.get(first.id) is not None
    assert set(world.outcomes().values()) == {Outcome.UNCHANGED}


def crashed_calls() -> Iterator[tuple[str, int]]:
    for position in range(6):
        for side in ("before", "after"):
            yield side, position


@pytest.mark.parametrize(("side", "position"), list(crashed_calls()))
def test_one_run_after_any_crash_converges(world: Versions, side: str, position: int) -> None:
    world.define("1")
    world.outcomes()
    world.define("1", "2")
    setattr(world.store, f"crash_{side}", len(world.store.calls) + position)
    with suppress(Crash):
        world.sync()
    assert world.store.dead, "the run was over before"
    world.store.revive()
    world.clock.advance(100_000)
    world.run_id = "next"
    world.sync(JOBS)
    assert world.images() == {"web": content("2"), "web (1)": content("1")}
    assert not world.store.gaps


def test_the_one_before_keeps_its_name_when_the_newest_fails(world: Versions) -> None:
    world.define("1")
    world.outcomes()
    world.define("1", "2")
    world.sources.put(LocalPath(Path("/lists/2.img")), b"other bytes" * 100)
    assert world.outcomes() == {"web (1)": Outcome.BUSY, "web": Outcome.FAILED}
    assert world.images() == {"web": content("1")}


@pytest.mark.parametrize("only", ["web", "web (1)"])
def test_who_is_not_asked_for_renames_nothing_by_itself(world: Versions, only: str) -> None:
    """The image that takes the name moves the other one along; alone, that one waits."""
    world.define("1")
    world.outcomes()
    world.define("1", "2")
    found = world.outcomes(Options(jobs=2, only=(only,)))
    if only == "web":
        assert found == {"web": Outcome.UPLOADED} and set(world.images()) == {"web", "web (1)"}
    else:
        assert found == {"web (1)": Outcome.BUSY} and set(world.images()) == {"web"}
    assert not world.store.gaps


def test_shards_agree_on_who_comes_first(world: Versions) -> None:
    world.define("1")
    world.outcomes()
    world.define("1", "2")
    parts = 7
    assert owner("web/1", parts) != owner("web/2", parts)
    for part in {owner("web/1", parts), owner("web/2", parts)}:
        world.outcomes(Options(shard=Shard(part, parts)))
    assert world.images() == {"web": content("2"), "web (1)": content("1")}
    assert not world.store.gaps
