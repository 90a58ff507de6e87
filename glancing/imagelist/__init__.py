"""Image lists and metadata: bytes of a document in, wanted images and problems out.

One module per format. Nothing here opens a file or an address: where a further document is needed,
the parser says so (a ``Need``), its reader fetches it and calls again with what it got. Any bytes
whatever end in a result or in an ImageListError, never in another exception.
"""

from __future__ import annotations

import re
from dataclasses import replace

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import definitions, endorsed, folder, hepix, oci, plain, simplestreams
from glancing.imagelist._fields import file_path, image_name
from glancing.imagelist._text import UTF8_BOM, clipped, text_bytes
from glancing.imagelist.descriptor import MarketplaceId, parse_descriptor
from glancing.imagelist.hepix import HepixList
from glancing.imagelist.plain import MAX_SUMS_BYTES, with_keys
from glancing.imagelist.stratuslab import parse_metadata
from glancing.model import ListContext, ListFormat, Need, NeedKind, Parsed, Spec

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
    "is_stream",
    "oci",
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
    match context.reading.format or recognised(data, context):
        case ListFormat.PLAIN:
            found = plain.parse(data, context)
        case ListFormat.HEPIX:
            found = endorsed.parse(data, context)
        case ListFormat.SIMPLESTREAMS:
            found = simplestreams.parse(data, context)
        case ListFormat.DEFINITIONS:
            found = definitions.parse(data, context)
    return replace(found, signed=context.signature is not None)


def parse_need(data: bytes, need: Need) -> Parsed:
    """Read a document that was needed; ImageListError when it is not what it should be."""
    match need.kind:
        case NeedKind.STRATUSLAB:
            return _all_described(need, Parsed(specs=(parse_metadata(data, need),)))
        case NeedKind.OCI_MANIFEST:
            return _all_described(need, oci.parse_manifest(data, need))
        case NeedKind.OCI_TAGS:
            return oci.parse_tags(data, need)
        case _:
            raise ValueError(f"no parser reads {need.kind} by itself")


def _all_described(need: Need, found: Parsed) -> Parsed:
    if need.spec is None:
        return found
    return replace(found, specs=tuple(_described(need.spec, each) for each in found.specs))


def _described(spec: Spec, found: Spec) -> Spec:
    """An image as a list describes it, with the addresses and digests that its metadata has."""
    expected = replace(
        found.expected,
        either=found.expected.either + spec.expected.either,
        disk_format=spec.expected.disk_format or found.expected.disk_format,
        over_http=found.expected.over_http | spec.expected.over_http,
    )
    return replace(spec, sources=found.sources, expected=expected, mpid=found.mpid)


_MIME = re.compile(rb"\A(?i:mime-version|content-type):")
_MARKS: tuple[tuple[re.Pattern[bytes], ListFormat | str], ...] = (
    (re.compile(rb"\A[{\[].*hv:imagelist", re.DOTALL), ListFormat.HEPIX),
    (re.compile(rb"\A[{\[].*(?:products|index):1\.0", re.DOTALL), ListFormat.SIMPLESTREAMS),
    (re.compile(rb"\A[{\[]"), "a JSON document"),
    (re.compile(rb"\A(?i:<!doctype html|<html)"), "a web page"),
    (re.compile(rb"\A<"), "an XML document"),
    (_MIME, ListFormat.HEPIX),
    (re.compile(rb"\A-----BEGIN PGP"), "a PGP-signed document"),
    (re.compile(rb"^images:(?:\s|\Z)", re.MULTILINE), ListFormat.DEFINITIONS),
    (re.compile(rb"^---[ \t\r]*$", re.MULTILINE), "YAML without images"),
    (re.compile(rb"^[0-9A-Fa-f]{32,128} [ *]\S", re.MULTILINE), "a checksum file"),
    (re.compile(rb"^[A-Z0-9]+ \([^)\n]+\) = [0-9a-f]+", re.MULTILINE), "a checksum file"),
)


def is_mime_message(data: bytes) -> bool:
    """Whether a document begins as the S/MIME messages do that signed lists come in."""
    return _MIME.match(data.removeprefix(UTF8_BOM).lstrip()[:_SNIFFED_BYTES]) is not None


def is_stream(data: bytes, context: ListContext) -> bool:
    """Whether a document is of simplestreams, whose mirrors sign each one."""
    found = context.reading.format or recognised(data, context)
    return found is ListFormat.SIMPLESTREAMS


def recognised(data: bytes, context: ListContext) -> ListFormat:
    """The format of a list by its first bytes; ImageListError when it is one that is not read."""
    what = clipped(context.origin.list_name or "the list")
    # JSON may say its format at the end.
    ends = (
        data if len(data) <= 2 * _SNIFFED_BYTES else data[:_SNIFFED_BYTES] + data[-_SNIFFED_BYTES:]
    )
    start = text_bytes(ends, what, ErrorKind.BAD_LIST).lstrip()
    found = next((found for mark, found in _MARKS if mark.search(start)), ListFormat.PLAIN)
    if isinstance(found, ListFormat):
        return found
    raise ImageListError(
        f"{what} looks like {found}",
        hint="--format says what a list is where its content does not",
    )
