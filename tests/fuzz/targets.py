"""One entry point for everything that reads bytes of strangers, and a corpus for each.

A target is one line of ``TARGETS``: its name, which is also that of its folder under ``corpus``,
and a function of the bytes. Whatever the bytes are, it returns or raises GlancingError.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType

from glancing.decompress import OUTPUT_BYTES, OutputLimit, decompress
from glancing.digests import parse_sums, parse_sums_file
from glancing.errors import GlancingError
from glancing.formats import DETECTED, Inspector
from glancing.imagelist import (
    hepix,
    oci,
    parse_descriptor,
    parse_list,
    parse_metadata,
    parse_need,
)
from glancing.model import (
    MIB,
    Compression,
    ListContext,
    ListFormat,
    ListMark,
    LocalPath,
    Naming,
    Need,
    NeedKind,
    Origin,
    Reading,
    Signature,
    Url,
)
from glancing.signatures import Verifier, read_keyring
from tests.fakes import FakeClock

CORPUS = Path(__file__).parent / "corpus"
KEYRING = CORPUS.parent / "keyring.asc"
SIGNED_TEXT = b"0123  tiny.img\n- dashed\n"
MARKETPLACE = Url("https://marketplace.example.org/metadata")
LIMIT = OutputLimit(max_bytes=2 * MIB, max_ratio=None)
LONGEST_S = 20.0
"""What only an input does that takes time without bound; ordinary ones take milliseconds."""

Target = Callable[[bytes], object]


def _plain_list(data: bytes) -> object:
    origin = Origin(list_name="vmlist")
    return [
        parse_list(data, ListContext(location, origin, MARKETPLACE))
        for location in (LocalPath(Path("/lists/vmlist")), MARKETPLACE)
    ]


def _stratuslab(data: bytes) -> object:
    need = Need(NeedKind.STRATUSLAB, MARKETPLACE, len(data), "metadata", Origin())
    return parse_metadata(data, need)


def _hepix(data: bytes) -> object:
    return hepix.parse(data, origin=Origin())


def _definitions(data: bytes) -> object:
    reading = Reading(format=ListFormat.DEFINITIONS)
    return [
        parse_list(data, ListContext(location, Origin(), MARKETPLACE, reading=reading))
        for location in (LocalPath(Path("/lists/images.yml")), MARKETPLACE)
    ]


def _simplestreams(data: bytes) -> object:
    reading = Reading(format=ListFormat.SIMPLESTREAMS, newest=2)
    return parse_list(data, ListContext(MARKETPLACE, Origin(), MARKETPLACE, reading=reading))


def _oci_manifest(data: bytes) -> object:
    return parse_need(data, oci.need("oci://registry.example.org/a/b:1", Origin()))


def _oci_tags(data: bytes) -> object:
    return parse_need(data, oci.need("oci://registry.example.org/a/b:*", Origin()))


def _hepix_endorsed(data: bytes) -> object:
    """What was signed of a list, and by whom it has to be."""
    signature = Signature(data, "/DC=org/CN=Endorser", "sha256", "/DC=org/CN=CA")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    found = parse_list(
        data, ListContext(MARKETPLACE, Origin(), MARKETPLACE, signature=signature, now=now)
    )
    for spec in found.specs:
        assert ListMark.parse(spec.list_mark), "a list that can be replayed"
    return found


@cache
def _verifier() -> Verifier:
    ring = KEYRING.read_bytes()
    return Verifier(FakeClock(datetime(2027, 1, 1, tzinfo=UTC)), keyring=read_keyring(ring, "ring"))


def _openpgp_message(data: bytes) -> object:
    """Whatever passes is what was signed, and nothing else."""
    found = _verifier().clear_signed(data)
    assert found.content.split() == SIGNED_TEXT.split(), "text that nobody signed"
    return found


def _openpgp_signature(data: bytes) -> object:
    return _verifier().detached(b"a document\n", data)


def _openpgp_keyring(data: bytes) -> object:
    return read_keyring(data, "ring")


def _sums_file(data: bytes) -> object:
    return parse_sums_file(data, "SHA256SUMS", ["tiny.img", "a b.img"])


def _descriptor(data: bytes) -> object:
    return parse_descriptor(
        data.decode("utf-8", "surrogateescape"),
        marketplace=MARKETPLACE,
        base=Path("/lists"),
        trusted=True,
        origin=Origin(),
        naming=Naming.TITLE,
    )


def _sums(data: bytes) -> object:
    return parse_sums(data.decode("utf-8", "surrogateescape"))


def _unpack(compression: Compression, data: bytes) -> object:
    """Pieces are small and their total has its limit, whatever comes in."""
    total = 0
    for piece in decompress(_pieces(data), compression, LIMIT):
        assert 0 < len(piece) <= OUTPUT_BYTES, "a piece without bound"
        total += len(piece)
    assert total <= LIMIT.max_bytes, "output without bound"
    return total


def _format(data: bytes) -> object:
    inspector = Inspector(None, DETECTED)
    for piece in _pieces(data):
        inspector.feed(piece)
    return inspector.finish()


def _pieces(data: bytes, size_bytes: int = 1000) -> Iterator[bytes]:
    for start in range(0, len(data), size_bytes):
        yield data[start : start + size_bytes]


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "plain-list": _plain_list,
        "stratuslab-xml": _stratuslab,
        "stratuslab-json": _stratuslab,
        "hepix-json": _hepix,
        "hepix-signed": _hepix,
        "definitions": _definitions,
        "simplestreams": _simplestreams,
        "oci-manifest": _oci_manifest,
        "oci-tags": _oci_tags,
        "hepix-endorsed": _hepix_endorsed,
        "openpgp-message": _openpgp_message,
        "openpgp-signature": _openpgp_signature,
        "openpgp-keyring": _openpgp_keyring,
        "sums-file": _sums_file,
        "sums-argument": _sums,
        "descriptor": _descriptor,
        "gz": partial(_unpack, Compression.GZIP),
        "bz2": partial(_unpack, Compression.BZIP2),
        "xz": partial(_unpack, Compression.XZ),
        "zstd": partial(_unpack, Compression.ZSTD),
        "zip": partial(_unpack, Compression.ZIP),
        "tar": partial(_unpack, Compression.TAR),
        "tar-gz": partial(_unpack, Compression.GZIP),
        "format": _format,
    }
)


def corpus(name: str) -> list[bytes]:
    """The documents from which a target's variants are made."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def judge(name: str, data: bytes) -> bool:
    """Whether a target took the bytes; AssertionError, or what it raised, where it broke down."""
    started_s = time.process_time()
    try:
        TARGETS[name](data)
    except GlancingError as error:
        f"{error.message}{error.hint}".encode()  # it can be printed
        return False
    finally:
        assert time.process_time() - started_s < LONGEST_S, f"{name} took too long"
    return True
