"""Tar archives of one disk, and OVAs, which are such archives with a descriptor (POSIX.1-1988 pax).

The archive is read as it streams by: no member is ever looked up by name, none is written, and
whatever is not needed is refused where it could mislead (links, devices, sparse files, names that
lead elsewhere, a name twice, anything behind the end). The disk of an OVA is the one that its
descriptor names; elsewhere it is the only member that is not plainly a note about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from glancing.decompress._input import Input, broken, cut_short
from glancing.decompress._ovf import MAX_OVF_BYTES, Manifest, Witness, disk_of
from glancing.errors import ErrorKind, VerificationError
from glancing.model import MIB, Compression

BLOCK_BYTES = 512
_MAX_HEADERS = 1000
_MAX_EXTENSION_BYTES = 64 * 1024
_MAX_MANIFEST_BYTES = MIB
# What is neither the disk nor its descriptor: it gives nothing, so no other limit meets it.
_MAX_PASSED_OVER_BYTES = 64 * MIB
_REGULAR = frozenset({b"0", b"\0", b"7"})
_DIRECTORY = b"5"
_KINDS = {
    b"1": "a link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"M": "a part of a file",
}
# What goes with a disk and is none.
_NOTES = re.compile(
    r"(?i).*\.(txt|md|json|xml|ya?ml|html?|log|mf|cert|asc|gpg|sig|sign|pem|(md5|sha\d+)(sums?)?)"
    r"|(.*[-_.])?(md5|sha\d+)sums?|(.*[-_.])?checksums?|readme|license|copying|changelog|manifest"
)


def is_tar(head: bytes) -> bool:
    """Whether the first ``BLOCK_BYTES`` bytes are the header of a member.

    The sum tells, as there is no magic number in archives from before 1988.
    """
    return len(head) >= BLOCK_BYTES and _sum_is_right(head[:BLOCK_BYTES])


def untar(data: Input, output_bytes: int) -> Iterator[bytes]:
    """Yield the one disk of an archive in pieces of at most ``output_bytes``.

    Raises VerificationError (``bad-compression``) for every archive that is damaged, has no disk or
    several, or anything that is refused; ``wrong-digest`` when an OVA's own manifest does not hold.
    """
    headers, reader = _Headers(data), _Reader(data, output_bytes)
    while (member := headers.next_member()) is not None:
        yield from reader.take(member)
    reader.conclude()
    padding_bytes = 0
    while padding := data.take():
        padding_bytes += len(padding)
        if padding.strip(b"\0"):
            raise _bad("something follows its end")
        if padding_bytes > _MAX_PASSED_OVER_BYTES:
            raise _bad("too many zeros follow its end")


def _bad(reason: str) -> VerificationError:
    return broken(Compression.TAR, reason)


def _refused(reason: str) -> VerificationError:
    return VerificationError(
        f"the tar archive is not usable: {reason}",
        kind=ErrorKind.BAD_COMPRESSION,
        hint="an archive must hold exactly one disk, and only plain files",
    )


# --- headers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Member:
    """One member: its name, without ``./``, its kind and its size."""

    name: str
    kind: bytes
    size_bytes: int

    @property
    def padding_bytes(self) -> int:
        return -self.size_bytes % BLOCK_BYTES


class _Headers:
    """The headers of an archive, of which there is only so many."""

    def __init__(self, data: Input) -> None:
        self._data = data
        self._read = 0

    def next_member(self) -> _Member | None:
        """The next file or folder, as all its headers say; None at the end of the archive."""
        name: str | None = None
        size_bytes: int | None = None
        while (header := self._next()) is not None:
            match header.kind:
                case b"L":
                    name = _text(_extension(self._data, header).rstrip(b"\0"))
                case b"K":
                    _extension(self._data, header)
                case b"x":
                    records = _extension(self._data, header)
                    name, size_bytes = _extended(records, name, size_bytes)
                case b"g":
                    if _extended(_extension(self._data, header), None, None) != (None, None):
                        raise _refused("a name or a size for all members")
                case _:
                    own_bytes = header.size_bytes if size_bytes is None else size_bytes
                    return _checked(name or header.name, header.kind, own_bytes)
        if name is not None or size_bytes is not None:
            raise _bad("it ends behind an extended header")
        return None

    def _next(self) -> _Member | None:
        block = self._data.read_exactly(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            raise cut_short(Compression.TAR)
        if not block.strip(b"\0"):
            return None
        self._read += 1
        if self._read > _MAX_HEADERS:
            raise _refused(f"too many headers, more than {_MAX_HEADERS}")
        return _header(block)


def _header(block: bytes) -> _Member:
    if not _sum_is_right(block):
        raise _bad("a header is damaged")
    is_posix = block[257:263] == b"ustar\0"  # elsewhere the prefix's place has other meanings
    prefix = block[345:500].partition(b"\0")[0] if is_posix else b""
    name = block[:100].partition(b"\0")[0]
    whole = prefix + b"/" + name if prefix else name
    # Cut short where a longer name stands in a header of its own: that one has to be UTF-8.
    return _Member(whole.decode(errors="surrogateescape"), block[156:157], _number(block[124:136]))


def _sum_is_right(block: bytes) -> bool:
    """Whether a header has the sum of its bytes, its own field counted as blanks."""
    try:
        return _number(block[148:156]) == sum(block[:148]) + 8 * 32 + sum(block[156:512])
    except VerificationError:
        return False


def _number(field: bytes) -> int:
    """Octal digits, or GNU's big-endian number behind a set top bit; never negative."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise _bad("a number in a header is damaged")
    return int(digits or b"0", 8)


