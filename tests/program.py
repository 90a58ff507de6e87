"""Runs the program as its users do: as a process of its own, whose result and events are read.

What holds of every run, whatever it does, is checked here each time: one result on stdout, one JSON
object on each line of stderr, an exit code that the result tells as well, counts that add up, and
one event for each image.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 120.0
POLL_S = 0.05
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
EVENT_NAME = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+")
OUTCOMES = (
    *("uploaded", "replaced", "updated", "unchanged"),
    *("refused", "failed", "planned", "busy"),
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run told its caller; ``output`` is all that it printed, as it was."""

    exit_code: int
    result: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    output: str
    seconds: float

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the result, in their order."""
        return list(self.result["images"])

    @property
    def row(self) -> dict[str, Any]:
        """The one row of a run about one image."""
        (row,) = self.rows
        return row

    @property
    def outcomes(self) -> dict[str, str]:
        """The outcome of each row by its name, or its descriptor where it got no name."""
        return {row["name"] or row["descriptor"]: row["outcome"] for row in self.rows}

    def named(self, name: str) -> list[Mapping[str, Any]]:
        """All events of one name."""
        return [event for event in self.events if event["event"] == name]

    def row_of(self, descriptor: str) -> dict[str, Any]:
        """The row of one descriptor."""
        (row,) = (row for row in self.rows if row["descriptor"] == descriptor)
        return row


@dataclass(frozen=True, slots=True)
class Running:
    """A run under way."""

    process: subprocess.Popen[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]
    began_s: float

    def finish(self, timeout_s: float = PATIENCE_S) -> Run:
        """Wait for the end, and read what it told."""
        exit_code = self.process.wait(timeout_s)
        seconds = time.monotonic() - self.began_s
        return read_run(exit_code, _text(self.stdout), _text(self.stderr), seconds)


@dataclass(frozen=True, slots=True)
class Program:
    """The program with a working directory and an environment of its own.

    Nothing of the surrounding environment reaches it but the way to Python's own parts.
    """

    cwd: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path, **variables: str) -> Run:
        """Run to the end; ``variables`` come on top of the environment."""
        with self.start(*arguments, variables=variables) as running:
            return running.finish()

    @contextmanager
    def start(
        self,
        *arguments: str | Path,
        variables: Mapping[str, str] = NO_VARIABLES,
        wrapper: tuple[str, ...] = (),
    ) -> Iterator[Running]:
        """Start a run, and kill it if it still runs in the end; ``wrapper`` are words before it."""
        words = [*wrapper, sys.executable, "-m", "glancing", *map(str, arguments)]
        environ = {**self._plain(), **self.environ, **variables}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            began_s = time.monotonic()
            with subprocess.Popen(
                words, env=environ, cwd=self.cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            ) as process:
                try:
                    yield Running(process, out, err, began_s)
                finally:
                    process.kill()

    def _plain(self) -> dict[str, str]:
        return {
            "HOME": str(self.cwd),
            "LANG": "C.UTF-8",
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "*",
            "no_proxy": "*",
        }


def read_run(exit_code: int, stdout: str, stderr: str, seconds: float) -> Run:
    """What a run printed, once it is clear that it holds to the interface."""
    told = f"exit code {exit_code}\n{stdout}\n{stderr}"
    events = tuple(_event(line, told) for line in stderr.splitlines())
    assert stdout.endswith("\n") and stdout.count("\n") == 1, told
    result = json.loads(stdout)
    assert result["schema"] == 1 and result["exit_code"] == exit_code, told
    if "images" in result:
        _check_rows(result, events, told)
    return Run(exit_code, result, events, stdout + stderr, seconds)


def _event(line: str, told: str) -> dict[str, Any]:
    event = json.loads(line)
    assert isinstance(event, dict) and EVENT_NAME.fullmatch(event["event"]), told
    assert {"level", "timestamp"} <= event.keys(), told
    assert not event["event"].startswith("program."), told
    assert event["event"] != "image.crashed", told
    return event


def _check_rows(result: Mapping[str, Any], events: tuple[dict[str, Any], ...], told: str) -> None:
    found = Counter(row["outcome"] for row in result["images"])
    assert result["counts"] == {outcome: found[outcome] for outcome in OUTCOMES}, told
    for row in result["images"]:
        troubled = row["outcome"] in ("failed", "refused", "busy")
        assert (row["error"] is not None) == troubled, told
    if not any(event["event"] == "run.interrupted" for event in events):
        names = {f"image.{outcome}" for outcome in OUTCOMES}
        told_of = Counter(event["event"] for event in events if event["event"] in names)
        assert told_of == {f"image.{outcome}": count for outcome, count in found.items()}, told


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def wait_until(condition: Callable[[], bool], what: str, patience_s: float = 30.0) -> None:
    """Wait for something that nobody tells of, and fail when it does not come."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {patience_s} s: {what}"
        time.sleep(POLL_S)
