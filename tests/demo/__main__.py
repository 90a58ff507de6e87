"""``python3 -m tests.demo``: the demo, on a machine that has nothing but Python."""

from __future__ import annotations

import sys

from tests.bootstrap import ensure_environment

if __name__ == "__main__":
    ensure_environment()
    # Only now is there an environment that has what the demo imports.
    from tests.demo.command import main

    sys.exit(main(sys.argv[1:]))
