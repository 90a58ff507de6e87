"""Compressed files: the same bytes whatever the pieces, nothing broken passes, no bomb goes off."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glancing.decompress import HEAD_BYTES, OUTPUT_BYTES, OutputLimit, decompress, sniff
from glancing.errors import ErrorKind, VerificationError
from glancing.model import Compression
from tests.images import MIB, noise

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAIN = noise(50_000) + bytes(700_000) + noise(3000, seed=2)
AMPLE = OutputLimit(64 * MIB)


class Unseekable(io.RawIOBase):
    """A file that makes zipfile write data descriptors."""

    def __init__(self) -> None:
        self.written = io.BytesIO()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self.written.write(data)  # type: ignore[arg-type]


def zipped(
    *members: tuple[zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED, zip64: bool = False
) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for info, data in members or ((zipfile.ZipInfo("disk.raw"), PLAIN),):
            info.compress_type = method
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(data)
    return packed.getvalue()


def zipped_as_stream(*, zip64: bool = False, members: int = 1) -> bytes:
    packed = Unseekable()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(members):
            info = zipfile.ZipInfo(f"disk{number}.raw")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(PLAIN)
    return packed.written.getvalue()


def without_descriptor_signature(packed: bytes) -> bytes:
    at = packed.rindex(b"PK\x07\x08")
    end = struct.pack("<I", packed.rindex(b"PK\x01\x02") - 4)
    packed = packed[:at] + packed[at + 4 :]
    return packed[:-6] + end + packed[-2:]


def zip64_everywhere() -> bytes:
    """One stored member whose every size and offset stands in the 64-bit fields."""
    crc, size = zlib.crc32(PLAIN), len(PLAIN)
    name, full = b"disk.raw", 0xFFFFFFFF
    extra = struct.pack("<2H2Q", 1, 16, size, size)
    local = struct.pack(
        "<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 33, crc, full, full, len(name), len(extra)
    )
    body = local + name + extra + PLAIN
    extra = struct.pack("<2H3Q", 1, 24, size, size, 0)
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 33, crc, full, full,
        len(name), len(extra), 0, 0, 0, 0, full,
    )  # fmt: skip
    directory = central + name + extra
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), len(body))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(body) + len(directory), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, full, full, 0)
    return body + directory + end64 + locator + end


def skippable(data: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A57, len(data)) + data


HALF = len(PLAIN) // 2
WHOLE = {
    "gz": gzip.compress(PLAIN),
    "gz, two members": gzip.compress(PLAIN[:HALF]) + gzip.compress(PLAIN[HALF:]),
    "gz, an empty member": gzip.compress(PLAIN) + gzip.compress(b""),
    "gz, zero padding": gzip.compress(PLAIN) + bytes(1027),
    "bz2": bz2.compress(PLAIN),
    "bz2, two streams": bz2.compress(PLAIN[:HALF]) + bz2.compress(PLAIN[HALF:]),
    "bz2, first stream empty": bz2.compress(b"") + bz2.compress(PLAIN),
    "xz": lzma.compress(PLAIN),
    "xz, preset 9": lzma.compress(PLAIN, preset=9),
    "xz, two streams": lzma.compress(PLAIN[:HALF]) + bytes(8) + lzma.compress(PLAIN[HALF:]),
    "zstd": zstd.compress(PLAIN),
    "zstd, two frames": zstd.compress(PLAIN[:HALF]) + zstd.compress(PLAIN[HALF:]),
    "zstd, skippable frames": skippable(b"abc") + zstd.compress(PLAIN) + skippable(b""),
    "zip, deflated": zipped(),
    "zip, stored": zipped(method=zipfile.ZIP_STORED),
    "zip, 64 bit": zipped(zip64=True),
    "zip, all in 64 bit": zip64_everywhere(),
    "zip, as a stream": zipped_as_stream(),
    "zip, as a stream, 64 bit": zipped_as_stream(zip64=True),
    "zip, descriptor unsigned": without_descriptor_signature(zipped_as_stream()),
    "zip, hostile name": zipped((zipfile.ZipInfo("../../etc/passwd"), PLAIN)),
    "zip, absolute name": zipped((zipfile.ZipInfo("/etc/passwd"), PLAIN)),
}


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    begin = 0
    for size in sizes:
        yield data[begin : begin + size]
        begin += size
    yield data[begin:]


def unpack(data: bytes, limit: OutputLimit = AMPLE, sizes: list[int] | None = None) -> bytes:
    pieces = list(decompress(cut(data, sizes or []), sniff(data[:HEAD_BYTES]), limit))
    assert all(0 < len(piece) <= OUTPUT_BYTES for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_give_their_bytes(name: str) -> None:
    assert sniff(WHOLE[name][:HEAD_BYTES]).value == name.partition(",")[0]
    assert unpack(WHOLE[name]) == PLAIN


@settings(deadline=None, max_examples=120)
@given(st.sampled_from(sorted(WHOLE)), st.lists(st.integers(0, 9000), max_size=40))
def test_any_pieces_give_the_same_bytes(name: str, sizes: list[int]) -> None:
    assert unpack(WHOLE[name], sizes=sizes) == PLAIN


@pytest.mark.parametrize("name", WHOLE)
def test_single_bytes_at_the_end_give_the_same(name: str) -> None:
    assert unpack(WHOLE[name], sizes=[len(WHOLE[name]) - 400] + [1] * 400) == PLAIN


@pytest.mark.parametrize(
    ("head", "compression"),
    [
        (b"", Compression.NONE),
        (b"\x1f\x8b", Compression.NONE),
        (b"BZh9 is a text", Compression.NONE),
        (bytes(16), Compression.NONE),
        (b"QFI\xfb\0\0\0\x03", Compression.NONE),
        (bz2.compress(b""), Compression.BZIP2),
        (skippable(b""), Compression.ZSTD),
        (b"PK\x05\x06", Compression.ZIP),
        (b"PK\x01\x02", Compression.NONE),
    ],
)
def test_sniffing(head: bytes, compression: Compression) -> None:
    assert sniff(head) is compression


SINGLE = sorted({name for name in WHOLE if name.startswith("zip") or "," not in name})


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(SINGLE), st.floats(0, 1, exclude_max=True))
def test_cut_files_are_refused(name: str, share: float) -> None:
    """Fault 20."""
    data = WHOLE[name]
    kept = max(HEAD_BYTES, int(len(data) * share))
    with pytest.raises(VerificationError) as caught:
        unpack(data[:kept])
    assert caught.value.kind is ErrorKind.BAD_COMPRESSION


@pytest.mark.parametrize("name", sorted(WHOLE.keys() - set(SINGLE)))
def test_a_second_stream_that_is_cut_is_refused(name: str) -> None:
    """Fault 21: concatenated members only if wholly valid."""
    data = WHOLE[name] + WHOLE[name]
    with pytest.raises(VerificationError, match="ends too early"):
        unpack(data[: len(data) - 1100 if "padding" in name else -5])


@pytest.mark.parametrize("name", ["gz", "bz2", "xz", "zstd", "zip, deflated", "zip, stored"])
@pytest.mark.parametrize("missing", [1, 4, 200])
def test_cut_files_say_so(name: str, missing: int) -> None:
    """Fault 20."""
    with pytest.raises(VerificationError, match="ends too early") as caught:
        unpack(WHOLE[name][:-missing])
    assert caught.value.kind is ErrorKind.BAD_COMPRESSION


@pytest.mark.parametrize("name", sorted(WHOLE))
@pytest.mark.parametrize("garbage", [b"x", b"garbage" * 9, b"\0x", b"\0\0\0\0garbage"])
def test_what_follows_the_end_is_refused(name: str, garbage: bytes) -> None:
    """Fault 21."""
    with pytest.raises(VerificationError) as caught:
        unpack(WHOLE[name] + garbage)
    assert caught.value.kind is ErrorKind.BAD_COMPRESSION


@pytest.mark.parametrize(
    ("name", "padding"), [("xz", 3), ("xz", 5), ("bz2", 4), ("zstd", 4), ("zip, deflated", 4)]
)
def test_padding_that_a_format_does_not_know_is_refused(name: str, padding: int) -> None:
    """Fault 21."""
    with pytest.raises(VerificationError) as caught:
        unpack(WHOLE[name] + bytes(padding))
    assert caught.value.kind is ErrorKind.BAD_COMPRESSION


@pytest.mark.parametrize("name", ["gz", "bz2", "xz", "zip, deflated", "zip, stored"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_changed_bytes_are_noticed(name: str, share: float) -> None:
    changed = bytearray(WHOLE[name])
    changed[int(len(changed) * share)] ^= 0x40
    with pytest.raises(VerificationError) as caught:
        unpack(bytes(changed))
    assert caught.value.kind is ErrorKind.BAD_COMPRESSION


# --- limits ---------------------------------------------------------------------------------------


def gz_bomb(size_bytes: int) -> Iterator[bytes]:
    squeeze = zlib.compressobj(9, wbits=31)
    for _ in range(size_bytes // MIB):
        yield squeeze.compress(bytes(MIB))
    yield squeeze.flush()


def bz2_bomb(size_bytes: int) -> Iterator[bytes]:
    squeeze = bz2.BZ2Compressor()
    for _ in range(size_bytes // MIB):
        yield squeeze.compress(bytes(MIB))
    yield squeeze.flush()


def xz_bomb(size_bytes: int) -> Iterator[bytes]:
    squeeze = lzma.LZMACompressor(preset=1)
    for _ in range(size_bytes // MIB):
        yield squeeze.compress(bytes(MIB))
    yield squeeze.flush()


def zstd_bomb(size_bytes: int) -> Iterator[bytes]:
    squeeze = zstd.ZstdCompressor()
    for _ in range(size_bytes // MIB):
        yield squeeze.compress(bytes(MIB))
    yield squeeze.flush()


def zip_bomb(size_bytes: int) -> Iterator[bytes]:
    yield struct.pack("<4s5H3I2H", b"PK\3\4", 20, 8, 8, 0, 33, 0, 0, 0, 1, 0) + b"x"
    squeeze = zlib.compressobj(9, wbits=-15)
    for _ in range(size_bytes // MIB):
        yield squeeze.compress(bytes(MIB))
    yield squeeze.flush()


BOMBS = {
    Compression.GZIP: gz_bomb,
    Compression.BZIP2: bz2_bomb,
    Compression.XZ: xz_bomb,
    Compression.ZSTD: zstd_bomb,
    Compression.ZIP: zip_bomb,
}


def output_until_refused(packed: Iterator[bytes], kind: Compression, limit: OutputLimit) -> int:
    sizes: list[int] = []
    with pytest.raises(VerificationError) as caught:
        sizes.extend(map(len, decompress(packed, kind, limit)))
    assert caught.value.kind is ErrorKind.TOO_LARGE
    return sum(sizes)


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_stop_at_the_cap(kind: Compression) -> None:
    """Fault 19."""
    whole = b"".join(BOMBS[kind](24 * MIB))
    assert output_until_refused(iter([whole]), kind, OutputLimit(8 * MIB)) <= 8 * MIB


@pytest.mark.parametrize("kind", [Compression.BZIP2, Compression.XZ, Compression.ZSTD])
def test_bombs_stop_at_the_ratio(kind: Compression) -> None:
    """Fault 19: without a published size."""
    limit = OutputLimit(1024 * MIB, free_bytes=4 * MIB)
    whole = b"".join(BOMBS[kind](72 * MIB))
    # What a decoder was handed counts as consumed: 32 KiB, of which it may have used very little.
    assert output_until_refused(iter([whole]), kind, limit) <= max(4 * MIB, 2000 * 32 * 1024)


def test_a_published_size_lifts_the_ratio() -> None:
    limit = OutputLimit(64 * MIB, max_ratio=None, free_bytes=MIB)
    packed = b"".join(bz2_bomb(16 * MIB))
    assert sum(map(len, decompress([packed], Compression.BZIP2, limit))) == 16 * MIB


def test_zeros_in_gz_are_a_sparse_image() -> None:
    limit = OutputLimit(64 * MIB, free_bytes=MIB)
    assert sum(map(len, decompress(gz_bomb(32 * MIB), Compression.GZIP, limit))) == 32 * MIB


def big_window_xz() -> bytes:
    filters = [
        {"id": lzma.FILTER_LZMA2, "dict_size": 96 * MIB, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}
    ]
    squeeze = lzma.LZMACompressor(filters=filters)
    return squeeze.compress(b"x") + squeeze.flush()


def big_window_zstd() -> bytes:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27}
    squeeze = zstd.ZstdCompressor(options=options)
    return squeeze.compress(bytes(64)) + squeeze.compress(noise(200_000)) + squeeze.flush()


@pytest.mark.parametrize("make", [big_window_xz, big_window_zstd])
def test_windows_that_need_much_memory_are_refused(make: Callable[[], bytes]) -> None:
    """Fault 19."""
    with pytest.raises(VerificationError, match="MiB of memory") as caught:
        unpack(make())
    assert caught.value.kind is ErrorKind.TOO_LARGE


# --- zip ------------------------------------------------------------------------------------------


def typed(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.create_system = 3
    return info


def lying(offset_from: bytes, offset: int, form: str, value: int) -> bytes:
    packed = bytearray(zipped(method=zipfile.ZIP_STORED))
    struct.pack_into(form, packed, packed.rindex(offset_from) + offset, value)
    return bytes(packed)


def overlapped() -> bytes:
    """Two entries of the directory that quote the same data."""
    packed = zipped(method=zipfile.ZIP_STORED)
    central = packed.rindex(b"PK\x01\x02")
    end = packed.rindex(b"PK\x05\x06")
    entry = packed[central:end]
    final = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, 2 * len(entry), central, 0)
    return packed[:end] + entry + final


STORED = zipped(method=zipfile.ZIP_STORED)
ONE = (zipfile.ZipInfo("a"), b"a")
TWO = (zipfile.ZipInfo("b"), b"b")
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
BAD_ZIPS = {
    "no member": (struct.pack("<4s4H2IH", END, 0, 0, 0, 0, 0, 0, 0), "holds no file"),
    "two members": (zipped(ONE, TWO), "more than one"),
    "two members, as a stream": (zipped_as_stream(members=2), "more than one"),
    "overlap": (overlapped(), "more than one"),
    "directory": (zipped((zipfile.ZipInfo("a/"), b"")), "directory"),
    "directory by its mode": (zipped((typed("a", stat.S_IFDIR), b"")), "directory"),
    "directory of DOS": (lying(CENTRAL, 38, "<I", 0x10), "directory"),
    "symlink": (zipped((typed("a", stat.S_IFLNK | 0o777), b"/etc/shadow")), "link"),
    "device": (zipped((typed("a", stat.S_IFBLK), b"")), "link or a device"),
    "encrypted": (lying(LOCAL, 6, "<H", 1), "encrypted"),
    "masked headers": (lying(LOCAL, 6, "<H", 1 << 13), "encrypted"),
    "bzip2 inside": (zipped(method=zipfile.ZIP_BZIP2), "method 12"),
    "stored, size unknown": (lying(LOCAL, 6, "<H", 8), "without saying its size"),
    "lying checksum": (lying(LOCAL, 14, "<I", 4711), "not the one announced"),
    "lying size": (lying(LOCAL, 22, "<I", 4711), "not the one announced"),
    "packed size too small": (lying(LOCAL, 18, "<I", 4711), "broken"),
    "packed size too large": (lying(LOCAL, 18, "<I", 2**31), "too early"),
    "directory: checksum": (lying(CENTRAL, 16, "<I", 4711), "contradicts its data"),
    "directory: packed size": (lying(CENTRAL, 20, "<I", 4711), "contradicts its data"),
    "directory: size": (lying(CENTRAL, 24, "<I", 4711), "contradicts its data"),
    "directory: offset": (lying(CENTRAL, 42, "<I", 4711), "contradicts its data"),
    "directory: disk": (lying(CENTRAL, 34, "<H", 1), "contradicts its data"),
    "directory: method": (lying(CENTRAL, 10, "<H", 8), "contradicts its member"),
    "directory: flags": (lying(CENTRAL, 8, "<H", 1), "contradicts its member"),
    "directory: name": (lying(CENTRAL, 46, "<B", 65), "contradicts its member"),
    "end: count": (lying(END, 10, "<H", 2), "exactly one member"),
    "end: disk": (lying(END, 4, "<H", 1), "exactly one member"),
    "end: directory's size": (lying(END, 12, "<I", 4711), "contradicts its directory"),
    "end: directory's place": (lying(END, 16, "<I", 4711), "contradicts its directory"),
    "gap": (STORED.replace(CENTRAL, b"gap!" + CENTRAL), "does not follow"),
    "no end": (STORED.replace(END, b"PK\x05\x05"), "end record"),
    "descriptor": (zipped_as_stream().replace(b"PK\x07\x08", b"PK\x07\x08x"), "after the data"),
    "end of 64 bit": (zip64_everywhere().replace(b"PK\x06\x07", b"PK\x06\x08"), "located"),
    "size of the 64-bit end": (zip64_everywhere().replace(b"PK\6\6\x2c", b"PK\6\6\x2d"), "size"),
}


@pytest.mark.parametrize("trick", BAD_ZIPS)
def test_zips_that_are_not_one_plain_file_are_refused(trick: str) -> None:
    """Fault 22."""
    packed, reason = BAD_ZIPS[trick]
    with pytest.raises(VerificationError, match=reason) as caught:
        unpack(packed)
    assert caught.value.kind is ErrorKind.BAD_COMPRESSION


def test_a_comment_is_no_harm() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"made by hand"
        archive.writestr("disk.raw", PLAIN)
    assert unpack(packed.getvalue()) == PLAIN
