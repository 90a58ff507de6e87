from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from glancing.errors import ConfigError, DownloadError, ErrorKind, InterruptedRunError, StoreError
from glancing.files import (
    Directories,
    LocalSources,
    _write_or_remove,
    backup_file_name,
    read_document,
    write_sums,
)
from glancing.model import LocalPath, StoredImage, Validators

DATA = bytes(range(256)) * 9000  # more than two pieces


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.raw"
    path.write_bytes(DATA)
    return path


def test_a_local_file_is_read_whole(image: Path) -> None:
    with LocalSources().open(LocalPath(image)) as stream:
        assert stream.size_bytes == len(DATA) and stream.end_is_proven
        assert stream.validators == Validators()
        assert b"".join(stream) == DATA


def test_a_local_file_is_probed_for_its_size(image: Path) -> None:
    assert LocalSources().probe(LocalPath(image)) == Validators(size_bytes=len(DATA))


def test_a_document_is_capped(image: Path) -> None:
    sources = LocalSources()
    assert sources.read(LocalPath(image), len(DATA)) == DATA
    with pytest.raises(DownloadError) as caught:
        sources.read(LocalPath(image), len(DATA) - 1)
    assert caught.value.kind is ErrorKind.TOO_LARGE


@pytest.mark.parametrize("change", [-1, 1, -len(DATA)])
def test_a_file_that_changes_its_size_while_read_is_incomplete(image: Path, change: int) -> None:
    with LocalSources().open(LocalPath(image)) as stream:
        pieces = iter(stream)
        received = [next(pieces)]
        os.truncate(image, len(DATA) + change)
        with pytest.raises(DownloadError, match="changed its size") as caught:
            received.extend(pieces)
    assert caught.value.kind is ErrorKind.INCOMPLETE
    assert sum(map(len, received)) <= len(DATA)  # nothing that was added is handed out


def test_what_is_no_regular_file_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DownloadError, match="not a regular file"):
            LocalSources().probe(LocalPath(path))


@pytest.mark.parametrize("name", ["missing", "image.raw/below", "nul\0"])
def test_a_missing_file_is_named(image: Path, name: str) -> None:
    with pytest.raises(DownloadError) as caught:
        LocalSources().probe(LocalPath(image.parent / name))
    assert caught.value.kind is ErrorKind.NOT_FOUND and name in caught.value.message
    assert not caught.value.transient


def test_reading_ends_when_closed_or_stopped(image: Path) -> None:
    stop = threading.Event()
    with LocalSources(stop=stop).open(LocalPath(image)) as stream:
        pieces = iter(stream)
        next(pieces)
        stop.set()
        with pytest.raises(InterruptedRunError):
            next(pieces)
    with LocalSources().open(LocalPath(image)) as stream:
        pieces = iter(stream)
        next(pieces)
        stream.close()
        with pytest.raises(InterruptedRunError):
            next(pieces)


def test_a_list_may_come_from_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"one\ntwo\n")
    os.close(writer)
    assert read_document(Path(f"/dev/fd/{reader}"), 100) == b"one\ntwo\n"
    os.close(reader)


def test_a_list_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"12345")
    for path, cap in ((tmp_path / "missing", 9), (tmp_path, 9), (tmp_path / "list", 4)):
        with pytest.raises(ConfigError, match=str(path)):
            read_document(path, cap)


def test_a_spool_file_is_private_and_whole(tmp_path: Path) -> None:
    directories = Directories(work_dir=tmp_path)
    path = directories.spool("../Ubuntu 24", iter([b"ab", b"c"]), 3)
    assert path.read_bytes() == b"abc" and path.parent == tmp_path
    assert path.name.startswith("glancing-") and path.name.endswith("-..%2FUbuntu%2024")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    directories.discard(path)
    directories.discard(path)
    assert not list(tmp_path.iterdir())


def stored(name: str) -> StoredImage:
    return StoredImage(id="1", name=name, status="active", disk_format="raw")


def failing(error: BaseException) -> Iterator[bytes]:
    yield b"some"
    raise error


