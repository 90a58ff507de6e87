"""The descriptor and the manifest of an OVA (DSP0243, Open Virtualization Format)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glancing.errors import ErrorKind, VerificationError
from glancing.model import MIB

if TYPE_CHECKING:
    from hashlib import _Hash
    from xml.etree.ElementTree import Element

MAX_OVF_BYTES = MIB

_ALGORITHMS = ("sha1", "sha256", "sha512")  # those of OVF 1 and 2, and what others write
_LINE = re.compile(r"(SHA1|SHA256|SHA512)\s*\(([^()]+)\)\s*=\s*([0-9A-Fa-f]+)", re.IGNORECASE)
_PLAIN_NAME = re.compile(r"(?:file:)?(?:\./)?([^/\\:%]+)")


def disk_of(descriptor: bytes) -> tuple[str, frozenset[str]]:
    """The name of the one disk, and those of the other files that the descriptor refers to.

    Raises VerificationError when it has not exactly one disk with data, or one that is compressed,
    in chunks or elsewhere.
    """
    root = _root(descriptor)
    files = {_attribute(file, "id"): file for file in _all(root, "File")}
    disks = [_attribute(disk, "fileRef") for disk in _all(root, "Disk")]
    wanted = [reference for reference in disks if reference]  # without data, a disk is only a size
    if len(wanted) != 1:
        raise _refused(f"its descriptor names {len(wanted)} disks, not one")
    if wanted[0] not in files:
        raise _refused("its descriptor names a disk and no file for it")
    file = files[wanted[0]]
    if _attribute(file, "compression") not in ("", "identity"):
        raise _refused("its disk is compressed inside of the archive")
    if _attribute(file, "chunkSize"):
        raise _refused("its disk is in several chunks")
    others = (other for reference, other in files.items() if reference != wanted[0])
    return _name(file), frozenset(_name(other) for other in others)


def _root(descriptor: bytes) -> Element:
    from defusedxml import DefusedXmlException, ElementTree  # noqa: PLC0415

    try:
        root: Element = ElementTree.fromstring(descriptor, forbid_dtd=True)
    except DefusedXmlException:
        raise _refused("its descriptor has a document type") from None
    except (ElementTree.ParseError, ValueError, LookupError):
        raise _refused("its descriptor is no proper XML") from None
    if _local(root.tag) != "Envelope":
        raise _refused("its descriptor is no OVF envelope")
    return root


def _all(root: Element, name: str) -> Iterator[Element]:
    return (element for element in root.iter() if _local(element.tag) == name)


def _local(tag: object) -> str:
    """A name without its namespace, which differs from version to version."""
    return str(tag).rpartition("}")[2]


def _attribute(element: Element, name: str) -> str:
    return next((value for key, value in element.attrib.items() if _local(key) == name), "")


def _name(file: Element) -> str:
    found = _PLAIN_NAME.fullmatch(_attribute(file, "href"))
    if found is None:
        raise _refused("its descriptor names a file that is not in the archive")
    return found[1]


def _refused(reason: str) -> VerificationError:
    return VerificationError(f"the OVA is not usable: {reason}", kind=ErrorKind.BAD_COMPRESSION)


class Witness:
    """The digests of the files of an archive that went by."""

    def __init__(self) -> None:
        self._hashes: dict[str, dict[str, _Hash]] = {}

    def see(self, name: str, content: bytes) -> None:
        """A whole file."""
        self.hear(name, content)

    def hear(self, name: str, piece: bytes) -> None:
        """A piece of a file."""
        if name not in self._hashes:
            new = {algorithm: hashlib.new(algorithm) for algorithm in _ALGORITHMS}
            self._hashes[name] = new
        for running in self._hashes[name].values():
            running.update(piece)

    def digests(self) -> Mapping[str, Mapping[str, str]]:
        """By name and algorithm, in hexadecimal digits."""
        return {
            name: {algorithm: running.hexdigest() for algorithm, running in hashes.items()}
            for name, hashes in self._hashes.items()
        }


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the manifest says: digests by the names of files (DSP0243, section 5.1)."""

    lines: tuple[tuple[str, str, str], ...]

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """Read it; raises VerificationError for lines that are none."""
        lines = []
        for line in content.decode("utf-8", "replace").splitlines():
            found = _LINE.fullmatch(line.strip())
            if found is None and line.strip():
                raise _refused("its manifest cannot be read")
            if found is not None:
                lines.append((found[1].lower(), found[2], found[3].lower()))
        return cls(tuple(lines))

    def check(self, witness: Witness) -> None:
        """Compare; every file that went by has to be listed, and to be what is listed."""
        seen = witness.digests()
        for algorithm, name, value in self.lines:
            if name in seen and seen[name][algorithm] != value:
                raise VerificationError(
                    f"wrong {algorithm} of {name[:100]!a}: the OVA's manifest says {value}",
                    kind=ErrorKind.WRONG_DIGEST,
                )
        missing = set(seen) - {name for _, name, _ in self.lines}
        if missing:
            raise _refused(f"its manifest does not list {min(missing)[:100]!a}")
