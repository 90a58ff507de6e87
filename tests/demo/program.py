"""Runs glancing as an operator's scheduler would: a process of its own, with ``OS_*`` variables.

It sees nothing of the surrounding environment: no other cloud, no settings, no proxy, no home.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.demo.catalogue import DemoError
from tests.sandbox import Sandbox
from tests.sandbox.service import plain_environment

ROOT = Path(__file__).resolve().parents[2]
LONGEST_RUN_S = 120.0
CLEANING_UP_S = 15.0


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of glancing came to: its exit code, result object and JSON events."""

    exit_code: int
    result: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]


class Program:
    """The command ``glancing`` of this checkout, logged in as the sandbox's ordinary user."""

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        self._directory = directory
        own = {"PYTHONPATH": str(ROOT)}
        self._environment = plain_environment(directory) | sandbox.member.environ() | own

    def run(self, *words: str) -> Run:
        """Run to the end; DemoError when it does not print what it promises to."""
        exit_code, printed, told = self._output([sys.executable, "-m", "glancing", *words])
        try:
            events = tuple(json.loads(line) for line in told.splitlines())
            return Run(exit_code, json.loads(printed), events)
        except ValueError:
            last = " / ".join(told.splitlines()[-5:])
            message = f"glancing {words[0]} ended with {exit_code}, result or events are no JSON"
            raise DemoError(f"{message}: {last}") from None

    def _output(self, command: list[str]) -> tuple[int, str, str]:
        with subprocess.Popen(
            command,
            env=self._environment,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as process:
            try:
                printed, told = process.communicate(timeout=LONGEST_RUN_S)
            except subprocess.TimeoutExpired:
                _end(process)
                raise DemoError(f"{command[3]} has not ended after {LONGEST_RUN_S:.0f} s") from None
            except BaseException:
                _end(process)
                raise
            return process.returncode, printed, told


def _end(process: subprocess.Popen[str]) -> None:
    """Have glancing clean up behind itself; end it where it does not."""
    process.terminate()
    try:
        process.wait(CLEANING_UP_S)
    except subprocess.TimeoutExpired:
        process.kill()
