"""Undo the compression of published files: bounded in memory and output, strict about the end.

Everything that a stranger compressed is taken to be a trap. One call into a decompressor gives at
most ``OUTPUT_BYTES``, the total has a cap, and a file that ends too early or goes on after its end
is refused, even where the part before would make an image.
"""

from __future__ import annotations

import bz2
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Protocol

from glancing.decompress._input import Input, OutputLimit, broken, cut_short
from glancing.decompress._tar import BLOCK_BYTES, is_tar, untar
from glancing.decompress._zip import unzip
from glancing.errors import ErrorKind, VerificationError
from glancing.model import MIB, Compression

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["HEAD_BYTES", "OUTPUT_BYTES", "OutputLimit", "decompress", "sniff"]

#: How much of a file ``sniff`` needs to see.
HEAD_BYTES = BLOCK_BYTES

#: The most that one piece of decompressed data holds.
OUTPUT_BYTES = 256 * 1024

# xz -9 asks for 65 MiB and zstd --ultra -22 for 128 MiB; publishers' defaults stay far below.
XZ_MEMORY_BYTES = 80 * MIB
ZSTD_WINDOW_LOG = 26

# A bz2 stream goes on with the magic number of a block, or of its end when it is empty; the first
# four bytes alone are printable and might start a text.
_MAGIC = (
    (re.compile(rb"\x1f\x8b\x08", re.DOTALL), Compression.GZIP),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", re.DOTALL), Compression.BZIP2),
    (re.compile(rb"\xfd7zXZ\x00", re.DOTALL), Compression.XZ),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL), Compression.ZSTD),
    (re.compile(rb"PK(\x03\x04|\x05\x06)", re.DOTALL), Compression.ZIP),
)


def sniff(head: bytes) -> Compression:
    """Name the compression of a file by its first ``HEAD_BYTES`` bytes.

    The magic numbers are those of RFC 1952, RFC 8878 (skippable frames included), the .xz file
    format 1.2.0, bzip2 1.0.8 and PKWARE's APPNOTE 6.3.10 (an empty archive included).
    """
    for magic, compression in _MAGIC:
        if magic.match(head):
            return compression
    return Compression.TAR if is_tar(head) else Compression.NONE


def decompress(
    pieces: Iterable[bytes], compression: Compression, limit: OutputLimit
) -> Iterator[bytes]:
    """Yield the decompressed data in pieces of at most ``OUTPUT_BYTES``, none of them empty.

    Several streams in a row are one file, as their tools have it, if every one is whole. Of an
    archive inside, it is the one disk that comes out. Raises VerificationError: ``bad-compression``
    for data that is broken, cut short, or followed by anything else, ``too-large`` beyond the limit
    or where decompressing needs too much memory.
    """
    data = Input(iter(pieces))
    if compression in (Compression.NONE, Compression.TAR, Compression.ZIP):
        return _limited(data, _outputs(data, compression), limit)
    return _unarchived(_limited(data, _outputs(data, compression), limit))


def _limited(data: Input, outputs: Iterator[bytes], limit: OutputLimit) -> Iterator[bytes]:
    total = 0
    for output in outputs:
        total += len(output)
        limit.check(total, data.consumed_bytes)
        yield output


def _unarchived(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The disk of an archive that was compressed as a whole, or all as it is."""
    head: list[bytes] = []
    while sum(map(len, head)) < BLOCK_BYTES and (piece := next(pieces, None)) is not None:
        head.append(piece)
    whole = chain(head, pieces)
    if is_tar(b"".join(head)):
        return untar(Input(whole), OUTPUT_BYTES)
    return whole


def _outputs(data: Input, compression: Compression) -> Iterator[bytes]:
    match compression:
        case Compression.NONE:
            return data.rest()
        case Compression.GZIP:
            return _streams(data, compression, _Gunzip, padding=1)
        case Compression.BZIP2:
            return _streams(data, compression, bz2.BZ2Decompressor)
        case Compression.XZ:
            return _streams(data, compression, _unxz, padding=4)
        case Compression.ZSTD:
            return _streams(data, compression, _unzstd)
        case Compression.TAR:
            return untar(data, OUTPUT_BYTES)
        case Compression.ZIP:
            return unzip(data, OUTPUT_BYTES)


class _Decoder(Protocol):
    """What the decompressors of the standard library have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gunzip:
    """zlib's decompressor of one gzip member, with the interface of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        output = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        # A full output may leave more inside zlib even when it has taken all of the input.
        self.needs_input = not self._zlib.unconsumed_tail and len(output) < max_length
        return output


def _unxz() -> _Decoder:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)


def _unzstd() -> _Decoder:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    return zstd.ZstdDecompressor(options=options)


def _streams(
    data: Input, compression: Compression, new: Callable[[], _Decoder], padding: int | None = None
) -> Iterator[bytes]:
    """Yield what one or more streams hold, each of them whole.

    ``padding`` is the unit of the zero bytes that may follow a stream, None where none may:
    gzip(1) ignores any number of them, .xz has multiples of four (section 2.2).
    """
    while True:
        yield from _one_stream(data, compression, new())
        if padding is not None and data.skip_zeros() % padding:
            raise broken(compression, "its padding is not a multiple of four bytes")
        if data.at_end():
            return


def _one_stream(data: Input, compression: Compression, decoder: _Decoder) -> Iterator[bytes]:
    while not decoder.eof:
        fed = data.take() if decoder.needs_input else b""
        if decoder.needs_input and not fed:
            raise cut_short(compression)
        output = _step(decoder, fed, compression)
        if output:
            yield output
    data.give_back(decoder.unused_data)


def _step(decoder: _Decoder, fed: bytes, compression: Compression) -> bytes:
    try:
        return decoder.decompress(fed, OUTPUT_BYTES)
    except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError, zstd.ZstdError) as error:
        if _wants_memory(error):
            raise _too_hungry(compression) from error
        raise broken(compression, str(error)) from error


def _wants_memory(error: Exception) -> bool:
    """Whether a decoder gave up at its memory limit; neither library has a type for that."""
    text = str(error).lower()
    return "memory usage limit" in text or "too much memory" in text


def _too_hungry(compression: Compression) -> VerificationError:
    allowed_bytes = XZ_MEMORY_BYTES if compression is Compression.XZ else 2**ZSTD_WINDOW_LOG
    return VerificationError(
        f"decompressing the {compression} file needs a window of more than "
        f"{allowed_bytes // MIB} MiB of memory, which is not granted to published files",
        kind=ErrorKind.TOO_LARGE,
        hint="ask the publisher for a file compressed with a smaller window (dictionary)",
    )
