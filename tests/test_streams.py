"""A process whose surroundings are broken: closed streams, a full disk, a folder that is gone."""

from __future__ import annotations

import json
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


def test_a_working_directory_that_is_gone_is_told(image: Path) -> None:
    """Promise P9: whatever happens, there is a result."""
    done = run(image.parent, f"mkdir gone && cd gone && rmdir ../gone && {COMMAND} {image}")
    result = json.loads(done.stdout)
    assert done.returncode == result["exit_code"] == 2
    assert "working directory" in result["error"]["message"]


@pytest.mark.parametrize("name", ["x" * 256, " ", "two\nlines"])
def test_a_name_that_glance_cannot_take_is_refused_before_the_download(
    image: Path, name: str
) -> None:
    """Fault 38."""
    done = run(image.parent, f"{COMMAND} {image} -n '{name}'")
    assert done.returncode == 2 and json.loads(done.stdout)["error"]["kind"] == "usage"
