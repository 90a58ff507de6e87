"""``python3 -m tests.environment``: make or renew the project's environment, and nothing else."""

from __future__ import annotations

from tests.bootstrap import ensure_environment

if __name__ == "__main__":
    ensure_environment()
