"""A marketplace of StratusLab's kind: metadata documents about images, served by their IDs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.imagelist_documents import xml
from tests.servers import ImageServer

Checksums = tuple[tuple[str, str], ...]
LABELS: Mapping[str, str] = {
    "MD5": "md5",
    "SHA-1": "sha1",
    "SHA-256": "sha256",
    "SHA-512": "sha512",
}
BASE = "/marketplace/metadata"
NO_FIELDS: Mapping[str, str] = MappingProxyType({})


def image_id(name: str) -> str:
    """A marketplace ID, the same for the same name."""
    return f"{name:_<27}"[:27]


def checksums(image: bytes, *labels: str) -> Checksums:
    """Digests as the marketplace writes them, the seed's two unless others are named."""
    return tuple(
        (label, hashlib.new(LABELS[label], image).hexdigest())
        for label in labels or ("MD5", "SHA-512")
    )


def metadata(
    image: bytes,
    location: str,
    fields: Mapping[str, str],
    *,
    sums: Checksums | None = None,
    form: Callable[..., bytes] = xml,
    around: str = "",
) -> bytes:
    """A document about an image whose uncompressed bytes these are.

    ``fields`` are further ones, or others, by the names that they have in the XML form.
    """
    said = {
        "slterms:location": location,
        "slreq:bytes": str(len(image)),
        "dcterms:compression": "",
        "dcterms:format": "raw",
        **fields,
    }
    return form(said, checksums(image) if sums is None else sums, around)


class Marketplace(ImageServer):
    """Serves metadata below ``BASE`` and the images that it is about."""

    def __enter__(self) -> Marketplace:
        super().__enter__()
        return self

    @property
    def base(self) -> str:
        """What ``-u`` is given."""
        return self.url(BASE)

    def publish(
        self,
        name: str,
        image: bytes,
        version: str = "1",
        *,
        title: str | None = None,
        published: bytes | None = None,
        fields: Mapping[str, str] = NO_FIELDS,
    ) -> str:
        """Offer a version of an image and return its ID; ``published`` are other bytes to serve.

        The title is the name where no other is given.
        """
        identifier = image_id(name)
        path = f"/images/{name}-{version}.img"
        self.files[path] = image if published is None else published
        self.files[f"{BASE}/{identifier}"] = metadata(
            image,
            self.url(path),
            {
                "dcterms:identifier": identifier,
                "dcterms:title": title or name,
                "slterms:version": version,
                **fields,
            },
        )
        return identifier
