"""What a run may take, and how it ends when it is told to: memory, disk, signals."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest

from tests import images
from tests.program import Program, wait_until
from tests.servers import Action, BadServer, Request, head
from tests.shelf import Shelf

MIB = 1024 * 1024
GIB = 1024 * MIB
IMAGE = images.raw()

# --- signals --------------------------------------------------------------------------------------

SENT_BYTES = {"in the middle of the upload": 12 * MIB, "before the upload": MIB}


@pytest.mark.parametrize("phase", SENT_BYTES)
@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
def test_a_signal_ends_the_run_in_good_order(
    glancing: Program, shelf: Shelf, phase: str, number: int, exit_code: int
) -> None:
    """Fault 50: what is done stays done, what was begun is taken away, and the result says so."""
    stalled = threading.Event()

    def answer(request: Request) -> Iterable[Action]:
        if request.path == "/stalling.raw":
            data = images.noise(SENT_BYTES[phase])
            return [head(200, content_length=64 * MIB), data, stalled]
        return [head(200, content_length=len(IMAGE)), IMAGE]

    with BadServer(answer) as server:
        paths = ("/done.raw", "/stalling.raw", "/waiting.raw")
        (glancing.cwd / "vmlist").write_text("\n".join(map(server.url, paths)))
        with glancing.start("sync", "-l", "vmlist", "--jobs", "1") as running:
            wait_until(lambda: len(server.requests) == 2, "the second image is asked for")
            if phase == "in the middle of the upload":
                wait_until(lambda: is_saving(shelf), "Glance is taking the second image")
            began_s = time.monotonic()
            running.process.send_signal(number)
            run = running.finish()
    assert time.monotonic() - began_s < 10
    assert run.exit_code == exit_code and run.named("run.interrupted")
    assert run.outcomes == {"done": "uploaded", "stalling": "failed", "waiting": "failed"}
    assert {row["error"]["kind"] for row in run.rows[1:]} == {"interrupted"}
    assert shelf.names() == ["done"] and shelf.data("done") == IMAGE
    assert [request.path for request in server.requests] == list(paths[:2])


def test_a_signal_that_another_thread_gets_ends_the_run_as_well(
    glancing: Program, shelf: Shelf
) -> None:
    """Fault 50: as does one that comes just before the main thread begins to wait."""
    with (
        BadServer([head(200, content_length=100), threading.Event()]) as server,
        glancing.start("import", server.url("/disk.raw")) as running,
    ):
        wait_until(lambda: bool(server.requests), "the image is asked for")
        process = running.process.pid
        threads = {int(task.name) for task in Path(f"/proc/{process}/task").iterdir()}
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.tgkill(process, max(threads - {process}), signal.SIGTERM) == 0
        run = running.finish()
    assert run.exit_code == 143 and shelf.all() == []


def is_saving(shelf: Shelf) -> bool:
    return any(image["status"] == "saving" for image in shelf.all())


def test_a_signal_during_the_reading_of_lists(glancing: Program, shelf: Shelf) -> None:
    with (
        BadServer([head(200, content_length=100), threading.Event()]) as server,
        glancing.start("sync", "-l", server.url("/vmlist")) as running,
    ):
        wait_until(lambda: bool(server.requests), "the list is asked for")
        running.process.send_signal(signal.SIGTERM)
        run = running.finish()
    assert run.exit_code == 143 and run.rows == [] and shelf.all() == []
    assert run.result["error"]["kind"] == "interrupted" and run.seconds < 30


# --- memory and disk ------------------------------------------------------------------------------

BLOCK = images.noise(MIB)
FIRST = images.raw(MIB)
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(sys.argv[1], "w").write(str(peak * 1024))
sys.exit(code)
"""


def gibibyte() -> Iterator[bytes]:
    return chain([FIRST], repeat(BLOCK, GIB // MIB - 1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB where this user can have one, else an ordinary folder."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.geteuid() == 0 and mount(folder)
    yield folder
    if mounted:
        subprocess.run(["umount", folder], check=True)


def mount(folder: Path) -> bool:
    """Root in a container may not be allowed to."""
    words = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.mark.timeout(600)
def test_a_large_image_needs_little_memory_and_no_disk(
    glancing: Program, shelf: Shelf, small_disk: Path
) -> None:
    """Faults P4, P5: 1 GiB with 16 MiB of disk and at most 128 MiB of memory."""
    digest = hashlib.sha256()
    for block in gibibyte():
        digest.update(block)
    peak_file = glancing.cwd / "peak"
    measured = (sys.executable, "-c", MEASURE, str(peak_file))
    with BadServer(lambda _: chain([head(200, content_length=GIB)], gibibyte())) as server:
        words = ("import", server.url("/large.raw"), "-s", digest.hexdigest())
        with glancing.start(
            *words,
            "--work-dir",
            small_disk,
            wrapper=measured,
            variables={"TMPDIR": str(small_disk)},
        ) as running:
            run = running.finish(timeout_s=500)
    assert run.exit_code == 0, run.output
    image = shelf.named("large")
    assert image["size"] == GIB and image["os_hash_value"] == run.row["digests"]["sha512"]
    assert int(peak_file.read_text()) <= 128 * MIB
    assert list(small_disk.iterdir()) == []
