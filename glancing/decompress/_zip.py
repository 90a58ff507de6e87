"""Zip archives of exactly one file, read as they stream by (PKWARE's APPNOTE 6.3.10).

A zip archive says everything twice, before the data and in the directory at its end, and readers
disagree on whom to believe. Here both must say the same, the data must be what both say, and
nothing may stand before, between or after. The name of the member is compared and never used.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from glancing.decompress._input import INPUT_BYTES, Input, broken, cut_short
from glancing.errors import ErrorKind, VerificationError
from glancing.model import Compression

_LOCAL = b"PK\x03\x04"
_CENTRAL = b"PK\x01\x02"
_DESCRIPTOR = b"PK\x07\x08"
_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x06"
_LOCATOR_64 = b"PK\x06\x07"

_STORED = 0
_DEFLATED = 8

# Bits of the general purpose flags: encryption in three forms, and patched data.
_UNREADABLE_FLAGS = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 13
_HAS_DESCRIPTOR = 1 << 3

_DOS_DIRECTORY = 0x10
_ASK_ZIP64 = 0xFFFFFFFF
_ASK_ZIP64_SHORT = 0xFFFF
_ZIP64_FIELD = 1


@dataclass(frozen=True, slots=True)
class _Local:
    """What the local header says; the sizes mean nothing where a descriptor follows the data."""

    flags: int
    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    name: bytes
    header_bytes: int

    @property
    def has_descriptor(self) -> bool:
        return bool(self.flags & _HAS_DESCRIPTOR)


@dataclass(slots=True)
class _Facts:
    """What the data turned out to be."""

    crc: int = 0
    packed_bytes: int = 0
    size_bytes: int = 0

    def count(self, output: bytes) -> bytes:
        self.crc = zlib.crc32(output, self.crc)
        self.size_bytes += len(output)
        return output

    @property
    def triple(self) -> tuple[int, int, int]:
        return self.crc, self.packed_bytes, self.size_bytes


def unzip(data: Input, output_bytes: int) -> Iterator[bytes]:
    """Yield the only member's data in pieces of at most ``output_bytes``.

    Raises VerificationError (``bad-compression``) for every archive that is not exactly one
    regular, unencrypted file, stored or deflated, described twice in the same way.
    """
    local = _read_local(data)
    facts = _Facts()
    if local.method == _STORED:
        yield from _stored(data, local, facts)
    else:
        yield from _inflated(data, facts, output_bytes)
    _check_local(data, local, facts)
    directory_at = data.consumed_bytes
    _check_central(data, local, facts)
    _check_end(data, directory_at, data.consumed_bytes - directory_at)


def _bad(reason: str) -> VerificationError:
    return broken(Compression.ZIP, reason)


def _refused(reason: str) -> VerificationError:
    return VerificationError(
        f"the zip archive is not usable: {reason}",
        kind=ErrorKind.BAD_COMPRESSION,
        hint="a zip archive must hold exactly one regular file, unencrypted, stored or deflated",
    )


def _read(data: Input, size_bytes: int) -> bytes:
    read = data.read_exactly(size_bytes)
    if len(read) < size_bytes:
        raise cut_short(Compression.ZIP)
    return read


# --- before the data ------------------------------------------------------------------------------


def _read_local(data: Input) -> _Local:
    """Read the local header (section 4.3.7) and refuse what cannot be read."""
    signature = _read(data, 4)
    if signature == _END:
        raise _refused("it holds no file")
    if signature != _LOCAL:
        raise _bad("it does not start with a member")
    fixed = _read(data, 26)
    _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = struct.unpack(
        "<5H3I2H", fixed
    )
    name = _read(data, name_bytes)
    extra = _zip64_values(_read(data, extra_bytes))
    size = next(extra, size) if size == _ASK_ZIP64 else size
    packed = next(extra, packed) if packed == _ASK_ZIP64 else packed
    local = _Local(flags, method, crc, packed, size, name, data.consumed_bytes)
    _check_readable(local)
    return local


def _check_readable(local: _Local) -> None:
    if local.flags & _UNREADABLE_FLAGS:
        raise _refused("its member is encrypted or patched")
    if local.method not in (_STORED, _DEFLATED):
        raise _refused(f"its member is compressed with method {local.method}")
    if local.name.endswith((b"/", b"\\")):
        raise _refused("its member is a directory")
    if local.method == _STORED and local.has_descriptor:
        raise _refused("its member is stored without saying its size beforehand")


def _zip64_values(extra: bytes) -> Iterator[int]:
    """The 64-bit values of a ZIP64 extra field (section 4.5.3), in their order."""
    while len(extra) >= 4:  # noqa: PLR2004 - the field's own header
        identifier, size_bytes = struct.unpack("<2H", extra[:4])
        body, extra = extra[4 : 4 + size_bytes], extra[4 + size_bytes :]
        if identifier == _ZIP64_FIELD:
            usable = body[: len(body) // 8 * 8]
            yield from (value for (value,) in struct.iter_unpack("<Q", usable))
            return


# --- the data -------------------------------------------------------------------------------------


def _stored(data: Input, local: _Local, facts: _Facts) -> Iterator[bytes]:
    while facts.packed_bytes < local.packed_bytes:
        piece = data.take(min(INPUT_BYTES, local.packed_bytes - facts.packed_bytes))
        if not piece:
            raise cut_short(Compression.ZIP)
        facts.packed_bytes += len(piece)
        yield facts.count(piece)


def _inflated(data: Input, facts: _Facts, output_bytes: int) -> Iterator[bytes]:
    begin = data.consumed_bytes
    inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    while not inflate.eof:
        fed = inflate.unconsumed_tail or data.take()
        if not fed:  # a whole archive goes on after its data, even when zlib has output left
            raise cut_short(Compression.ZIP)
        try:
            output = inflate.decompress(fed, output_bytes)
        except zlib.error as error:
            raise _bad(str(error)) from error
        if output:
            yield facts.count(output)
    data.give_back(inflate.unused_data)
    facts.packed_bytes = data.consumed_bytes - begin


# --- after the data -------------------------------------------------------------------------------


def _check_local(data: Input, local: _Local, facts: _Facts) -> None:
    """Compare the data with the local header, or with the descriptor that follows it (4.3.9)."""
    if local.has_descriptor:
        _skip_descriptor(data, facts)
    elif (local.crc, local.packed_bytes, local.size_bytes) != facts.triple:
        raise _bad("its checksum or size is not the one announced")


def _skip_descriptor(data: Input, facts: _Facts) -> None:
    """Read a descriptor, which exists with and without a signature, in 32 and in 64 bits.

    Nothing tells the four forms apart, but what it must say is known, and what follows is.
    """
    narrow = tuple(value & _ASK_ZIP64 for value in facts.triple)
    seen = b""
    for form in sorted((struct.pack("<3I", *narrow), struct.pack("<IQQ", *facts.triple)), key=len):
        for descriptor in (form, _DESCRIPTOR + form):
            seen += data.read_exactly(len(descriptor) + 4 - len(seen))
            follows = seen[len(descriptor) :]
            if seen.startswith(descriptor) and follows in (_CENTRAL, _LOCAL):
                data.give_back(follows)
                return
    raise _bad("its checksum or size is not the one announced after the data")


def _check_central(data: Input, local: _Local, facts: _Facts) -> None:
    """Compare the directory's only entry (section 4.3.12) with the data and the local header."""
    signature = _read(data, 4)
    if signature == _LOCAL:
        raise _refused("it holds more than one member")
    if signature != _CENTRAL:
        raise _bad("its directory does not follow its only member")
    (_, _, flags, method, _, _, crc, packed, size, *rest) = struct.unpack(
        "<6H3I5H2I", _read(data, 42)
    )
    name_bytes, extra_bytes, comment_bytes, disk, _, attributes, offset = rest
    name = _read(data, name_bytes)
    extra = _zip64_values(_read(data, extra_bytes))
    _read(data, comment_bytes)
    size = next(extra, size) if size == _ASK_ZIP64 else size
    packed = next(extra, packed) if packed == _ASK_ZIP64 else packed
    offset = next(extra, offset) if offset == _ASK_ZIP64 else offset
    if (crc, packed, size, offset, disk) != (*facts.triple, 0, 0):
        raise _bad("its directory contradicts its data")
    if (flags, method, name) != (local.flags, local.method, local.name):
        raise _bad("its directory contradicts its member's header")
    _check_regular(attributes)


