"""A process whose surroundings are broken: closed streams, a full disk, a folder that is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import images
from tests.bootstrap import ROOT

COMMAND = f"{sys.executable} -m glancing import -d"


def run(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """A shell line; no cloud is configured, so that ``-d`` consults none."""
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["sh", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(images.raw())
    return path


@pytest.mark.parametrize("lost", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_a_stream_that_takes_nothing_does_not_change_the_exit_code(image: Path, lost: str) -> None:
    """Fault 58."""
    assert run(image.parent, f"{COMMAND} {image} {lost}").returncode == 0
    assert run(image.parent, f"{COMMAND} missing.img {lost}").returncode == 1
