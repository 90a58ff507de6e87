"""Image lists and metadata: bytes of a document in, wanted images and problems out.

One module per format. Nothing here opens a file or an address: where a further document is needed,
the parser says so (a ``Need``), its reader fetches it and calls again with what it got. Any bytes
whatever end in a result or in an ImageListError, never in another exception.
"""

from __future__ import annotations

import re
from dataclasses import replace

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import endorsed, folder, hepix, plain
from glancing.imagelist._fields import file_path, image_name
from glancing.imagelist._text import UTF8_BOM, clipped, text_bytes
from glancing.imagelist.descriptor import MarketplaceId, parse_descriptor
from glancing.imagelist.hepix import HepixList
from glancing.imagelist.plain import MAX_SUMS_BYTES, with_keys
from glancing.imagelist.stratuslab import parse_metadata
from glancing.model import ListContext, ListFormat, Need, NeedKind, Parsed

__all__ = [
    "MAX_LIST_BYTES",
    "MAX_SUMS_BYTES",
    "HepixList",
    "MarketplaceId",
    "file_path",
    "folder",
    "hepix",
    "image_name",
    "is_mime_message",
    "parse_descriptor",
    "parse_list",
    "parse_metadata",
    "parse_need",
    "recognised",
    "with_keys",
]

MAX_LIST_BYTES = hepix.MAX_LIST_BYTES
"""How much of a list, in any format, may be read."""

_SNIFFED_BYTES = 64 * 1024


def parse_list(data: bytes, context: ListContext) -> Parsed:
    """Read an image list for ``sync``.

    ImageListError when it is no text, of a format that is not read here, or not of the format that
    the operator says it is.
    """
    match context.format or recognised(data, context):
        case ListFormat.PLAIN:
            return replace(plain.parse(data, context), signed=context.signature is not None)
        case ListFormat.HEPIX:
            return endorsed.parse(data, context)


def parse_need(data: bytes, need: Need) -> Parsed:
    """Read a document that was needed; ImageListError when it is not what it should be."""
    match need.kind:
        case NeedKind.STRATUSLAB:
            return Parsed(specs=(parse_metadata(data, need),))
        case _:
            raise ValueError(f"no parser reads {need.kind} by itself")


_MIME = re.compile(rb"\A(?i:mime-version|content-type):")
_MARKS: tuple[tuple[re.Pattern[bytes], ListFormat | str], ...] = (
    (re.compile(rb"\A[{\[].*hv:imagelist", re.DOTALL), ListFormat.HEPIX),
    (re.compile(rb"\A[{\[].*(?:products|index):1\.0", re.DOTALL), "a simplestreams index"),
    (re.compile(rb"\A[{\[]"), "a JSON document"),
    (re.compile(rb"\A(?i:<!doctype html|<html)"), "a web page"),
    (re.compile(rb"\A<"), "an XML document"),
    (_MIME, ListFormat.HEPIX),
    (re.compile(rb"\A-----BEGIN PGP"), "a PGP-signed document"),
    (
        re.compile(rb"^(?:---|images:)[ \t\r]*$", re.MULTILINE),
        "openstack-image-manager definitions",
    ),
    (re.compile(rb"^[0-9A-Fa-f]{32,128} [ *]\S", re.MULTILINE), "a checksum file"),
    (re.compile(rb"^[A-Z0-9]+ \([^)\n]+\) = [0-9a-f]+", re.MULTILINE), "a checksum file"),
)


def is_mime_message(data: bytes) -> bool:
    """Whether a document begins as the S/MIME messages do that signed lists come in."""
    return _MIME.match(data.removeprefix(UTF8_BOM).lstrip()[:_SNIFFED_BYTES]) is not None


def recognised(data: bytes, context: ListContext) -> ListFormat:
    """The format of a list by its first bytes; ImageListError when it is one that is not read."""
    what = clipped(context.origin.list_name or "the list")
    start = text_bytes(data[:_SNIFFED_BYTES], what, ErrorKind.BAD_LIST).lstrip()
    found = next((found for mark, found in _MARKS if mark.search(start)), ListFormat.PLAIN)
    if isinstance(found, ListFormat):
        return found
    raise ImageListError(
        f"{what} looks like {found}",
        hint="--format says what a list is where its content does not",
    )
