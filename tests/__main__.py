"""``python3 -m tests``: the whole test suite, on a machine that has nothing but Python."""

from __future__ import annotations

import os
import sys

from tests.bootstrap import PYTHON, ROOT, ensure_environment

if __name__ == "__main__":
    ensure_environment()
    os.chdir(ROOT)
    os.execv(PYTHON, [str(PYTHON), "-m", "pytest", *sys.argv[1:]])