def _check_regular(attributes: int) -> None:
    """Refuse directories and links by the external attributes: DOS's, and Unix's above them."""
    file_type = stat.S_IFMT(attributes >> 16)
    if attributes & _DOS_DIRECTORY or file_type == stat.S_IFDIR:
        raise _refused("its member is a directory")
    if file_type not in (0, stat.S_IFREG):
        raise _refused("its member is a link or a device")


def _check_end(data: Input, directory_at: int, directory_bytes: int) -> None:
    """Read the end records (sections 4.3.14 to 4.3.16), which must be the end of the file."""
    ends_at = data.consumed_bytes
    signature = _read(data, 4)
    if signature == _CENTRAL:
        raise _refused("it holds more than one member")
    if signature == _END_64:
        _check_end_64(data, directory_at, directory_bytes, ends_at)
        signature = _read(data, 4)
    if signature != _END:
        raise _bad("its directory is not followed by its end record")
    *counts, stated_bytes, stated_at, comment_bytes = struct.unpack("<4H2IH", _read(data, 18))
    _check_counts(counts, _ASK_ZIP64_SHORT)
    if stated_bytes not in (directory_bytes, _ASK_ZIP64):
        raise _bad("its end record contradicts its directory")
    if stated_at not in (directory_at, _ASK_ZIP64):
        raise _bad("its end record contradicts its directory")
    _read(data, comment_bytes)
    if not data.at_end():
        raise _bad("something follows its end")


def _check_end_64(data: Input, directory_at: int, directory_bytes: int, ends_at: int) -> None:
    (record_bytes,) = struct.unpack("<Q", _read(data, 8))
    if record_bytes != 44:  # noqa: PLR2004 - without the extensible data that nobody writes
        raise _bad("its 64-bit end record is of an unknown size")
    _, _, *counts, stated_bytes, stated_at = struct.unpack("<2H2I4Q", _read(data, 44))
    _check_counts(counts, None)
    if (stated_bytes, stated_at) != (directory_bytes, directory_at):
        raise _bad("its 64-bit end record contradicts its directory")
    locator = struct.pack("<4sIQI", _LOCATOR_64, 0, ends_at, 1)
    if _read(data, len(locator)) != locator:
        raise _bad("its 64-bit end record is not located where it is")


def _check_counts(counts: list[int], elsewhere: int | None) -> None:
    """Check disk numbers and member counts; ``elsewhere`` means: see the 64-bit record."""
    for stated, wanted in zip(counts, (0, 0, 1, 1), strict=True):
        if stated not in (wanted, elsewhere):
            raise _refused("its directory does not name exactly one member")
