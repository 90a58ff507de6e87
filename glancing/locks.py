"""Tells whether a run that works in a directory is still alive.

Each run holds an ``flock`` on a file of its own, ``glancing-<run>.lock``, until it ends; the system
frees it however that comes. So a file whose lock can be taken was left by a run that is dead. Only
files of our own user are believed: others may write to a shared temporary folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "glancing-"
_SUFFIX = ".lock"
_RUN = re.compile(r"[0-9a-f]{32}")
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class RunLocks:
    """The locks of all runs that work in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own: tuple[Path, int] | None = None

    def take(self, run_id: str) -> None:
        """Hold the lock of a run until ``release``; raises OSError where no file can be made."""
        path = self._path(run_id)
        while True:
            descriptor = os.open(path, _FLAGS | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Before it was locked, another run may have taken it for a dead one's and removed it.
            if _is_same(path, descriptor):
                self._own = path, descriptor
                return
            os.close(descriptor)

    def release(self) -> None:
        """Give the own lock back and leave no file. Safe more than once."""
        own, self._own = self._own, None
        if own is not None:
            path, descriptor = own
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def is_alive(self, run_id: str) -> bool | None:
        """Whether a run still holds its lock; None when it has none here that could be believed."""
        if not _RUN.fullmatch(run_id):
            return None
        with _opened(self._path(run_id)) as descriptor:
            # Shared, so that two who look at once do not take each other for the holder.
            return None if descriptor is None else not _is_free(descriptor, fcntl.LOCK_SH)

    def dead_runs(self) -> list[str]:
        """The runs that left a lock here and are dead."""
        return [run_id for run_id in self._runs() if self.is_alive(run_id) is False]

    def clear_up(self, run_id: str) -> None:
        """Remove the spooled files of a dead run; those that were kept have other names."""
        with self._held(run_id) as held:
            for path in self._directory.glob(f"{PREFIX}{run_id}-*") if held else ():
                _remove_own(path)

    def forget(self, run_id: str) -> None:
        """Remove the lock file of a dead run: nobody needs to know of it any more."""
        with self._held(run_id) as held:
            if held:
                _remove_own(self._path(run_id))

    @contextmanager
    def _held(self, run_id: str) -> Iterator[bool]:
        """Hold a dead run's lock, so that a run that is only beginning is never taken for it."""
        path = self._path(run_id)
        with _opened(path) as descriptor:
            yield bool(
                descriptor is not None
                and _is_free(descriptor, fcntl.LOCK_EX)
                and _is_same(path, descriptor)
            )

    def _runs(self) -> Iterator[str]:
        for path in self._directory.glob(f"{PREFIX}*{_SUFFIX}"):
            run_id = path.name.removeprefix(PREFIX).removesuffix(_SUFFIX)
            if _RUN.fullmatch(run_id):
                yield run_id

    def _path(self, run_id: str) -> Path:
        return self._directory / f"{PREFIX}{run_id}{_SUFFIX}"


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A lock file of our own user, or None."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        yield None
        return
    try:
        yield descriptor if _is_own_file(os.fstat(descriptor)) else None
    finally:
        os.close(descriptor)


def _is_free(descriptor: int, kind: int) -> bool:
    """Take a lock if nobody is in the way; it goes when the file is closed."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_own_file(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _remove_own(path: Path) -> None:
    """Remove a regular file of our own user; anything else under that name is not ours to remove.

    One that cannot be removed waits for a later run.
    """
    with suppress(OSError):
        if _is_own_file(path.stat(follow_symlinks=False)):
            path.unlink()
