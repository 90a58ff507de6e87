"""The demo is what a newcomer runs first; it has to work, and its check has to be able to fail."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo.command import perform
from tests.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent

MISLEADING = {
    "OS_AUTH_URL": "http://cloud.invalid:5000/v3",
    "OS_CLOUD": "production",
    "OS_PASSWORD": "hands-off",
    "GLANCING_VMLIST": "/nowhere/vmlist",
    "GLANCING_DRY_RUN": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "http://127.0.0.1:9",
}


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("sandbox")  # its packages are installed before the proxies are broken
def test_the_demo_ends_well_whatever_the_shell_has_set_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, **MISLEADING, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    shown = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, shown
    assert done.stdout.splitlines()[-1].startswith("OK: "), shown
    assert "wrong-digest" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_demo_fails_when_an_image_was_deleted_behind_its_back(clean_cloud: Sandbox) -> None:
    out = io.StringIO()
    ending, code = perform(clean_cloud, out, sabotage=True)
    assert code != 0
    assert ending.startswith("FAILED: one image Example-Debian-13 should be there"), out.getvalue()