def _extension(data: Input, header: _Member) -> bytes:
    """What stands in an extended header, which says more of the next member."""
    if header.size_bytes > _MAX_EXTENSION_BYTES:
        raise _refused(f"an extended header of {header.size_bytes} bytes")
    return _read(data, header)


def _read(data: Input, member: _Member) -> bytes:
    whole = data.read_exactly(member.size_bytes + member.padding_bytes)
    if len(whole) < member.size_bytes + member.padding_bytes:
        raise cut_short(Compression.TAR)
    return whole[: member.size_bytes]


def _extended(
    records: bytes, name: str | None, size_bytes: int | None
) -> tuple[str | None, int | None]:
    """The name and size of a pax header: records of ``LENGTH KEY=VALUE`` and a newline."""
    at, end = 0, len(records.rstrip(b"\0"))
    while at < end:
        digits, _, _ = records[at : at + 20].partition(b" ")
        length = int(digits) if re.fullmatch(rb"[1-9][0-9]{0,6}", digits) else 0
        key, equals, value = records[at + len(digits) + 1 : at + length].partition(b"=")
        at += length
        if not (length and equals and value.endswith(b"\n")):
            raise _bad("an extended header is damaged")
        value = value[:-1]
        if key == b"path":
            name = _text(value)
        elif key == b"size":
            if not re.fullmatch(rb"[0-9]{1,19}", value):
                raise _bad("a size in an extended header is damaged")
            size_bytes = int(value)
        elif key.startswith(b"GNU.sparse"):
            raise _refused("a sparse file")
    return name, size_bytes


def _has_surrogates(name: str) -> bool:
    """Whether a name has bytes that are no UTF-8, as ``os.fsdecode`` keeps them."""
    return any("\ud800" <= sign <= "\udfff" for sign in name)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise _refused("a name that is not UTF-8") from None


def _checked(name: str, kind: bytes, size_bytes: int) -> _Member:
    """The member where its kind and its name are harmless."""
    if kind not in _REGULAR and kind != _DIRECTORY:
        raise _refused(f"it holds {_KINDS.get(kind, 'something that is no file')}")
    if not name.isascii() and _has_surrogates(name):
        raise _refused("a name that is not UTF-8")
    plain = name.removeprefix("./").rstrip("/")
    parts = plain.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise _refused("a name leads out of it")
    if kind == _DIRECTORY and size_bytes:
        raise _bad("a folder with data")
    return _Member(plain, kind, size_bytes)


