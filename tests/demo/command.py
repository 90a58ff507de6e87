"""The demo as a command: brings the sandbox up, plays, says how it ended, takes all of it down."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from tests.demo.catalogue import DemoError
from tests.demo.story import play
from tests.sandbox import Sandbox, SandboxError
from tests.sandbox.__main__ import SIGNALS, interrupted


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 only if Glance holds what it should, 1 otherwise, 130 after Ctrl-C."""
    flags = _parser().parse_args(arguments)
    for each in SIGNALS:
        signal.signal(each, interrupted)
    say(sys.stdout, "Starting an OpenStack of our own: a real Keystone and a real Glance …")
    started_s = time.monotonic()
    try:
        with Sandbox() as sandbox:
            say(sys.stdout, f"It is up after {time.monotonic() - started_s:.0f} s.")
            ending, code = perform(sandbox, sys.stdout, sabotage=flags.sabotage)
    except SandboxError as error:
        ending, code = f"FAILED: {error}", 1
    say(sys.stdout, f"Everything is taken down again, after {time.monotonic() - started_s:.0f} s.")
    say(sys.stdout, ending)
    return code


def perform(sandbox: Sandbox, out: TextIO, *, sabotage: bool = False) -> tuple[str, int]:
    """Play on a running sandbox whose project has no images; the last line and the exit code."""
    try:
        return f"OK: {play(sandbox, out, sabotage=sabotage)}", 0
    except (DemoError, SandboxError, OSError) as error:
        return f"FAILED: {'; '.join(str(error).splitlines())}", 1


def say(out: TextIO, line: str) -> None:
    """Show a line at once, also where the output is no terminal."""
    print(line, file=out, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.demo",
        description="Show glancing at work on a real Keystone and Glance, and check the outcome.",
    )
    # Shows that the last check can fail: an image is deleted behind glancing's back before it.
    parser.add_argument("--sabotage", action="store_true", help=argparse.SUPPRESS)
    return parser
