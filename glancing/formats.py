"""Name the disk format of an image from its bytes, and refuse what no cloud should store.

A disk format is a promise about bytes that a hypervisor will parse. An image that calls itself raw
and is a qcow2 makes the hypervisor of a careless cloud open the files that its header names
(CVE-2024-32498, CVE-2022-47951), and Glance lets that one pass. So an image is only ever
registered under the format that its bytes have, and what ``oslo.utils`` finds unsafe is refused
whatever the operator says.
"""

from __future__ import annotations

import re
from typing import Any, cast

from glancing.errors import ErrorKind, UnsafeImageError, VerificationError
from glancing.model import MIB

#: The operator's word for "whatever the bytes are".
DETECTED = "detected"

#: Glance's names of the formats that are found in the bytes.
_KNOWN = frozenset({"qcow2", "vhd", "vhdx", "vmdk", "vdi", "iso", "raw"})

#: What publishers call them besides.
_SYNONYMS = {"vpc": "vhd", "img": "raw", "gpt": "raw"}

#: Kernels, ramdisks and file systems of the Amazon kind have no structure of their own.
_BARE = frozenset({"ami", "ari", "aki"})

#: What the inspectors find and Glance has no name for.
_UNKNOWN_TO_GLANCE = {
    "qed": "a QED disk, which neither Glance nor current hypervisors support",
    "luks": "an encrypted LUKS volume, which Glance cannot store as a bare image",
}

# The inspectors see the same helpings however the bytes arrive: some of them judge by the first
# helping alone, so that its size must not depend on the source. The same size as Glance's own.
_HELPING_BYTES = 64 * 1024

# A VMDK's descriptor lies below this; beyond it only the footer of a stream-optimised one matters.
_VMDK_HEAD_BYTES = 2 * MIB
_VMDK_FOOTER_BYTES = 1536
_VMDK_MAGIC = b"KDMV"

_HEAD_BYTES = 512

# What stands at the start of things that are certainly no disk image. Raw disks start with boot
# code, a partition table or zeros; none of these can be the start of one that boots.
_FOREIGN = (
    (rb"\x1f\x8b\x08", "gzip data: the image was compressed twice"),
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "bzip2 data: the image was compressed twice"),
    (rb"\xfd7zXZ\0", "xz data: the image was compressed twice"),
    (rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", "zstd data: the image was compressed twice"),
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a zip archive inside of the published file"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive, which is not supported"),
    (rb"Rar!\x1a\x07", "a RAR archive, which is not supported"),
    (rb"\x04\x22\x4d\x18", "lz4 data, a compression that is not supported"),
    (rb"LZIP", "lzip data, a compression that is not supported"),
    (rb"\x1f\x9d", "data of compress(1), a compression that is not supported"),
    (rb"\x5d\0\0.{2}\xff{8}", "lzma data, a compression that is not supported"),
    (rb".{257}ustar", "a tar archive inside of another, or a damaged one"),
    (rb"COWD", "a VMware COWD disk, which Glance does not support"),
    (rb"WithoutFreeSpace|WithouFreSpacExt", "a Parallels disk, which is not supported"),
    (rb"Bochs Virtual HD Image", "a Bochs disk, which is not supported"),
    (rb"(?i)(\xef\xbb\xbf)?\s*# disk descriptorfile", "a VMDK descriptor without its data"),
    (rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype\s|html|\?xml)", "a web page or XML text, not an image"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file that it stands for"),
)
_FOREIGN_PATTERNS = tuple((re.compile(pattern, re.DOTALL), what) for pattern, what in _FOREIGN)


