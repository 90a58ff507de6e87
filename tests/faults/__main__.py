"""``python3 -m tests.faults``: campaigns that take longer than a test suite may."""

from __future__ import annotations

import argparse
import sys

from tests.bootstrap import ensure_environment

if __name__ == "__main__":
    ensure_environment()
    from tests.conftest import strip_environment
    from tests.faults.campaign import end_runs

    parser = argparse.ArgumentParser(prog="python3 -m tests.faults")
    parser.add_argument("campaign", choices=["kills"], help="end runs at random moments")
    parser.add_argument("--count", type=int, default=500, help="how many; 500 by default")
    parser.add_argument("--minutes", type=float, default=60.0, help="at most so long")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    strip_environment()
    figures = end_runs(asked.count, asked.minutes, asked.seed)
    sys.exit(bool(figures.wrong or figures.gaps))
