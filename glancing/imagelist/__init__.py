"""Image lists and metadata: bytes of a document in, wanted images and problems out.

One module per format. Nothing here opens a file or an address: where a further document is needed,
the parser says so (a ``Need``), its reader fetches it and calls again with what it got. Any bytes
whatever end in a result or in an ImageListError, never in another exception.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import assert_never

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import hepix, plain
from glancing.imagelist._fields import image_name
from glancing.imagelist._text import clipped, text_bytes
from glancing.imagelist.descriptor import MarketplaceId, parse_descriptor
from glancing.imagelist.hepix import HepixList
from glancing.imagelist.stratuslab import parse_metadata
from glancing.model import Naming, Need, NeedKind, Origin, Parsed, Url

__all__ = [
    "MAX_LIST_BYTES",
    "HepixList",
    "MarketplaceId",
    "hepix",
    "image_name",
    "parse_descriptor",
    "parse_list",
    "parse_metadata",
    "parse_need",
]

MAX_LIST_BYTES = hepix.MAX_LIST_BYTES
"""How much of a list, in any format, may be read."""

_SNIFFED_BYTES = 64 * 1024


def parse_list(
    data: bytes,
    *,
    marketplace: Url,
    base: Path | None,
    trusted: bool,
    origin: Origin,
    naming: Naming = Naming.TITLE,
) -> Parsed:
    """Read an image list for ``sync``.

    ``base`` is the folder of a local list, None for one that was fetched; ``trusted`` tells that
    the list is local; ``origin`` gives its position and name. ImageListError when it is no text or
    of a format that is not read here.
    """
    other = _other_format(data, origin)
    if other is not None:
        raise ImageListError(
            f"{origin.list_name or 'the list'} looks like {other}",
            hint="sync reads plain lists so far: one ID, URL or path on each line",
        )
    return plain.parse(
        data, marketplace=marketplace, base=base, trusted=trusted, origin=origin, naming=naming
    )


def parse_need(data: bytes, need: Need) -> Parsed:
    """Read a document that was needed; ImageListError when it is not what it should be."""
    match need.kind:
        case NeedKind.STRATUSLAB:
            return Parsed(specs=(parse_metadata(data, need),))
        case _:
            assert_never(need.kind)


_MARKS = (
    (re.compile(rb"\A[{\[].*hv:imagelist", re.DOTALL), "a HEPiX image list"),
    (re.compile(rb"\A[{\[].*(?:products|index):1\.0", re.DOTALL), "a simplestreams index"),
    (re.compile(rb"\A[{\[]"), "a JSON document"),
    (re.compile(rb"\A(?i:<!doctype html|<html)"), "a web page"),
    (re.compile(rb"\A<"), "an XML document"),
    (re.compile(rb"\A(?i:mime-version|content-type):"), "a signed (S/MIME) HEPiX image list"),
    (re.compile(rb"\A-----BEGIN PGP"), "a PGP-signed document"),
    (
        re.compile(rb"^(?:---|images:)[ \t\r]*$", re.MULTILINE),
        "openstack-image-manager definitions",
    ),
    (re.compile(rb"^[0-9A-Fa-f]{32,128} [ *]\S", re.MULTILINE), "a checksum file"),
    (re.compile(rb"^[A-Z0-9]+ \([^)\n]+\) = [0-9a-f]+", re.MULTILINE), "a checksum file"),
)


def _other_format(data: bytes, origin: Origin) -> str | None:
    """What a document looks like, when it does not look like a plain list."""
    what = clipped(origin.list_name or "the list")
    start = text_bytes(data[:_SNIFFED_BYTES], what, ErrorKind.BAD_LIST).lstrip()
    return next((name for mark, name in _MARKS if mark.search(start)), None)
