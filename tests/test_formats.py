"""What an image is by its bytes, what it may be registered as, and what is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glancing.errors import ErrorKind, UnsafeImageError, VerificationError
from glancing.formats import Inspector
from tests import images

REAL = {
    "raw": images.raw(),
    "qcow2": images.qcow2(),
    "vmdk": images.vmdk(),
    "vdi": images.vdi(),
    "vhd": images.vhd(),
    "vhdx": images.vhdx(),
    "iso": images.iso(),
    "disk": images.disk(),
}
CALLED = {**{name: name for name in REAL}, "disk": "raw"}


def inspect(
    data: bytes, declared: str | None = None, word: str | None = None, step: int = 256 * 1024
) -> tuple[str, int]:
    inspector = Inspector(declared, word)
    for begin in range(0, len(data), step):
        inspector.feed(data[begin : begin + step])
    return inspector.finish()


@pytest.mark.parametrize("real", REAL)
@pytest.mark.parametrize("declared", ["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "ami"])
def test_a_declared_format_must_be_that_of_the_bytes(declared: str, real: str) -> None:
    """Fault 27."""
    bare = declared == "ami" and CALLED[real] == "raw"
    if declared == CALLED[real] or bare:
        assert inspect(REAL[real], declared)[0] == declared
        return
    with pytest.raises(UnsafeImageError) as caught:
        inspect(REAL[real], declared)
    assert caught.value.kind is ErrorKind.FORMAT_MISMATCH
    assert declared in caught.value.message and CALLED[real] in caught.value.message
    assert f"--disk-format {CALLED[real]}" in (caught.value.hint or "")
    assert "--disk-format detected" in (caught.value.hint or "")


@pytest.mark.parametrize("real", REAL)
@pytest.mark.parametrize("declared", [None, "raw", "qcow2"])
def test_the_operator_may_take_what_is_detected(declared: str | None, real: str) -> None:
    assert inspect(REAL[real], declared, "detected")[0] == CALLED[real]


@pytest.mark.parametrize(
    ("data", "declared", "word", "named"),
    [
        (images.qcow2(), "raw", "qcow2", "qcow2"),
        (images.qcow2(version=2), None, None, "qcow2"),
        (images.vhd(), "vpc", None, "vhd"),
        (images.vhd(), "VHD", None, "vhd"),
        (images.raw(), "img", None, "raw"),
        (images.raw(), "aki", None, "aki"),
        (images.raw(), "ari", None, "ari"),
        (images.disk(gpt=True), "raw", None, "raw"),
        (images.disk(), None, None, "raw"),
        (images.iso(bootable_disk=True), "iso", None, "iso"),
        (images.vmdk("streamOptimized"), "vmdk", None, "vmdk"),
        (images.noise(100), "raw", None, "raw"),
        (b"x", None, None, "raw"),
    ],
)
def test_names_of_formats(data: bytes, declared: str | None, word: str | None, named: str) -> None:
    assert inspect(data, declared, word)[0] == named


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (images.qcow2(), "raw"),
        (images.qcow2(), "vmdk"),
        (images.iso(bootable_disk=True), "raw"),
        (images.raw(), "ploop"),
        (images.raw(), "no-such-format"),
        (images.noise(100), "qcow2"),
    ],
)
def test_the_operator_cannot_rename_bytes(data: bytes, word: str) -> None:
    """Fault 26: Glance itself stores a qcow2 that is called raw. Fault 28: short images too."""
    with pytest.raises(UnsafeImageError) as caught:
        inspect(data, None, word)
    assert caught.value.kind is ErrorKind.FORMAT_MISMATCH


FLAT = 'RW 131072 FLAT "/etc/shadow" 0'
UNSAFE = [
    (images.qcow2(backing_file=True), "backing file"),
    (images.qcow2(version=2, backing_file=True), "backing file"),
    (images.qcow2(incompatible=images.QCOW2_DATA_FILE), "data_file"),
    (images.qcow2(incompatible=images.QCOW2_EXTENDED_L2), "Unknown QCOW2 features"),
    (images.qcow2(incompatible=images.QCOW2_UNKNOWN), "Unknown QCOW2 features"),
    (images.qcow2(version=1), "Unsupported qcow2 version"),
    (images.vmdk("monolithicFlat", FLAT), "Unsupported subformat"),
    (images.vmdk(extent='RW 131072 SPARSE "/etc/shadow"'), "Invalid extent filenames"),
    (images.vmdk(extent=""), "No extents"),
    (images.vmdk("streamOptimized")[:-512] + b"x" * 512, "End-of-stream marker"),
    (images.vmdk_descriptor("monolithicFlat", FLAT), "unsafe vmdk"),
    (b"# comment\n" * 60 + images.vmdk_descriptor("monolithicFlat", FLAT), "unsafe vmdk"),
    (b"# Disk DescriptorFile\n" + b"x" * 600, "VMDK descriptor"),
    (b"COWD" + bytes(4096), "COWD"),
    (images.disk(boot_flag=0x12), "invalid boot flag"),
    (images.vhdx()[: 1024 * 1024], "damaged or incomplete vhdx"),
    (images.qed(), "QED"),
    (images.luks(), "LUKS"),
    (images.luks(2), "LUKS"),
    (images.qcow2()[:64] + images.vdi()[64:], "several formats"),
    (images.qcow2()[:512] + images.iso()[512:], "several formats"),
]


@pytest.mark.parametrize(("data", "reason"), UNSAFE)
@pytest.mark.parametrize("word", [None, "detected"])
def test_unsafe_images_are_refused_whatever_the_operator_says(
    data: bytes, reason: str, word: str | None
) -> None:
    """Fault 26."""
    with pytest.raises(UnsafeImageError) as caught:
        inspect(data, None, word)
    assert caught.value.kind is ErrorKind.UNSAFE_FORMAT
    assert reason.lower() in caught.value.message.lower()


@pytest.mark.parametrize("word", ["raw", "qcow2", "vmdk"])
@pytest.mark.parametrize("data", [data for data, _ in UNSAFE])
def test_unsafe_images_are_refused_under_any_name(data: bytes, word: str) -> None:
    with pytest.raises(UnsafeImageError):
        inspect(data, None, word)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"\x1f\x8b\x08\0", "compressed twice"),
        (b"BZh91AY&SY", "compressed twice"),
        (b"\xfd7zXZ\0", "compressed twice"),
        (b"\x28\xb5\x2f\xfd", "compressed twice"),
        (b"\x5a\x2a\x4d\x18", "compressed twice"),
        (b"PK\x03\x04", "zip"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (b"Rar!\x1a\x07\x01\0", "RAR"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"LZIP\x01", "lzip"),
        (b"\x1f\x9d\x90", "compress"),
        (b"\x5d\0\0\x80\0" + b"\xff" * 8, "lzma"),
        (images.tar()[:512], "tar archive"),
        (b"\xef\xbb\xbf\r\n <!DOCTYPE HTML PUBLIC>", "web page"),
        (b"<html>", "web page"),
        (b'<?xml version="1.0"?><Error>', "web page or XML"),
        (b"WithoutFreeSpace", "Parallels"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
@pytest.mark.parametrize("size_bytes", [600, 600 * 1024])
def test_what_is_certainly_no_disk_is_not_raw(head: bytes, reason: str, size_bytes: int) -> None:
    with pytest.raises(UnsafeImageError, match=reason) as caught:
        inspect(head.ljust(size_bytes, b"\0"), "raw")
    assert caught.value.kind is ErrorKind.UNSAFE_FORMAT


def test_an_empty_image_is_no_image() -> None:
    with pytest.raises(VerificationError) as caught:
        Inspector().finish()
    assert caught.value.kind is ErrorKind.EMPTY


@pytest.mark.parametrize(
    ("data", "size_bytes"),
    [
        (images.qcow2(), images.DISK_BYTES),
        (images.vmdk(), images.DISK_BYTES),
        (images.vmdk("streamOptimized"), images.DISK_BYTES),
        (images.vdi(), images.DISK_BYTES),
        (images.vhd(), images.DISK_BYTES),
        (images.vhdx(), images.DISK_BYTES),
        (images.vhdx(metadata_at=12 * images.MIB), images.DISK_BYTES),
        (images.iso(), 320 * 2048),
        (images.raw(), 600 * 1024),
        (images.disk(), 512 * 1024),
    ],
)
def test_the_size_of_the_disk_inside(data: bytes, size_bytes: int) -> None:
    assert inspect(data)[1] == size_bytes


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([*REAL.values(), *(data for data, _ in UNSAFE)]), st.integers(1000, 2**20))
def test_the_verdict_does_not_depend_on_the_pieces(data: bytes, step: int) -> None:
    def verdict(step: int) -> str:
        try:
            return str(inspect(data, step=step))
        except UnsafeImageError as error:
            return error.message

    assert verdict(step) == verdict(len(data))


@pytest.mark.parametrize("data", [images.vmdk_descriptor("monolithicFlat", FLAT), images.qcow2()])
def test_single_bytes_are_judged_like_the_whole(data: bytes) -> None:
    with pytest.raises(UnsafeImageError):
        inspect(data[:2000], "raw", step=1)


@pytest.mark.parametrize(
    ("data", "declared"),
    [
        (images.qcow2(), "raw"),
        (images.disk(), "qcow2"),
        (images.vmdk("streamOptimized", grains=images.noise(512)), "qcow2"),
        (b"<html>".ljust(300 * 1024), "raw"),
    ],
)
def test_a_contradiction_is_told_early(data: bytes, declared: str) -> None:
    inspector = Inspector(declared)
    endless = data + bytes(3 * images.MIB)
    with pytest.raises(UnsafeImageError):
        _feed_all(inspector.feed, endless)


def _feed_all(feed: Callable[[bytes], None], data: bytes) -> None:
    for begin in range(0, len(data), 64 * 1024):
        feed(data[begin : begin + 64 * 1024])


def test_a_long_stream_optimised_vmdk_is_judged_by_its_footer() -> None:
    good = images.vmdk("streamOptimized", grains=images.noise(5 * images.MIB))
    assert inspect(good, "vmdk") == ("vmdk", images.DISK_BYTES)
    lying = bytearray(good)
    struct.pack_into("<Q", lying, len(lying) - 1024 + 28, 4711)
    with pytest.raises(UnsafeImageError, match="different descriptor"):
        inspect(bytes(lying), "vmdk")


@pytest.mark.parametrize("last_bytes", [1, 100, 512, 1000, 1535, 1536, 2000])
def test_a_footer_may_come_in_two_pieces(last_bytes: int) -> None:
    data = images.vmdk("streamOptimized", grains=images.noise(3 * images.MIB))
    inspector = Inspector("vmdk")
    inspector.feed(data[:-last_bytes])
    inspector.feed(data[-last_bytes:])
    assert inspector.finish() == ("vmdk", images.DISK_BYTES)


def test_text_that_only_looks_like_a_descriptor_is_refused() -> None:
    """The inspector of oslo.utils trips over it; a verdict is needed all the same."""
    with pytest.raises(UnsafeImageError) as caught:
        inspect(b"a" * 600 + b"\xff" * 5000, "raw")
    assert caught.value.kind is ErrorKind.UNSAFE_FORMAT