@pytest.mark.parametrize("error", [DownloadError("cut"), KeyboardInterrupt(), OSError("of source")])
def test_nothing_is_left_when_the_pieces_fail(tmp_path: Path, error: BaseException) -> None:
    directories = Directories(work_dir=tmp_path, backup_dir=tmp_path)
    with pytest.raises(type(error)):
        directories.spool("x", failing(error), None)
    with pytest.raises(type(error)):
        directories.back_up(stored("x"), failing(error))
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_found_before_writing(tmp_path: Path) -> None:
    """Fault 53."""
    with pytest.raises(StoreError, match="free") as caught:
        Directories(work_dir=tmp_path).spool("x", failing(AssertionError()), 2**62)
    assert caught.value.kind is ErrorKind.NO_SPACE and caught.value.hint


def test_a_disk_that_becomes_full_leaves_nothing(tmp_path: Path) -> None:
    """Fault 53: the kernel's own full device says what a full disk says."""
    part = tmp_path / "part"
    part.touch()
    with pytest.raises(StoreError) as caught:
        _write_or_remove(os.open("/dev/full", os.O_WRONLY), part, [b"x"])
    assert caught.value.kind is ErrorKind.NO_SPACE and not part.exists()


def test_a_backup_replaces_an_earlier_one_in_one_step(tmp_path: Path) -> None:
    directories = Directories(backup_dir=tmp_path)
    (tmp_path / "a_1.raw.part").write_bytes(b"of a run that was killed")
    (tmp_path / "a_1.raw").write_bytes(b"earlier")
    with pytest.raises(DownloadError):
        directories.back_up(stored("a"), failing(DownloadError("cut")))
    assert (tmp_path / "a_1.raw").read_bytes() == b"earlier"
    path = directories.back_up(stored("a"), [b"la", b"ter"])
    assert path.read_bytes() == b"later" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd"])
def test_a_backup_stays_in_its_directory(tmp_path: Path, name: str) -> None:
    """Fault 38: a hostile name is never used as a path."""
    path = Directories(backup_dir=tmp_path).back_up(stored(name), [b"x"])
    assert list(tmp_path.iterdir()) == [path]


def test_directories_that_were_asked_for_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    Directories(work_dir=tmp_path, backup_dir=tmp_path).check()
    Directories().check()
    for wrong in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(ConfigError, match=str(wrong)):
            Directories(backup_dir=wrong).check()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ubuntu", "ubuntu_id.qcow2"),
        ("a/b c%_é", "a%2Fb%20c%25_%C3%A9_id.qcow2"),
        ("..", ".._id.qcow2"),
    ],
)
def test_backup_names_are_percent_encoded(name: str, expected: str) -> None:
    assert backup_file_name(name, "id", "qcow2") == expected
    assert unquote(expected) == f"{name}_id.qcow2"


def test_long_backup_names_are_cut_alike_each_time() -> None:
    image_id = "b3a0c4a4-9fd8-4c1c-8f5b-0c6c1b0fd5a1"
    names = [backup_file_name("é" * 254 + end, image_id, "qcow2") for end in "ab"]
    assert names[0] != names[1]
    for name in names:
        assert len(os.fsencode(name + ".part")) <= 255 and name.endswith(f"_{image_id}.qcow2")
        unquote(name, errors="strict")
    assert names[0] == backup_file_name("é" * 254 + "a", image_id, "qcow2")


def test_sum_files_are_written_all_or_none(tmp_path: Path) -> None:
    sums = {"MD5SUMS": ["aa  x\n"], "SHA256SUMS": ["bb  x\n", "cc  y\n"]}
    (tmp_path / "SHA256SUMS").write_text("precious")
    with pytest.raises(ConfigError, match="SHA256SUMS: exists"):
        write_sums(tmp_path, sums, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["SHA256SUMS"]
    paths = write_sums(tmp_path, sums, overwrite=True)
    assert paths[1].read_text() == "bb  x\ncc  y\n" and len(list(tmp_path.iterdir())) == 2


def test_sums_that_cannot_be_written_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MD5SUMS"):
        write_sums(tmp_path / "missing", {"MD5SUMS": []}, overwrite=False)
