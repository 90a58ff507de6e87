"""Publishers: images with versions and digests, the list that names them, sources that go wrong."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from glancing.errors import DownloadError
from glancing.files import LocalSources
from glancing.model import LocalPath, Location, SourceStream, Url, Validators
from tests.fakes import FakeSource, FakeSources
from tests.imagelist_documents import FIELDS, xml

LIST = LocalPath(Path("/lists/vmlist"))
MARKETPLACE = Url("https://marketplace.example.org/metadata")

#: Entries that are marketplace IDs, with metadata; and one that is a bare URL, without any.
IDS = tuple(letter * 27 for letter in "ABC")
BARE = "https://images.example.org/omega.img"
KEYS = (*IDS, BARE)
NAMES = ("alpha", "beta", "gamma", "alpha_old", "omega")

Trouble = Literal["none", "corrupt", "cut", "silent cut", "gone", "other size"]


def content(number: int) -> bytes:
    """The whole image of a number; all are of the same size."""
    return b"content %06d\n" % number * 120


def sha512(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Publication:
    """What a publisher says of one image at one time, and what its source gives."""

    title: str
    version: int
    number: int
    packed: bool = False
    trouble: Trouble = "none"

    @property
    def image(self) -> bytes:
        return content(self.number)

    @property
    def file(self) -> bytes:
        return gzip.compress(self.image, mtime=0) if self.packed else self.image


class Market(FakeSources):
    """All publications, served as documents and images; spools are read from where they lie."""

    def __init__(self) -> None:
        super().__init__()
        self.published: dict[str, Publication] = {}
        self.listed: list[str] = []
        self.promised: list[tuple[str, str]] = []
        self._local = LocalSources()
        for index, key in enumerate(KEYS[:2]):
            self.publish(key, Publication(NAMES[index], version=1, number=index))

    def publish(self, key: str, publication: Publication) -> None:
        """Let an entry be this from now on."""
        if key == BARE:
            publication = replace(publication, title="omega", packed=False)
        self.published[key] = publication
        self.promised.append((key, sha512(publication.image)))
        if key not in self.listed:
            self.listed.append(key)
        self._serve()

    def change(self, key: str, trouble: Trouble) -> None:
        """Let the source of an entry go wrong, or well again."""
        self.published[key] = replace(self.published[key], trouble=trouble)
        self._serve()

    def heal(self) -> None:
        for key in self.published:
            self.change(key, "none")

    def withdraw(self, key: str) -> None:
        """Take an entry off the list."""
        self.listed.remove(key)
        self._serve()

    def wanted(self) -> dict[str, Publication]:
        return {key: self.published[key] for key in self.listed}

    def open(self, location: Location) -> AbstractContextManager[SourceStream]:
        if isinstance(location, LocalPath) and location != LIST:
            return self._local.open(location)
        return super().open(location)

    def _serve(self) -> None:
        self.put(LIST, "\n".join(self.listed).encode())
        for key, publication in self.published.items():
            if key != BARE:
                self.put(Url(f"{MARKETPLACE.full}/{key}"), metadata(key, publication))
            self.put(source_of(key), _served(publication))


def source_of(key: str) -> Url:
    return Url(key if key == BARE else f"https://images.example.org/{key}.img")


def metadata(key: str, publication: Publication) -> bytes:
    """The marketplace's document of a publication."""
    data = publication.image
    fields: Mapping[str, str] = {
        **FIELDS,
        "dcterms:identifier": key,
        "dcterms:title": publication.title,
        "dcterms:format": "raw",
        "dcterms:compression": "gz" if publication.packed else "",
        "slreq:bytes": str(len(data)),
        "slterms:version": str(publication.version),
        "slterms:location": source_of(key).full,
    }
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return xml(fields, (("MD5", md5), ("SHA-512", sha512(data))))


def _served(publication: Publication) -> FakeSource:
    data = publication.file
    whole = _source(data)
    match publication.trouble:
        case "none":
            return whole
        case "corrupt":
            return _source(replace(publication, number=publication.number + 500_000).file)
        case "cut":
            error = DownloadError("the line broke", transient=True)
            return replace(whole, break_after=len(data) - 1, error=error)
        case "silent cut":
            return replace(whole, break_after=len(data) - 1)
        case "other size":
            return _source(data + b"more")
        case "gone":
            return replace(whole, refuse=DownloadError("no such host"))


def _source(data: bytes) -> FakeSource:
    """A source as a good server has it: another state of it has another ETag."""
    return FakeSource(
        data, Validators(etag=sha512(data)[:20], size_bytes=len(data)), piece_bytes=700
    )
