"""Owns what is read from and written to this machine's disks.

- Local sources: images and documents that the operator named by a path.
- The work directory, where images are spooled: private files called ``glancing-<run>-*``, and the
  lock that tells other runs whether this one is alive (``locks``).
- The backup directory: files appear under their names only when they are complete and flushed.
- Lists that the operator named, also from a pipe, and the sum files of ``glancing hash``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import BinaryIO
from urllib.parse import quote

from glancing.errors import ConfigError, DownloadError, ErrorKind, InterruptedRunError, StoreError
from glancing.locks import PREFIX as SPOOL_PREFIX
from glancing.locks import RunLocks
from glancing.model import MIB, LocalPath, StoredImage, Validators

PIECE_BYTES = MIB
KEPT_PREFIX = f"{SPOOL_PREFIX}kept"
PART_SUFFIX = ".part"
# Linux takes 255 bytes in a name (NAME_MAX); a backup is written under its name and ".part".
FILE_NAME_BYTES = 255 - len(PART_SUFFIX)
SPOOL_NAME_BYTES = 80

# --- local sources --------------------------------------------------------------------------------


class LocalSources:
    """Opens, probes and reads ``LocalPath`` locations; all of it raises DownloadError."""

    def __init__(self, *, stop: Event | None = None) -> None:
        self._stop = stop or Event()

    def names_in(self, location: LocalPath) -> tuple[str, ...] | None:
        """The names of all files in a folder, in order; None for what is no folder."""
        try:
            return tuple(
                sorted(entry.name for entry in os.scandir(location.path) if entry.is_file())
            )
        except NotADirectoryError:
            return None
        except OSError as exc:
            raise _unreadable(location, exc) from exc

    @contextmanager
    def open(self, location: LocalPath) -> Iterator[LocalStream]:
        """The bytes of a regular file."""
        with _open_regular(location) as file:
            yield LocalStream(location, file, self._stop)

    def probe(self, location: LocalPath) -> Validators:
        """The size; a file's time tells too little about its bytes to be a validator."""
        with _open_regular(location) as file:
            return Validators(size_bytes=os.fstat(file.fileno()).st_size)

    def read(self, location: LocalPath, max_bytes: int) -> bytes:
        """A whole document; TOO_LARGE when it is beyond ``max_bytes``."""
        with _open_regular(location) as file:
            try:
                document = file.read(max_bytes + 1)
            except OSError as exc:
                raise _unreadable(location, exc) from exc
        if len(document) > max_bytes:
            raise DownloadError(
                f"{location}: larger than {max_bytes} bytes", kind=ErrorKind.TOO_LARGE
            )
        return document


class LocalStream:
    """The bytes of a local file; one that changes its length while it is read is INCOMPLETE."""

    def __init__(self, location: LocalPath, file: BinaryIO, stop: Event) -> None:
        self._location = location
        self._file = file
        self._stop = stop
        self._closed = Event()
        self._size_bytes = os.fstat(file.fileno()).st_size

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def validators(self) -> Validators:
        """None: neither ETag nor date stand for the bytes of a local file."""
        return Validators()

    @property
    def end_is_proven(self) -> bool:
        return True

    def __iter__(self) -> Iterator[bytes]:
        read_bytes = 0
        while piece := self._read():
            read_bytes += len(piece)
            if read_bytes > self._size_bytes:
                break
            yield piece
        if read_bytes != self._size_bytes:
            raise DownloadError(
                f"{self._location}: changed its size while it was read", kind=ErrorKind.INCOMPLETE
            )

    def close(self) -> None:
        """Break off before the next piece; the file itself is closed by who opened it."""
        self._closed.set()

    def _read(self) -> bytes:
        if self._closed.is_set() or self._stop.is_set():
            raise InterruptedRunError(f"{self._location}: reading was broken off")
        try:
            return self._file.read(PIECE_BYTES)
        except OSError as exc:
            raise _unreadable(self._location, exc) from exc


def _open_regular(location: LocalPath) -> BinaryIO:
    """Open a regular file; anything else would block, never end, or have no bytes."""
    try:
        # Non-blocking, or the open of a named pipe would wait for a writer.
        descriptor = os.open(location.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise _unreadable(location, exc) from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DownloadError(f"{location}: not a regular file", kind=ErrorKind.NOT_FOUND)
    return os.fdopen(descriptor, "rb", buffering=0)


def _unreadable(location: LocalPath, exc: Exception) -> DownloadError:
    kind = ErrorKind.UNREACHABLE
    if isinstance(exc, FileNotFoundError | NotADirectoryError | ValueError):
        kind = ErrorKind.NOT_FOUND
    return DownloadError(f"{location}: {_reason(exc)}", kind=kind)


def _reason(exc: Exception) -> str:
    """The system's words without the path, which the message has already."""
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)


