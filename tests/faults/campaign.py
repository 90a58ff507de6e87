"""Ends runs at random moments, as many as one likes, and looks whether the next one mends it."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.killer import Moment, Point, Stage, digest
from tests.faults.watcher import Watcher
from tests.marketplace import Marketplace
from tests.program import Run
from tests.sandbox import Sandbox
from tests.shelf import Image, Shelf

AT_ONCE = 3
EARLIEST_S, LONGEST_S = 0.6, 4.5
SIZES_BYTES = (12 * 1024, 12 * 1024, 9 * 1024 * 1024)
BATCH = 30


@dataclass(slots=True)
class Figures:
    """What a campaign came to."""

    seed: int
    kills: int = 0
    hit: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    looks: int = 0
    slowest_s: float = 0.0

    def __str__(self) -> str:
        states = ", ".join(f"{state}: {count}" for state, count in sorted(self.hit.items()))
        return (
            f"seed {self.seed}: {self.kills} runs ended at random, found then: {states}; "
            f"{len(self.wrong)} not mended by one further run, the slowest of which took "
            f"{self.slowest_s:.1f} s; {self.looks} looks at Glance, {len(self.gaps)} gaps"
        )


@dataclass(frozen=True, slots=True)
class Shot:
    """One run: what it is to do, and when and how it is ended."""

    point: Point
    after_s: float
    number: signal.Signals
    spool: bool


def end_runs(count: int, minutes: float, seed: int) -> Figures:
    """End up to ``count`` runs, for at most so many minutes, on a sandbox of its own."""
    figures, chance = Figures(seed), random.Random(seed)
    deadline_s = time.monotonic() + minutes * 60
    with Sandbox() as sandbox, Shelf(sandbox) as shelf, TemporaryDirectory() as folder:
        while figures.kills < count and time.monotonic() < deadline_s:
            size = min(BATCH, count - figures.kills)
            _batch(shelf, Path(folder), list(_shots(chance, figures.kills, size)), figures)
            for image in shelf.all():
                shelf.delete(image)
            print(figures, flush=True)
    return figures


def _shots(chance: random.Random, first: int, count: int) -> Iterator[Shot]:
    for number in range(first, first + count):
        operation = chance.choice(["upload", "replace", "replace"])
        size_bytes = chance.choice(SIZES_BYTES)
        point = Point(operation, "random", number, Moment.BEFORE, size_bytes)
        how = signal.SIGTERM if chance.random() < 0.2 else signal.SIGKILL
        yield Shot(point, chance.uniform(EARLIEST_S, LONGEST_S), how, chance.random() < 0.2)


def _batch(shelf: Shelf, folder: Path, shots: list[Shot], figures: Figures) -> None:
    with (
        Marketplace({}) as market,
        Watcher(shelf) as watcher,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        stage = Stage(shelf, market, folder)
        for shot, found, after in pool.map(lambda shot: _fire(stage, shot), shots):
            figures.kills += 1
            figures.hit[_state(found)] += 1
            figures.slowest_s = max(figures.slowest_s, after.seconds)
            wrong = _wrong(stage, shot, after)
            if wrong:
                figures.wrong.append(wrong)
                print(wrong, after.output, flush=True)
    figures.looks += watcher.looks
    figures.gaps += watcher.gaps


def _fire(stage: Stage, shot: Shot) -> tuple[Shot, list[Image], Run]:
    program = stage.set(shot.point)
    words = (*stage.words(), *(["--spool"] if shot.spool else []))
    with program.start(*words) as running:
        try:
            running.process.wait(shot.after_s)
        except subprocess.TimeoutExpired:
            running.process.send_signal(shot.number)
        running.process.wait(60)
    found = [image for image in stage.shelf.all() if _is_of(image, shot.point)]
    return shot, found, program.run(*words)


def _is_of(image: Image, point: Point) -> bool:
    return point.name in (image.get("glancing_name"), image["name"])


def _state(images: list[Image]) -> str:
    """How far the run had come, as Glance shows it."""
    states = {image.get("glancing_state", "old") for image in images}
    incoming = [image["status"] for image in images if image.get("glancing_state") == "incoming"]
    if incoming:
        return f"incoming {incoming[0]}"
    done = any(image.get("glancing_run") for image in images)
    return "two under the name" if {"old", "current"} <= states else "done" if done else "nothing"


def _wrong(stage: Stage, shot: Shot, after: Run) -> str:
    """What is not as it should be after the further run; empty when all is well."""
    point = shot.point
    images = [image for image in stage.shelf.all() if _is_of(image, point)]
    found = {image["name"]: (image["os_hash_value"], image["os_hidden"]) for image in images}
    wanted = {point.name: (digest(point.new), False)}
    if point.operation == "replace":
        wanted[f"{point.name}_old"] = (digest(point.old), True)
    left = [path.name for path in (stage.folder / point.key / "work").iterdir()]
    left += [path.name for path in (stage.folder / point.key / "backups").glob("*.part")]
    if (after.exit_code, found, left) == (0, wanted, []) and len(images) == len(found):
        return ""
    return f"{shot}: exit {after.exit_code}, {found}, left over {left}"
