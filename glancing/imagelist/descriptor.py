"""How an image is named on the command line and in a plain list: ID, URL, file, metadata file.

A descriptor becomes a spec at once when it is the image's own address, or a need when it is the
address of metadata. What stands in a document that was fetched never names local files (fault 15).
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

from glancing.errors import ImageListError
from glancing.imagelist import oci
from glancing.imagelist._fields import (
    file_path,
    http_url,
    image_name,
    name_of_url,
    scheme_of,
    shown,
)
from glancing.imagelist._json import MAX_JSON_BYTES
from glancing.imagelist._text import has_control
from glancing.imagelist.stratuslab import MAX_XML_BYTES
from glancing.model import LocalPath, Naming, Need, NeedKind, Origin, Spec, Url

MAX_DEPTH = 3
"""How many lists may lead to another."""

MAX_DESCRIPTOR_CHARACTERS = 8000
_METADATA_SUFFIXES = frozenset({".xml", ".json"})
_ID = re.compile(r"[A-Za-z0-9_-]{27}")


@dataclass(frozen=True, slots=True)
class MarketplaceId:
    """A StratusLab marketplace ID: 27 characters of the base64url alphabet (RFC 4648, section 5).

    It may begin with ``-`` and is still no option.
    """

    value: str

    @classmethod
    def parse(cls, text: str) -> MarketplaceId | None:
        """The ID that a text is; None when it is none."""
        return cls(text) if _ID.fullmatch(text) else None

    def metadata_url(self, marketplace: Url) -> Url:
        """Where its metadata is: ``<marketplace base>/<ID>``."""
        parts = marketplace.parts
        return Url(parts._replace(path=f"{parts.path.rstrip('/')}/{self.value}").geturl())


def parse_descriptor(
    text: str,
    *,
    marketplace: Url,
    base: Path | None,
    trusted: bool,
    origin: Origin,
    naming: Naming,
    name: str | None = None,
) -> Spec | Need:
    """What a descriptor names.

    ``base`` is the folder that relative paths start from: the list's, or the working directory.
    ``trusted`` tells whether these are the operator's own words, which may name local files.
    ``name`` is the image's name where the operator gave one; metadata is named by ``naming``.
    ImageListError when the descriptor is none or asks for something that is refused.
    """
    _refuse_unusable(text)
    marketplace_id = MarketplaceId.parse(text)
    if marketplace_id is not None:
        url = marketplace_id.metadata_url(marketplace)
        return Need(NeedKind.STRATUSLAB, url, MAX_XML_BYTES, text, origin, mpid=text, naming=naming)
    scheme = scheme_of(text)
    if scheme == "oci":
        return oci.need(text, origin)
    if scheme not in (None, "file"):
        return _from_url(http_url(text), origin, naming, name)
    if not trusted:
        raise ImageListError(
            f"{shown(text)} is a local path, and this list is not local",
            hint="lists that are fetched may only name http and https addresses and IDs",
        )
    path = file_path(text) if scheme == "file" else text
    _refuse_unusable(path)
    return _from_path(path, base, origin, naming, name)


def _refuse_unusable(text: str) -> None:
    if not text.strip():
        raise ImageListError("an empty text names no image")
    if len(text) > MAX_DESCRIPTOR_CHARACTERS:
        raise ImageListError(f"{shown(text)} is too long to name an image")
    if has_control(text):
        raise ImageListError(f"{shown(text)} has control characters or is not UTF-8")


def _from_url(url: Url, origin: Origin, naming: Naming, name: str | None) -> Spec | Need:
    public = url.public
    suffix = posixpath.splitext(url.parts.path)[1].lower()
    if suffix in _METADATA_SUFFIXES:
        return Need(NeedKind.STRATUSLAB, url, _max_bytes(suffix), public, origin, naming=naming)
    return Spec(
        name=name or name_of_url(public),
        identity=public,
        descriptor=public,
        origin=origin,
        sources=(url,),
    )


def _from_path(
    text: str, base: Path | None, origin: Origin, naming: Naming, name: str | None
) -> Spec | Need:
    path = Path(text) if base is None else base / text
    suffix = path.suffix.lower()
    if suffix in _METADATA_SUFFIXES:
        limit = _max_bytes(suffix)
        return Need(
            NeedKind.STRATUSLAB, LocalPath(path), limit, text, origin, trusted=True, naming=naming
        )
    return Spec(
        name=name or image_name("" if text.endswith("/") else path.stem, text),
        identity=posixpath.normpath(path),
        descriptor=text,
        origin=origin,
        sources=(LocalPath(path),),
    )


def _max_bytes(suffix: str) -> int:
    return MAX_JSON_BYTES if suffix == ".json" else MAX_XML_BYTES
