"""``python -m glancing`` and the command ``glancing``."""

from __future__ import annotations

import os
import signal
import sys

# As process 1 of a container nothing reaches us that we do not handle: the kernel drops it. Until
# the rest is loaded and handles them, these wait.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})

from glancing.cli import run  # noqa: E402


def main() -> None:
    """Run the command line and exit with its code."""
    _fill_closed_streams()
    code = run(sys.argv[1:])
    _let_go_of_streams()
    sys.exit(code)


def _fill_closed_streams() -> None:
    """Put the null device where a standard stream is closed.

    Otherwise the next socket or file would get its number, and the result or the events with it.
    """
    for name in ("stdin", "stdout", "stderr"):  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115, PTH123 - for good


def _let_go_of_streams() -> None:
    """Flush what the readers still take; Python would end with 120 when one takes nothing."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
