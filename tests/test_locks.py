"""Fault 52: who is alive in a work directory, with locks held by real processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glancing.files import Directories
from glancing.locks import RunLocks

HOLD = """
import sys
from pathlib import Path
from glancing.files import Directories
directories = Directories(work_dir=Path(sys.argv[1]))
with directories.held_by(sys.argv[2]):
    directories.spool("image", [b"bytes"], None)
    directories.keep(directories.spool("kept", [b"bytes"], None))
    print("held", flush=True)
    sys.stdin.read()
"""


def new_run() -> str:
    return uuid.uuid4().hex


@contextmanager
def another_run(folder: Path, run_id: str) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-c", HOLD, str(folder), run_id]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_is_alive_until_it_ends(tmp_path: Path) -> None:
    run_id, locks = new_run(), RunLocks(tmp_path)
    assert locks.is_alive(run_id) is None
    with another_run(tmp_path, run_id) as process:
        assert locks.is_alive(run_id) is True
        process.communicate()
    assert locks.is_alive(run_id) is None


def test_a_killed_run_is_known_to_be_dead_and_cleared_up_after(tmp_path: Path) -> None:
    """Fault 51: what it has spooled goes, what was kept and what is not ours stays."""
    run_id, other = new_run(), tmp_path / "glancing-notes.txt"
    other.touch()
    with another_run(tmp_path, run_id) as process:
        process.kill()
        process.wait()
        assert RunLocks(tmp_path).is_alive(run_id) is False
        assert len(files_of(tmp_path)) == 4
    directories = Directories(work_dir=tmp_path)
    with directories.held_by(new_run()):
        (kept,) = tmp_path.glob("glancing-kept-*")
        own, dead = tmp_path.glob("*.lock")
        assert files_of(tmp_path) == {kept.name, own.name, dead.name, other.name}
        assert directories.is_alive(run_id) is False
        directories.forget_dead_runs()
    assert files_of(tmp_path) == {kept.name, other.name}


def test_a_living_run_is_left_alone(tmp_path: Path) -> None:
    run_id = new_run()
    with another_run(tmp_path, run_id):
        before = files_of(tmp_path)
        with Directories(work_dir=tmp_path).held_by(new_run()):
            assert files_of(tmp_path) > before
        assert files_of(tmp_path) == before


def test_only_looking_is_not_taken_for_holding(tmp_path: Path) -> None:
    """Fault 52: two runs that look at a dead one at the same time both see that it is dead."""
    run_id = new_run()
    with (tmp_path / f"glancing-{run_id}.lock").open("w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        assert RunLocks(tmp_path).is_alive(run_id) is False


def test_what_has_come_alive_meanwhile_is_not_cleared_up(tmp_path: Path) -> None:
    """A run that is just beginning has its lock file for an instant before it holds it."""
    run_id, locks = new_run(), RunLocks(tmp_path)
    with another_run(tmp_path, run_id):
        before = files_of(tmp_path)
        locks.clear_up(run_id)
        locks.forget(run_id)
        assert files_of(tmp_path) == before


def test_a_run_that_died_later_is_left_to_the_next_one(tmp_path: Path) -> None:
    """What it has left in Glance may be younger than our look at it."""
    run_id, directories = new_run(), Directories(work_dir=tmp_path)
    with directories.held_by(new_run()):
        with another_run(tmp_path, run_id) as process:
            process.kill()
            process.wait()
        directories.forget_dead_runs()
    assert RunLocks(tmp_path).is_alive(run_id) is False
    with directories.held_by(new_run()):
        directories.forget_dead_runs()
    assert RunLocks(tmp_path).is_alive(run_id) is None


def test_what_is_not_our_own_spool_is_not_removed(tmp_path: Path) -> None:
    run_id = new_run()
    (tmp_path / f"glancing-{run_id}.lock").touch()
    (tmp_path / "precious").touch()
    (tmp_path / f"glancing-{run_id}-link").symlink_to(tmp_path / "precious")
    (tmp_path / f"glancing-{run_id}-folder").mkdir()
    before = files_of(tmp_path)
    RunLocks(tmp_path).clear_up(run_id)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("what", ["a link", "a folder", "no run", "a way out"])
def test_what_is_no_lock_is_not_believed(what: str, tmp_path: Path) -> None:
    """A shared temporary folder may have anything under such a name."""
    run_id = new_run()
    place = tmp_path / f"glancing-{run_id}.lock"
    match what:
        case "a link":
            (tmp_path / "elsewhere").touch()
            place.symlink_to(tmp_path / "elsewhere")
        case "a folder":
            place.mkdir()
        case "no run":
            run_id = "kept"
            (tmp_path / "glancing-kept.lock").touch()
        case "a way out":
            run_id = "../" + run_id
    assert RunLocks(tmp_path).is_alive(run_id) is None
    with Directories(work_dir=tmp_path).held_by(new_run()):
        pass
    assert place.is_symlink() == (what == "a link")


def test_a_lock_of_another_user_is_not_believed(tmp_path: Path) -> None:
    run_id = new_run()
    place = tmp_path / f"glancing-{run_id}.lock"
    place.touch()
    try:
        os.chown(place, 12345, -1)
    except PermissionError:
        pytest.skip("only root can give files away")
    assert RunLocks(tmp_path).is_alive(run_id) is None


def test_no_lock_where_nothing_can_be_written(tmp_path: Path) -> None:
    with Directories(work_dir=tmp_path / "gone").held_by(new_run()):
        assert not (tmp_path / "gone").exists()