# --- members --------------------------------------------------------------------------------------


class _Reader:
    """Takes the members in as they come, and lets one disk through."""

    def __init__(self, data: Input, output_bytes: int) -> None:
        self._data = data
        self._output_bytes = output_bytes
        self._names: set[str] = set()
        self._disk: str | None = None
        self._wanted: str | None = None
        self._others: frozenset[str] = frozenset()
        self._witness = Witness()
        self._manifest: Manifest | None = None
        self._passed_over_bytes = 0

    def take(self, member: _Member) -> Iterator[bytes]:
        """Read one member to its end, and yield its data if it is the disk."""
        if member.kind == _DIRECTORY:
            return
        if member.name in self._names:
            raise _refused(f"{_shown(member.name)} stands twice in it")
        self._names.add(member.name)
        if member.name.lower().endswith(".ovf"):
            self._take_descriptor(member)
        elif self._is_ova and member.name.lower().endswith(".mf"):
            self._take_manifest(member)
        elif self._is_disk(member):
            yield from self._take_disk(member)
        else:
            self._pass_over(member)

    def conclude(self) -> None:
        """Check at the end of the archive what it says of itself."""
        if self._disk is None:
            wanted = f" {_shown(self._wanted)}" if self._wanted else ""
            raise _refused(f"it has no disk{wanted}")
        if self._manifest is not None:
            self._manifest.check(self._witness)

    @property
    def _is_ova(self) -> bool:
        return self._wanted is not None

    def _is_disk(self, member: _Member) -> bool:
        if self._is_ova:
            return member.name == self._wanted
        return _NOTES.fullmatch(member.name.rpartition("/")[2]) is None

    def _take_descriptor(self, member: _Member) -> None:
        """The descriptor comes first (DSP0243, section 5.3), so that a stream can be read."""
        if len(self._names) != 1:
            raise _refused("its descriptor is not its first member")
        if member.size_bytes > MAX_OVF_BYTES:
            raise _refused(f"a descriptor of {member.size_bytes} bytes")
        content = _read(self._data, member)
        self._witness.see(member.name, content)
        self._wanted, self._others = disk_of(content)

    def _take_manifest(self, member: _Member) -> None:
        if self._manifest is not None or member.size_bytes > _MAX_MANIFEST_BYTES:
            raise _refused("a second manifest, or one that is too large")
        self._manifest = Manifest.parse(_read(self._data, member))

    def _take_disk(self, member: _Member) -> Iterator[bytes]:
        if self._disk is not None:
            raise _refused(f"it has two disks, {_shown(self._disk)} and {_shown(member.name)}")
        if not member.size_bytes:
            raise _refused(f"its disk {_shown(member.name)} is empty")
        self._disk = member.name
        for piece in self._pieces(member):
            if self._is_ova:
                self._witness.hear(member.name, piece)
            yield piece

    def _pass_over(self, member: _Member) -> None:
        certificate = member.name.lower().endswith(".cert")
        if self._is_ova and not certificate and member.name not in self._others:
            raise _refused(f"its descriptor does not name {_shown(member.name)}")
        self._passed_over_bytes += member.size_bytes
        if self._passed_over_bytes > _MAX_PASSED_OVER_BYTES:
            raise _refused(f"{_shown(member.name)} is no disk and too large to pass over")
        for _ in self._pieces(member):
            pass

    def _pieces(self, member: _Member) -> Iterator[bytes]:
        left = member.size_bytes
        while left:
            piece = self._data.take(min(left, self._output_bytes))
            if not piece:
                raise cut_short(Compression.TAR)
            left -= len(piece)
            yield piece
        if len(self._data.read_exactly(member.padding_bytes)) < member.padding_bytes:
            raise cut_short(Compression.TAR)


def _shown(name: str) -> str:
    return ascii(name[:100])