def read_document(path: Path, max_bytes: int) -> bytes:
    """A list that the operator named: a file, or a pipe such as ``/dev/stdin`` or ``<(…)``.

    Raises ConfigError when it is missing, unreadable or larger than ``max_bytes``.
    """
    try:
        with path.open("rb") as file:
            document = file.read(max_bytes + 1)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}: {_reason(exc)}") from exc
    if len(document) > max_bytes:
        raise ConfigError(f"{path}: larger than {max_bytes} bytes")
    return document


# --- work directory and backups -------------------------------------------------------------------


class Directories:
    """The directories that a run may write to; see ``model.Workspace``.

    ``work_dir`` defaults to the system's temporary folder. Without ``backup_dir`` nothing can be
    backed up.
    """

    def __init__(self, *, work_dir: Path | None = None, backup_dir: Path | None = None) -> None:
        self._work_dir = work_dir
        self._backup_dir = backup_dir
        self._run_id = uuid.uuid4().hex
        self._dead_runs: tuple[str, ...] = ()

    @contextmanager
    def held_by(self, run_id: str) -> Iterator[None]:
        """Mark the work directory as one where this run is at work, and clear up after dead ones.

        Where no file can be made there is no mark, and other runs judge this one by its deadlines.
        """
        self._run_id = run_id
        directory = self._spool_directory()
        if directory is None:
            yield
            return
        locks = RunLocks(directory)
        with suppress(OSError):
            locks.take(run_id)
            self._dead_runs = tuple(locks.dead_runs())
            for dead in self._dead_runs:
                locks.clear_up(dead)
        try:
            yield
        finally:
            locks.release()

    def is_alive(self, run_id: str) -> bool | None:
        """Whether another run is at work here; None when this directory cannot tell."""
        directory = self._spool_directory()
        return RunLocks(directory).is_alive(run_id) if directory else None

    def forget_dead_runs(self) -> None:
        """Remove the marks of dead runs, once nothing of them is left in Glance either.

        Only of those that were dead when this run began: what others leave, it has not looked for.
        """
        directory = self._spool_directory()
        if directory is not None:
            locks = RunLocks(directory)
            for run_id in self._dead_runs:
                locks.forget(run_id)

    def check(self, *, spool_needed: bool = False) -> None:
        """Raise ConfigError unless every directory that was asked for can be written to."""
        for path, what in ((self._work_dir, "work"), (self._backup_dir, "backup")):
            if path is None:
                continue
            if not path.is_dir():
                raise ConfigError(f"{path}: the {what} directory does not exist")
            if not os.access(path, os.W_OK | os.X_OK):
                raise ConfigError(f"{path}: the {what} directory cannot be written to")
        if spool_needed and not self.can_spool:
            raise ConfigError(
                "no temporary folder can be written to, and --spool needs one",
                hint="name a directory with --work-dir",
            )

    @property
    def can_spool(self) -> bool:
        """Whether there is a directory for spools at all."""
        return self._spool_directory() is not None

    def _spool_directory(self) -> Path | None:
        if self._work_dir is not None:
            return self._work_dir
        try:
            return Path(tempfile.gettempdir())
        except FileNotFoundError:  # a read-only root without any temporary folder
            return None

    def spool(self, name: str, pieces: Iterable[bytes], size_bytes: int | None) -> Path:
        """Write pieces to a new file that only this user can read; removed again on failure.

        Raises StoreError, NO_SPACE when the disk is or would become full. What the pieces raise
        passes through.
        """
        directory = self._spool_directory()
        if directory is None:
            raise StoreError("there is no directory to spool to", kind=ErrorKind.NO_SPACE)
        _require_space(directory, size_bytes)
        suffix = "-" + _encoded(name, SPOOL_NAME_BYTES)
        with _disk_errors(directory):
            # mkstemp creates exclusively and with mode 0600.
            prefix = f"{SPOOL_PREFIX}{self._run_id}-"
            descriptor, path = tempfile.mkstemp(suffix, prefix, directory)
        _write_or_remove(descriptor, Path(path), pieces)
        return Path(path)

    def discard(self, path: Path) -> None:
        """Remove a spooled file; one that is gone already is no error."""
        with _disk_errors(path):
            path.unlink(missing_ok=True)

    def keep(self, path: Path) -> Path:
        """Give a spooled file a name under which it outlives its run, and return its new path."""
        kept = path.with_name(path.name.replace(f"{SPOOL_PREFIX}{self._run_id}", KEPT_PREFIX, 1))
        with _disk_errors(path):
            path.rename(kept)
        return kept

    def has_room(self, size_bytes: int) -> bool:
        """Whether a spool of this size fits into the work directory."""
        directory = self._spool_directory()
        if directory is None:
            return False
        try:
            _require_space(directory, size_bytes)
        except StoreError:
            return False
        return True

    def back_up(self, image: StoredImage, pieces: Iterable[bytes]) -> Path:
        """Write a copy to the backup directory; its name appears when all is safely on disk.

        An earlier file of that name is replaced in one step. Raises StoreError; what the pieces
        raise passes through, and then nothing is left behind.
        """
        if self._backup_dir is None:
            raise StoreError("no backup directory was given", kind=ErrorKind.BACKUP_FAILED)
        file_name = backup_file_name(image.name, image.id, image.disk_format or "raw")
        final = self._backup_dir / file_name
        part = self._backup_dir / (file_name + PART_SUFFIX)
        with _disk_errors(part):
            part.unlink(missing_ok=True)  # left by a run that was killed
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        _write_or_remove(descriptor, part, pieces)
        with _disk_errors(final):
            _rename(part, final)
        return final


