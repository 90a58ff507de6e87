"""Faults 50 to 52: runs that are ended at any request, and runs at once, watched from outside.

All points are played side by side on one Glance, each with an image of its own; the watcher looks
at all of them all the time.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import images
from tests.conftest import empty
from tests.faults.killer import REQUESTS, Ended, Moment, Point, Stage, digest, points
from tests.faults.watcher import Watcher
from tests.marketplace import Marketplace
from tests.program import Program
from tests.shelf import Image, Shelf

POINTS = {point.name: point for point in points()}
AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class Played:
    """All points of one signal: what each came to, what is there in the end, and the watcher."""

    ended: Mapping[str, Ended]
    end: list[Image]
    watcher: Watcher

    def images_of(self, name: str) -> dict[str, Image]:
        """The images of a point by their names, each of which there is once."""
        found = [image for image in self.end if image["name"] in (name, f"{name}_old")]
        assert len({image["name"] for image in found}) == len(found), found
        return {image["name"]: image for image in found}


def play(number: signal.Signals, stock: Shelf, folder: Path) -> Played:
    empty(stock)
    with (
        Marketplace({}) as market,
        Watcher(stock) as watcher,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        stage = Stage(stock, market, folder)
        ended = pool.map(lambda point: stage.end_at(point, number), POINTS.values())
        by_name = {each.point.name: each for each in ended}
        return Played(by_name, stock.all(), watcher)


@pytest.fixture(scope="module")
def killed(stock: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(signal.SIGKILL, stock, tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def terminated(stock: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(signal.SIGTERM, stock, tmp_path_factory.mktemp("terminated"))


@pytest.mark.parametrize("operation", REQUESTS)
def test_the_points_are_all_that_a_run_asks_for(
    operation: str, shelf: Shelf, tmp_path: Path
) -> None:
    """A request that is new would be a point that nobody has tried."""
    with Marketplace({}) as market:
        stage = Stage(shelf, market, tmp_path)
        phases = stage.phases(Point(operation, "", 0, Moment.BEFORE))
    assert phases == list(REQUESTS[operation])


@pytest.mark.parametrize("name", POINTS)
def test_one_run_after_a_kill_converges(name: str, killed: Played) -> None:
    """Fault 51: right image, right backup, nothing left over, and at no instant no image."""
    ended = killed.ended[name]
    assert ended.pulled and ended.exit_code == -signal.SIGKILL and ended.after
    assert ended.after.exit_code == 0, ended.after.output
    assert not ended.after.named("image.awaited"), "it waited for a run that was known to be dead"
    check_end(ended, killed)


@pytest.mark.parametrize("name", POINTS)
def test_a_run_that_is_told_to_end_leaves_nothing(name: str, terminated: Played) -> None:
    """Fault 50: exit 143 within ten seconds, a truthful result, and nothing incoming."""
    ended = terminated.ended[name]
    assert ended.pulled and ended.exit_code == 143
    assert ended.run is not None and ended.run.seconds < 20
    assert "incoming" not in {image.get("glancing_state") for image in ended.between}
    done = any(image["os_hash_value"] == digest(ended.point.new) for image in ended.between)
    (row,) = ended.run.rows or [{"outcome": "failed"}]
    assert (row["outcome"] != "failed") <= done
    assert list((ended.folder / "work").iterdir()) == []
    assert not list((ended.folder / "backups").glob("*.part"))


def check_end(ended: Ended, played: Played) -> None:
    name, replaced = ended.point.name, ended.point.operation == "replace"
    found = played.images_of(name)
    current = found.pop(name)
    assert current["os_hash_value"] == digest(ended.point.new) and not current["os_hidden"]
    assert current["glancing_state"] == "current" and "glancing_deadline" not in current
    assert list(found) == [f"{name}_old"] * replaced
    for backup in found.values():
        assert backup["os_hash_value"] == digest(ended.point.old) and backup["os_hidden"]
    assert list((ended.folder / "work").iterdir()) == []
    copies = [path.read_bytes() for path in (ended.folder / "backups").iterdir()]
    assert copies == [ended.point.old] * replaced


@pytest.mark.xdist_group("cloud")  # by fixtures that it asks for itself
@pytest.mark.parametrize("how", ["killed", "terminated"])
def test_at_no_instant_was_there_no_image(how: str, request: pytest.FixtureRequest) -> None:
    """P1 and P2, as somebody sees it who asks Glance all the time."""
    played: Played = request.getfixturevalue(how)
    assert played.watcher.looks > len(POINTS)
    assert played.watcher.gaps == []
    assert how == "terminated" or played.watcher.seen.keys() == POINTS.keys()
    for name, seen in played.watcher.seen.items():
        point = POINTS[name]
        old = {digest(point.old)} if point.operation == "replace" else set()
        assert seen <= {digest(point.new)} | old


# --- several at once ------------------------------------------------------------------------------

OLD = images.raw(12 * 1024)
NAMES = ("one", "two", "three", "four")


def newer(name: str) -> bytes:
    """The image that is wanted; the same bytes under two names would be ambiguous."""
    return OLD[:-8] + name.ljust(8).encode()


@pytest.fixture
def market() -> Iterator[Marketplace]:
    with Marketplace({}) as market:
        yield market


@pytest.mark.parametrize("shared", [True, False], ids=["one work directory", "none in common"])
@pytest.mark.parametrize("count", [2, 5])
def test_runs_at_once_do_not_hurt_each_other(
    count: int, shared: bool, shelf: Shelf, market: Marketplace, tmp_path: Path
) -> None:
    """Fault 52: each image is replaced once; the others say so, or find it done."""
    lines = [market.publish(name, newer(name), "2") for name in NAMES]
    for name, line in zip(NAMES, lines, strict=True):
        shelf.put(name, OLD, mpid=line, version="1")
    (tmp_path / "vmlist").write_text("\n".join(lines))
    program = Program(tmp_path, shelf.sandbox.member.environ())
    with Watcher(shelf) as watcher, ExitStack() as stack:
        words = ("sync", "-l", "vmlist", "-u", market.base, "--work-dir")
        running = []
        for number in range(count):
            folder = tmp_path / ("work" if shared else f"work{number}")
            folder.mkdir(exist_ok=True)
            running.append(stack.enter_context(program.start(*words, folder)))
        runs = [each.finish() for each in running]
    assert {run.exit_code for run in runs} <= {0, 4}, [run.output for run in runs]
    outcomes = Counter((name, run.outcomes[name]) for run in runs for name in NAMES)
    assert {name: outcomes[name, "replaced"] for name in NAMES} == dict.fromkeys(NAMES, 1)
    assert {outcome for _, outcome in outcomes} <= {"replaced", "busy", "unchanged"}
    assert shelf.names() == sorted([*NAMES, *(f"{name}_old" for name in NAMES)])
    assert all(shelf.named(name)["os_hash_value"] == digest(newer(name)) for name in NAMES)
    assert watcher.gaps == []
