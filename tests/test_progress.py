"""What people see on a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from glancing.progress import Bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_shows_an_image_and_goes_with_it() -> None:
    terminal = Terminal()
    with Bars(terminal) as bars:
        bars.advanced("debian\x1b[31m", 512 * 1024, 1024 * 1024)
        bars.stream.write("an event\n")
        bars._progress.refresh()
        shown = terminal.getvalue()
        assert "debian?[31m" in shown and "an event" in shown
        assert "0.5/1.0 MiB" in shown
        bars.ended("debian\x1b[31m")
        bars.ended("never begun")


def test_a_run_on_a_terminal_is_for_people(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(os.urandom(100_000))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "glancing", "import", "-d", str(image)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, check=False)
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert done.returncode == 0 and json.loads(done.stdout)["exit_code"] == 0
    assert "glance.not_consulted" in shown and '{"event"' not in shown


def test_verbose_tells_what_was_decided(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(os.urandom(100_000))
    command = [sys.executable, "-m", "glancing", "import", "-d", "disk.img"]
    for words, told in (([], 0), (["-v"], 1)):
        done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, check=True)
        events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
        assert events.count("image.decided") == told
