"""Images in OCI registries, as EGI publishes them: one manifest, one layer that is the disk.

The layer's digest is the published one. A reference is ``oci://registry/repository:tag`` or
``…@sha256:…`` (the grammar is that of the OCI distribution specification, section "Pull"); a tag
with ``*``, ``?`` or ``[`` is a pattern, and stands for all tags that it fits.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from urllib.parse import quote

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import _fields, _json
from glancing.imagelist._text import clipped, has_control
from glancing.model import MIB, Expected, Need, NeedKind, Origin, Parsed, Spec, Url

MAX_MANIFEST_BYTES = 4 * MIB
"""What the distribution specification asks registries to accept at least."""

_BAD = ErrorKind.BAD_METADATA
_TAGS_PER_PAGE = 1000
_MAX_TAGS = 20_000
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?i:oci)://(?P<host>{_HOST})/(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_*?\[][A-Za-z0-9._*?\[\]!-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_GLANCE = "org.openstack.glance."
_EGI = "eu.egi.cloud."
_NOT_PROPERTIES = frozenset(
    {"disk_format", "container_format", "name", "id", "visibility", "owner"}
)
_PROPERTY = re.compile(r"[A-Za-z0-9_.:-]{1,200}")


@dataclass(frozen=True, slots=True)
class Reference:
    """One image of a registry, or with a pattern as its tag, several."""

    host: str
    repository: str
    tag: str
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``oci://…``; the tag is ``latest`` where there is none. ImageListError."""
        found = _REFERENCE.fullmatch(text)
        if found is None or (found["tag"] and found["digest"]):
            raise ImageListError(
                f"{clipped(text)} is no reference to an OCI artifact",
                hint="oci://registry/repository:tag or oci://registry/repository@sha256:…",
            )
        digest = found["digest"]
        tag = found["tag"] or ("" if digest else "latest")
        return cls(found["host"], found["repository"], tag, digest)

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for several images."""
        return any(sign in self.tag for sign in "*?[")

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"oci://{self.host}/{self.repository}{end}"

    @property
    def manifest(self) -> Url:
        """Where its manifest is."""
        return self._url(f"manifests/{quote(self.digest or self.tag, safe=':')}")

    def blob(self, digest: str) -> Url:
        """Where a layer is."""
        return self._url(f"blobs/{digest}")

    def tags(self, last: str = "") -> Url:
        """Where the tags behind ``last`` are told."""
        after = f"&last={quote(last)}" if last else ""
        return self._url(f"tags/list?n={_TAGS_PER_PAGE}{after}")

    def _url(self, path: str) -> Url:
        return Url(f"https://{self.host}/v2/{self.repository}/{path}")


def need(text: str, origin: Origin) -> Need:
    """What has to be read for a reference; ImageListError when it is none."""
    reference = Reference.parse(text)
    kind = NeedKind.OCI_TAGS if reference.is_pattern else NeedKind.OCI_MANIFEST
    location = reference.tags() if reference.is_pattern else reference.manifest
    return Need(kind, location, MAX_MANIFEST_BYTES, str(reference), origin)


# --- tags -----------------------------------------------------------------------------------------


def parse_tags(data: bytes, asked: Need) -> Parsed:
    """The images of one page of tags, and the next page, until one tells nothing new."""
    reference = Reference.parse(asked.descriptor)
    what = f"the list of tags of {asked.descriptor}"
    document = _json.as_object(_json.load(data, what, _BAD), what, _BAD)
    tags = document.get("tags") or []
    names = [tag for tag in _json.as_array(tags, what, _BAD) if isinstance(tag, str)]
    new = list(dict.fromkeys(name for name in names if name not in asked.seen))
    seen = asked.seen | frozenset(new)
    if len(seen) > _MAX_TAGS:
        raise ImageListError(f"{what} has more than {_MAX_TAGS} tags", kind=_BAD)
    needs = tuple(
        replace(need(str(replace(reference, tag=tag)), asked.origin), keys=asked.keys)
        for tag in new
        if fnmatchcase(tag, reference.tag)
        and _REFERENCE.fullmatch(str(replace(reference, tag=tag)))
    )
    if new:
        page = replace(asked, location=reference.tags(last=new[-1]), seen=seen)
        return Parsed(needs=(*needs, page))
    return Parsed(needs=needs)


# --- manifests ------------------------------------------------------------------------------------


def parse_manifest(data: bytes, asked: Need) -> Parsed:
    """The image of a manifest (OCI image specification, "Image Manifest").

    ImageListError of kind ``bad-metadata`` when it has not exactly one disk, ``wrong-digest`` when
    it is not the manifest whose digest the reference gives.
    """
    reference = Reference.parse(asked.descriptor)
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if reference.digest not in (None, found):
        raise ImageListError(
            f"the manifest of {asked.descriptor} is another: {found}", kind=ErrorKind.WRONG_DIGEST
        )
    what = f"the manifest of {asked.descriptor}"
    manifest = _json.as_object(_json.load(data, what, _BAD), what, _BAD)
    if manifest.get("mediaType") in _INDEXES or "manifests" in manifest:
        raise ImageListError(
            f"{what} is an index of several", kind=_BAD, hint="name one of them by its @sha256:…"
        )
    return Parsed(specs=(_spec(manifest, reference, asked),))


def _spec(manifest: Mapping[str, object], reference: Reference, asked: Need) -> Spec:
    what = f"the manifest of {asked.descriptor}"
    layer = _disk(manifest, what)
    label, _, value = str(layer.get("digest", "")).partition(":")
    digest = _fields.digests([(label, value)], _BAD)
    if not digest:
        raise ImageListError(f"the disk of {what} has no digest", kind=_BAD)
    notes = {**_annotations(manifest, what), **_annotations(layer, what)}
    disk_format, compression = _fields.format_and_compression(
        notes.get(f"{_GLANCE}disk_format", "")
    )
    name = "-".join(filter(None, (reference.repository.rpartition("/")[2], reference.tag)))
    return Spec(
        name=_fields.image_name(name, asked.descriptor, _BAD),
        identity=str(reference),
        descriptor=asked.descriptor,
        origin=asked.origin,
        sources=(reference.blob(str(layer["digest"])),),
        expected=Expected(
            published=digest,
            published_size_bytes=_size(layer, what),
            compression=compression,
            disk_format=disk_format,
        ),
        properties=MappingProxyType(dict(_properties(notes))),
    )


def _disk(manifest: Mapping[str, object], what: str) -> Mapping[str, object]:
    """The one layer that is a disk; the only layer is taken for one, whatever it calls itself."""
    layers = [
        _json.as_object(layer, f"a layer of {what}", _BAD)
        for layer in _json.as_array(manifest.get("layers"), f"layers of {what}", _BAD)
    ]
    disks = [each for each in layers if "disk" in str(each.get("mediaType", ""))]
    found = layers if len(layers) == 1 else disks
    if len(found) != 1:
        raise ImageListError(
            f"{what} has {len(layers)} layers and {len(disks)} disks among them, not one", kind=_BAD
        )
    return found[0]


def _size(layer: Mapping[str, object], what: str) -> int | None:
    size = layer.get("size")
    text = str(size) if isinstance(size, int) and not isinstance(size, bool) else ""
    return _fields.size_bytes(text, f"the size of the disk of {what}", _BAD)


def _annotations(holder: Mapping[str, object], what: str) -> dict[str, str]:
    notes = _json.as_object(holder.get("annotations") or {}, f"annotations of {what}", _BAD)
    return {key: value for key, value in notes.items() if isinstance(value, str)}


def _properties(notes: Mapping[str, str]) -> dict[str, str]:
    """What annotations become: Glance's by their own names, EGI's as they are called there."""
    found = {}
    for key, value in notes.items():
        name = key.removeprefix(_GLANCE)
        known = name != key and name not in _NOT_PROPERTIES
        if (known or key.startswith(_EGI)) and _PROPERTY.fullmatch(name) and not has_control(value):
            found[name] = value
    return found