class Inspector:
    """Watches an image stream by and says what it is.

    ``declared`` is the format that the list gives, ``operator_word`` what the operator says
    instead: a format, or ``detected`` for whatever the bytes are. Neither can make bytes pass for
    another format. ``feed`` raises as soon as the bytes read show a contradiction, ``finish``
    at the latest: UnsafeImageError (``format-mismatch``, ``unsafe-format``), or
    VerificationError (``empty``).
    """

    def __init__(self, declared: str | None = None, operator_word: str | None = None) -> None:
        # Not needed by runs that read no image, and slow to import.
        from oslo_utils.imageutils import format_inspector  # noqa: PLC0415

        self._errors = (format_inspector.ImageFormatError, AttributeError)
        self._failed: Any = format_inspector.SafetyCheckFailed
        self._helpings = _Helpings()
        self._wrapper: Any = format_inspector.InspectWrapper(cast("Any", self._helpings))
        self._wanted = declared if operator_word is None else operator_word
        self._waiting = bytearray()
        self._head = b""
        self._size_bytes = 0
        self._fed_bytes = 0
        self._decided: tuple[str, int] | None = None

    def feed(self, piece: bytes) -> None:
        """Look at the next piece."""
        self._size_bytes += len(piece)
        if self._decided:
            return
        self._waiting += piece
        while len(self._waiting) >= _HELPING_BYTES and not self._decided:
            if self._only_footer_matters():
                del self._waiting[:-_VMDK_FOOTER_BYTES]
                return
            self._show(bytes(self._waiting[:_HELPING_BYTES]))
            del self._waiting[:_HELPING_BYTES]
            self._decide()

    def finish(self) -> tuple[str, int]:
        """Conclude: Glance's name of the format, and the size of the disk inside in bytes.

        That size is the image's own for raw disks, and 0 where the format does not tell.
        """
        if self._size_bytes == 0:
            raise VerificationError("the image is empty", kind=ErrorKind.EMPTY)
        if self._waiting and not self._decided:
            self._show(bytes(self._waiting))
        if not self._decided:
            self._wrapper.close()
            self._decide()
        if not self._decided:
            raise _undecidable("no inspector came to a conclusion")
        disk_format, virtual_size_bytes = self._decided
        return disk_format, virtual_size_bytes or self._raw_size(disk_format)

    @property
    def likely_format(self) -> str | None:
        """The format by what was fed so far; ``finish`` has the last word. None: not known yet."""
        if self._decided:
            return self._decided[0]
        return _agree("vmdk", self._wanted) if self._head.startswith(_VMDK_MAGIC) else None

    def _raw_size(self, disk_format: str) -> int:
        return self._size_bytes if disk_format == "raw" or disk_format in _BARE else 0

    def _show(self, helping: bytes) -> None:
        if len(self._head) < _HEAD_BYTES:
            self._head += helping[:_HEAD_BYTES]
        self._fed_bytes += len(helping)
        self._helpings.next = helping
        next(self._wrapper)

    def _only_footer_matters(self) -> bool:
        """Whether nothing but the last bytes of the stream can still tell anything.

        Showing every byte to every inspector would cost more than the digests do.
        """
        if self._fed_bytes < _VMDK_HEAD_BYTES or not self._head.startswith(_VMDK_MAGIC):
            return False
        _agree("vmdk", self._wanted)
        return True

    def _decide(self) -> None:
        found = self._found()
        if found is None:
            return
        detected = self._name([str(each) for each in found])
        chosen = next(each for each in found if detected != "iso" or str(each) == "iso")
        self._check_safe(chosen)
        agreed = _agree(detected, self._wanted)
        virtual_size_bytes = 0 if detected == "raw" else int(chosen.virtual_size)
        self._decided = agreed, virtual_size_bytes

    def _found(self) -> list[Any] | None:
        try:
            found: list[Any] | None = self._wrapper.formats
        except self._errors as error:
            # The VMDK inspector trips over text that is almost a descriptor.
            raise _undecidable(str(error)) from error
        return found

    def _name(self, names: list[str]) -> str:
        """Glance's name for what the inspectors found."""
        if set(names) == {"iso", "gpt"}:  # made to boot from a USB stick as well
            return "iso"
        if len(names) > 1:
            raise _unsafe(f"several formats at once ({', '.join(sorted(names))})")
        name = names[0]
        if name in _UNKNOWN_TO_GLANCE:
            raise _unsafe(_UNKNOWN_TO_GLANCE[name])
        if name not in ("raw", "gpt"):
            return name
        for pattern, what in _FOREIGN_PATTERNS:
            if pattern.match(self._head):
                raise _unsafe(what)
        return "raw"

    def _check_safe(self, chosen: Any) -> None:
        try:
            chosen.safety_check()
        except self._failed as error:
            reasons = "; ".join(sorted(str(each) for each in error.failures.values()))
            raise _unsafe(f"an unsafe {chosen} image: {reasons}") from error
        except self._errors as error:
            raise _unsafe(f"a damaged or incomplete {chosen} image: {error}") from error


class _Helpings:
    """What the wrapper takes for its source: it hands on the helping that was put into it."""

    next = b""

    def __next__(self) -> bytes:
        return self.next


def _agree(detected: str, wanted: str | None) -> str:
    """The format to register, when the bytes are ``detected`` and ``wanted`` was asked for."""
    if wanted is None or wanted == DETECTED:
        return detected
    name = wanted.lower()
    name = _SYNONYMS.get(name, name)
    if name == detected or (detected == "raw" and name in _BARE):
        return name
    raise UnsafeImageError(
        f"the image was to be of the format {wanted} and its bytes are {detected}",
        kind=ErrorKind.FORMAT_MISMATCH,
        hint=f"if {detected} is right, say --disk-format {detected}, "
        "or --disk-format detected to take whatever the bytes are",
    )


def _unsafe(what: str) -> UnsafeImageError:
    return UnsafeImageError(f"the image is refused: it is {what}", kind=ErrorKind.UNSAFE_FORMAT)


def _undecidable(reason: str) -> UnsafeImageError:
    return UnsafeImageError(
        f"the image is refused: its format cannot be determined ({reason})",
        kind=ErrorKind.UNSAFE_FORMAT,
    )
