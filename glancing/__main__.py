"""``python -m glancing`` and the command ``glancing``."""

from __future__ import annotations

import signal
import sys

# As process 1 of a container nothing reaches us that we do not handle: the kernel drops it. Until
# the rest is loaded and handles them, these wait.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})

from glancing.cli import run  # noqa: E402


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
