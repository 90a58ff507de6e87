"""``python3 -m tests``: the whole test suite, on a machine that has nothing but Python."""

from __future__ import annotations

import os
import sys

from tests.bootstrap import PYTHON, ROOT, ensure_environment

if __name__ == "__main__":
    ensure_environment()
    os.chdir(ROOT)
    # Two at a time: what needs the cloud on one side, all else on the other (see conftest).
    two = ["-n", "2", "--dist", "loadgroup"] if len(sys.argv) == 1 else []
    os.execv(PYTHON, [str(PYTHON), "-m", "pytest", *two, *sys.argv[1:]])
