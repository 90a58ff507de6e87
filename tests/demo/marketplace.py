"""The publisher's side: a marketplace on the loopback, with metadata and image files.

Metadata is at ``/marketplace/metadata/<ID>``, in XML as the StratusLab marketplace writes it: with
digests and size of the unpacked image, also where the file is compressed. The files lie beside it,
with the validators that a mirror gives.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from xml.sax.saxutils import escape

from tests.servers import ImageServer, Served

METADATA_PATH = "/marketplace/metadata"
FILES_PATH = "/marketplace/images"
ALGORITHMS = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}
LAST_MODIFIED = "Mon, 02 Mar 2026 09:00:00 GMT"

_METADATA = """\
<?xml version="1.0" encoding="UTF-8" standalone="no"?><metadata><rdf:RDF \
xmlns:dcterms="http://purl.org/dc/terms/" \
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" \
xmlns:slreq="http://mp.stratuslab.eu/slreq#" \
xmlns:slterms="http://mp.stratuslab.eu/slterms#" \
xml:base="http://mp.stratuslab.eu/">
    <rdf:Description rdf:about="#{identifier}">
        <dcterms:identifier>{identifier}</dcterms:identifier>
        <slreq:bytes>{size_bytes}</slreq:bytes>
{checksums}
        <slreq:endorsement rdf:parseType="Resource">
            <created xmlns="http://purl.org/dc/terms/">2026-03-02T09:00:00Z</created>
            <endorser xmlns="http://mp.stratuslab.eu/slreq#" rdf:parseType="Resource">
                <email>images@example.org</email>
                <subject>CN=Image Builder,O=Example</subject>
                <issuer>CN=Example CA,O=Example</issuer>
            </endorser>
        </slreq:endorsement>
        <dcterms:type>base</dcterms:type>
        <slterms:kind>machine</slterms:kind>
        <slterms:os>{os}</slterms:os>
        <slterms:os-version>{os_version}</slterms:os-version>
        <slterms:os-arch>x86_64</slterms:os-arch>
        <slterms:version>{version}</slterms:version>
        <dcterms:compression>{compression}</dcterms:compression>
        <slterms:location>{location}</slterms:location>
        <dcterms:format>{disk_format}</dcterms:format>
        <dcterms:creator>Example</dcterms:creator>
        <dcterms:created>2026-03-02T09:00:00Z</dcterms:created>
        <dcterms:valid>2036-03-02T09:00:00Z</dcterms:valid>
        <dcterms:title>{title}</dcterms:title>
        <dcterms:alternative/>
        <dcterms:description>An image of the demo</dcterms:description>
        <slterms:hypervisor>kvm</slterms:hypervisor>
        <dcterms:publisher>StratusLab</dcterms:publisher>
    </rdf:Description>
</rdf:RDF></metadata>
"""
_CHECKSUM = """\
        <slreq:checksum rdf:parseType="Resource">
            <slreq:algorithm>{algorithm}</slreq:algorithm>
            <slreq:value>{value}</slreq:value>
        </slreq:checksum>"""


@dataclass(frozen=True, slots=True)
class Release:
    """One version of one image, as its publisher describes it; ``data`` is the image unpacked."""

    identifier: str
    title: str
    os: str
    os_version: str
    version: str
    disk_format: str
    data: bytes
    gzipped: bool = False

    @property
    def file_name(self) -> str:
        """The name of the published file."""
        suffix = f"{self.disk_format}.gz" if self.gzipped else self.disk_format
        return f"{self.os}-{self.os_version}-{self.version}.{suffix}"

    @property
    def published(self) -> bytes:
        """The published file."""
        return gzip.compress(self.data, mtime=0) if self.gzipped else self.data


class Marketplace:
    """A marketplace and its file server, from ``with`` to its end; what it publishes may change."""

    def __init__(self) -> None:
        self._server = ImageServer({})

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.__exit__(kind, error, trace)

    @property
    def metadata_url(self) -> str:
        """The base URL of the metadata, for ``--url``."""
        return self._server.url(METADATA_PATH)

    def publish(self, release: Release, *, damaged: bool = False) -> None:
        """Offer a version; of a damaged one the served file differs from the metadata in a byte."""
        data = release.published
        location = self.publish_file(release.file_name, _damaged(data) if damaged else data)
        document = metadata(release, location).encode()
        self._server.files[f"{METADATA_PATH}/{release.identifier}"] = _served(document)

    def publish_file(self, name: str, data: bytes) -> str:
        """Offer a file that no metadata speaks of; its URL."""
        path = f"{FILES_PATH}/{name}"
        self._server.files[path] = _served(data)
        return self._server.url(path)


def metadata(release: Release, location: str) -> str:
    """The metadata document of a release."""
    texts = {
        "identifier": release.identifier,
        "os": release.os,
        "os_version": release.os_version,
        "version": release.version,
        "compression": "gz" if release.gzipped else "none",
        "location": location,
        "disk_format": release.disk_format,
        "title": release.title,
    }
    return _METADATA.format(
        **{name: escape(text) for name, text in texts.items()},
        size_bytes=len(release.data),
        checksums="\n".join(_checksums(release.data)),
    )


def _checksums(data: bytes) -> list[str]:
    return [
        _CHECKSUM.format(algorithm=label, value=hashlib.new(name, data).hexdigest())
        for label, name in ALGORITHMS.items()
    ]


def _served(data: bytes) -> Served:
    etag = f'"{hashlib.md5(data).hexdigest()}"'
    return Served(data, etag=etag, headers={"last_modified": LAST_MODIFIED})


def _damaged(data: bytes) -> bytes:
    """The same number of bytes, one of them in the middle changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