def backup_file_name(name: str, image_id: str, disk_format: str) -> str:
    """``<percent-encoded NAME>_<image id>.<format>``, short enough for any Linux file system.

    Everything but the unreserved characters of RFC 3986, section 2.3, is encoded. A name too long
    is cut and marked with a digest of the whole, so that it stays the same from run to run.
    """
    tail = f"_{quote(image_id, safe='')}.{quote(disk_format, safe='')}"
    return _encoded(name, FILE_NAME_BYTES - len(tail)) + tail


def _encoded(name: str, most_bytes: int) -> str:
    encoded = quote(name, safe="", errors="surrogatepass")
    if len(encoded) <= most_bytes:
        return encoded
    mark = "~" + hashlib.sha256(encoded.encode()).hexdigest()[:16]
    kept = ""
    for character in name:  # one by one, so that no half of a character is left
        step = quote(character, safe="", errors="surrogatepass")
        if len(kept) + len(step) + len(mark) > most_bytes:
            break
        kept += step
    return kept + mark


def _require_space(directory: Path, size_bytes: int | None) -> None:
    if size_bytes is None:
        return
    with _disk_errors(directory):
        file_system = os.statvfs(directory)
    free_bytes = file_system.f_bavail * file_system.f_frsize
    if free_bytes < size_bytes:
        raise _no_space(directory, f"{size_bytes} bytes needed, {free_bytes} free")


def _write_or_remove(descriptor: int, path: Path, pieces: Iterable[bytes]) -> None:
    """Write all pieces and flush them to disk, or leave no file."""
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for piece in pieces:
                with _disk_errors(path):
                    _write_all(file, piece)
            with _disk_errors(path):
                os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _write_all(file: BinaryIO, piece: bytes) -> None:
    """An unbuffered write may take less than it was given, at the edge of a full disk."""
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


def _rename(part: Path, final: Path) -> None:
    """Give a flushed file its name, and make the name itself survive a power failure."""
    try:
        part.replace(final)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    directory = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system says of a disk into StoreError."""
    try:
        yield
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _no_space(path, _reason(exc)) from exc
        raise StoreError(f"{path}: {_reason(exc)}") from exc


def _no_space(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"{path}: {reason}",
        kind=ErrorKind.NO_SPACE,
        hint="free some space, or name a larger disk with --work-dir or --backup-dir",
    )


# --- sum files ------------------------------------------------------------------------------------


def write_sums(
    directory: Path, sums: Mapping[str, Sequence[str]], *, overwrite: bool
) -> tuple[Path, ...]:
    """Write sum files (file name to whole lines) for ``glancing hash``, each in one step.

    Raises ConfigError before anything is written when one exists already and ``overwrite`` is not
    given, and when a file cannot be written.
    """
    paths = {directory / name: lines for name, lines in sums.items()}
    existing = [str(path) for path in paths if os.path.lexists(path)]
    if existing and not overwrite:
        raise ConfigError(f"{', '.join(existing)}: exists already")
    for path, lines in paths.items():
        _write_text(path, "".join(lines))
    return tuple(paths)


def _write_text(path: Path, text: str) -> None:
    try:
        descriptor, part = tempfile.mkstemp(PART_SUFFIX, path.name, path.parent)
        _write_or_remove(descriptor, Path(part), [os.fsencode(text)])
        Path(part).chmod(0o644)  # sums are there to be read by others
        _rename(Path(part), path)
    except (OSError, StoreError) as exc:
        raise ConfigError(f"{path}: {_reason(exc)}") from exc
