"""Definitions of openstack-image-manager: YAML with ``images:``, each in one or more versions.

Names, properties and tags come out as that tool makes them; the README lists the differences. A
definition or a version that cannot be read costs itself and no other: which version is the newest,
and therefore bears the plain name, is told by all that are listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import assert_never

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import _fields, _yaml
from glancing.imagelist._text import clipped, has_control
from glancing.imagelist._yaml import Entry, Fields, Items, Node, Scalar
from glancing.imagelist.descriptor import parse_descriptor
from glancing.imagelist.plain import need_of_sums
from glancing.model import (
    Attributes,
    Digest,
    Expected,
    Keys,
    ListContext,
    LocalPath,
    Location,
    Need,
    Origin,
    Parsed,
    Problem,
    Severity,
    Spec,
)
from glancing.versions import version_key

LATEST = "latest"
"""The version of what changes under its address; a checksum file tells when it has."""

_KEYS = frozenset(
    {
        *("name", "enable", "format", "login", "min_disk", "min_ram", "status", "visibility"),
        *("multi", "separator", "tags", "meta", "versions", "keep", "protected"),
        # Of use to people and to those who write definitions, not for what is in Glance
        *("password", "shortname", "latest_url", "latest_checksum_url"),
    }
)
_VERSION_KEYS = frozenset(
    {
        *("version", "url", "mirror_url", "source", "checksum", "checksums_url", "checksum_url"),
        *("build_date", "meta", "os_version", "image_description", "visibility", "hidden", "id"),
    }
)
_VISIBILITIES = ("public", "private", "community", "shared")
_STATUSES = ("active", "deactivated")
_MAX_WORD_CHARACTERS = 255  # of a property's name and of a tag, in Glance's database
_MAX_VALUE_CHARACTERS = 65_535 // 4
_MAX_NUMBER = 2**31 - 1
# Fields of the record itself, which are no properties, and what Glance or glancing write
_NO_PROPERTIES = frozenset(
    {
        *("id", "name", "status", "visibility", "os_hidden", "protected", "owner", "tags"),
        *("size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"),
        *("disk_format", "container_format", "min_disk", "min_ram", "created_at", "updated_at"),
        *("self", "file", "schema", "direct_url", "locations", "stores"),
        *("mpid", "version", "deleted", "deleted_at", "is_public", "properties"),
    }
)
_NO_PROPERTY_PREFIXES = ("glancing_", "os_glance_")
_DAY = re.compile(r"\d{4}-\d\d?-\d\d?")


def parse(data: bytes, context: ListContext) -> Parsed:
    """Read definitions; the lines of ``context.origin`` are filled in here.

    ImageListError when the document is no proper YAML (see ``_yaml.read``) or has no ``images``.
    """
    what = _list(context.origin)
    root = _yaml.read(data, what)
    images = root.entries.get("images") if isinstance(root, Fields) else None
    if not isinstance(root, Fields) or images is None or not isinstance(images.value, Items):
        raise ImageListError(f"{what} has no list of images under the key images")
    reader = _Reader(context)
    reader.tell_unknown(_Record(root), frozenset({"images"}))
    for node in images.value.values:
        reader.read(node)
    return reader.result()


def _list(origin: Origin) -> str:
    return f"the definitions {clipped(origin.list_name)}" if origin.list_name else "the definitions"


# --- fields by type -------------------------------------------------------------------------------


def _wrong(line: int, what: str, hint: str | None = None) -> ImageListError:
    return ImageListError(f"line {line}: {what}", hint=hint)


@contextmanager
def _at(line: int, key: str) -> Iterator[None]:
    """Say where a value stands that another module finds wrong."""
    try:
        yield
    except ImageListError as error:
        message = f"line {line}: {key}: {error.message}"
        raise ImageListError(message, kind=error.kind, hint=error.hint) from None


@dataclass(frozen=True, slots=True)
class _Record:
    """A map whose values are read by type; null counts as missing. Raises ImageListError."""

    fields: Fields

    @classmethod
    def of(cls, node: Node, what: str) -> _Record:
        if not isinstance(node, Fields):
            raise _wrong(node.line, f"{what} is no map of keys and values")
        return cls(node)

    @property
    def line(self) -> int:
        return self.fields.line

    def entry(self, key: str) -> Entry | None:
        """What stands under a key."""
        entry = self.fields.entries.get(key)
        null = entry is None or (isinstance(entry.value, Scalar) and entry.value.is_null)
        return None if null else entry

    def scalar(self, key: str) -> Scalar | None:
        """A text, number, date or boolean, as it was written."""
        entry = self.entry(key)
        if entry is None:
            return None
        if not isinstance(entry.value, Scalar):
            raise _wrong(entry.line, f"{key} is no single value")
        return entry.value

    def text(self, key: str) -> str | None:
        """A text; what YAML takes for a number or a date is one as well, as it was written."""
        scalar = self.scalar(key)
        if scalar is None or not scalar.text.strip():
            return None
        if scalar.boolean is not None:
            raise _wrong(scalar.line, f"{key} is {scalar.text}, no text: put it in quotes")
        if has_control(scalar.text):
            raise _wrong(scalar.line, f"{key} has control characters")
        return scalar.text

    def needed(self, key: str) -> str:
        """A text that has to be there."""
        text = self.text(key)
        if text is None:
            raise _wrong(self.line, f"the key {key} is missing")
        return text

    def flag(self, key: str) -> bool | None:
        """Yes or no."""
        scalar = self.scalar(key)
        if scalar is not None and scalar.boolean is None:
            raise _wrong(scalar.line, f"{key} is {clipped(scalar.text)!r}, neither true nor false")
        return scalar.boolean if scalar else None

    def whole(self, key: str) -> int | None:
        """A whole number, not negative."""
        scalar = self.scalar(key)
        if scalar is None:
            return None
        digits = scalar.text
        if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(_MAX_NUMBER))):
            raise _wrong(scalar.line, f"{key} is {clipped(digits)!r}, no whole number")
        if int(digits) > _MAX_NUMBER:
            raise _wrong(scalar.line, f"{key} is more than {_MAX_NUMBER}")
        return int(digits)

    def choice(self, key: str, choices: Sequence[str]) -> str | None:
        """One of some words."""
        text = self.text(key)
        if text is not None and text not in choices:
            what = f"{key} is {clipped(text)!r}, none of {', '.join(choices)}"
            raise _wrong(self.fields.entries[key].line, what)
        return text

    def texts(self, key: str) -> list[Scalar]:
        """A list of texts, or one alone."""
        entry = self.entry(key)
        if entry is None:
            return []
        found = entry.value.values if isinstance(entry.value, Items) else [entry.value]
        for each in found:
            if not isinstance(each, Scalar) or each.is_null or has_control(each.text):
                raise _wrong(each.line, f"{key} is no list of texts")
        return [each for each in found if isinstance(each, Scalar)]

    def record(self, key: str) -> _Record | None:
        """A map inside this one."""
        entry = self.entry(key)
        return None if entry is None else _Record.of(entry.value, key)


# --- one definition -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Version:
    """One listed version of an image, under the name that it is to have in Glance."""

    image: _Image
    version: str
    name: str
    record: _Record
    successor: str | None

    @property
    def identity(self) -> str:
        return f"{self.image.name}/{self.version}"

    @property
    def is_latest(self) -> bool:
        return self.version == LATEST


@dataclass(frozen=True, slots=True)
class _Image:
    """What a definition says of all versions of its image."""

    name: str
    multi: bool
    separator: str
    record: _Record
    properties: Mapping[str, str]
    attributes: Attributes

    @classmethod
    def of(cls, record: _Record) -> _Image:
        name = record.needed("name")
        with _at(record.line, "name"):
            name = _fields.image_name(name, "it")
        separator = record.scalar("separator")
        meta = _properties(record.record("meta"))
        login = record.text("login")
        return cls(
            name=name,
            multi=record.flag("multi") or False,
            separator=separator.text if separator else " ",
            record=record,
            properties={
                "image_description": name,
                "image_name": name,
                **meta,
                **_said({"image_original_user": login}),
            },
            attributes=_attributes(record, meta.get("os_distro")),
        )

    def versions(self) -> Iterator[tuple[str, _Record]]:
        """The versions as they stand, with their records; ImageListError when one has none."""
        entry = self.record.entry("versions")
        if entry is None or not isinstance(entry.value, Items):
            raise _wrong(self.record.line, "the key versions has no list")
        for node in entry.value.values:
            record = _Record.of(node, "a version")
            yield record.needed("version"), record

    def named(self, version: str, *, newest: bool) -> str:
        """``NAME`` for the newest of several versions, ``NAME (VERSION)``, or ``NAME VERSION``."""
        if not self.multi:
            return f"{self.name}{self.separator}{version}"
        return self.name if newest else f"{self.name}{self.separator}({version})"


def _attributes(record: _Record, os_distro: str | None) -> Attributes:
    """What a definition says of the record; ``active`` leaves what an administrator deactivated."""
    tags = {_tag(scalar) for scalar in record.texts("tags")}
    keep = record.scalar("keep")
    return Attributes(
        visibility=record.choice("visibility", _VISIBILITIES),
        protected=record.flag("protected"),
        deactivated=record.choice("status", _STATUSES) == "deactivated" or None,
        min_disk_gib=record.whole("min_disk") or 0,
        min_ram_mib=record.whole("min_ram"),
        tags=frozenset(tags | ({f"os:{os_distro}"} if os_distro else set())),
        keep=record.whole("keep") if keep is not None and keep.boolean is None else None,
    )


def _tag(scalar: Scalar) -> str:
    if not 0 < len(scalar.text) <= _MAX_WORD_CHARACTERS:
        raise _wrong(scalar.line, f"a tag has 1 to {_MAX_WORD_CHARACTERS} characters")
    return scalar.text


def _properties(record: _Record | None) -> dict[str, str]:
    """The values of ``meta`` as they stand in Glance."""
    found = {}
    for key, entry in record.fields.entries.items() if record else ():
        if not isinstance(entry.value, Scalar):
            raise _wrong(entry.line, f"{clipped(key)} in meta is no single value")
        _require_property(key, entry.line)
        if not entry.value.is_null:
            found[key] = _rendered(entry.value, key)
    return found


def _require_property(key: str, line: int) -> None:
    unusable = not key.strip() or len(key) > _MAX_WORD_CHARACTERS or has_control(key)
    if unusable or key in _NO_PROPERTIES or key.startswith(_NO_PROPERTY_PREFIXES):
        raise _wrong(line, f"{clipped(key)!r} in meta cannot be a property")


def _rendered(scalar: Scalar, key: str) -> str:
    """The text of a value; booleans are ``True`` and ``False``, as that tool writes them."""
    if scalar.boolean is not None:
        return str(scalar.boolean)
    if len(scalar.text) > _MAX_VALUE_CHARACTERS or "\0" in scalar.text:
        raise _wrong(scalar.line, f"{clipped(key)} is too long for a property")
    return scalar.text


# --- one version ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Addresses:
    """Where the bytes of a version are; ``told`` is what the property ``image_source`` says."""

    sources: tuple[Location, ...]
    told: str | None


def _entry_of(version: _Version, context: ListContext, origin: Origin) -> Spec | Need:
    """A version as an image that is wanted; ImageListError when it cannot be."""
    found = _described(version, context, origin)
    sums = _sums_file(version, context)
    kept_as = "upstream_checksum" if version.is_latest else None
    keys = Keys(sums_files=(sums,), kept_as=kept_as) if sums else Keys()
    if isinstance(found, Need):
        spec = _spec(version, _Addresses((), str(found.location)), origin)
        return replace(found, spec=spec, keys=keys, descriptor=spec.descriptor)
    spec = _spec(version, found, origin)
    return need_of_sums(spec, keys) if sums else spec


def _spec(version: _Version, addresses: _Addresses, origin: Origin) -> Spec:
    record, image = version.record, version.image
    return Spec(
        name=version.name,
        identity=version.identity,
        descriptor=version.identity,
        origin=origin,
        sources=addresses.sources,
        expected=Expected(
            either=_checksum(version), disk_format=_fields.disk_format(_format(image) or "")
        ),
        version=None if version.is_latest else version.version,
        properties=MappingProxyType(_properties_of(version, addresses.told)),
        attributes=_attributes_of(record, image.attributes),
        successor=version.successor,
        dated=version.is_latest,
    )


def _format(image: _Image) -> str | None:
    return image.record.text("format")


def _properties_of(version: _Version, source: str | None) -> dict[str, str]:
    """All properties of a version; what stands further down wins, in that tool's order."""
    record, image = version.record, version.image
    os_version = record.text("os_version") if image.multi else version.version
    own = {
        "internal_version": None if version.is_latest else version.version,
        "os_version": os_version,
    }
    last = {
        "image_source": source,
        "image_build_date": _build_date(record),
        "image_description": record.text("image_description"),
    }
    meta = _properties(record.record("meta"))
    return {**image.properties, **_said(own), **meta, **_said(last)}


def _said(values: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in values.items() if value is not None}


def _build_date(record: _Record) -> str | None:
    """The day of a date or a time."""
    text = record.text("build_date")
    if text is None:
        return None
    day = _DAY.match(text)
    if day is None:
        raise _wrong(record.fields.entries["build_date"].line, "build_date is no date")
    return day[0]


def _attributes_of(record: _Record, image: Attributes) -> Attributes:
    identifier = record.text("id")
    if identifier is not None:
        line = record.fields.entries["id"].line
        raise _wrong(line, "images with an id of their own are not made yet", "leave id out")
    return replace(
        image,
        visibility=record.choice("visibility", _VISIBILITIES) or image.visibility,
        hidden=record.flag("hidden"),
    )


def _checksum(version: _Version) -> tuple[Digest, ...]:
    """The digest of a version, of the published file or of the image.

    That of ``latest`` is found in a checksum file: what is written down is of one day only.
    """
    scalar = version.record.scalar("checksum")
    if scalar is None or version.is_latest:
        return ()
    label, colon, value = scalar.text.strip().rpartition(":")
    with _at(scalar.line, "checksum"):
        return _fields.digests([(label if colon else None, value)], ErrorKind.BAD_DIGEST)


def _sums_file(version: _Version, context: ListContext) -> Location | None:
    """The checksum file that a version's digest is in, where none is written down."""
    record = version.record
    given = [key for key in ("checksums_url", "checksum_url") if record.entry(key)]
    if len(given) > 1:
        raise _wrong(record.line, "both checksums_url and checksum_url are given")
    if version.is_latest and not given:
        raise _wrong(record.line, "latest needs checksums_url or checksum_url")
    if not given or _checksum(version):
        return None
    text = record.needed(given[0])
    with _at(record.fields.entries[given[0]].line, given[0]):
        return _location(text, context)


def _described(version: _Version, context: ListContext, origin: Origin) -> _Addresses | Need:
    """Where a version's bytes are: its mirror first, then its own addresses."""
    record = version.record
    urls = record.texts("url")
    if not urls:
        return _from_descriptor(record, replace(context, origin=origin))
    texts = [*record.texts("mirror_url"), *urls]
    found: dict[Location, None] = {}
    for each in texts:
        with _at(each.line, "url"):
            found.setdefault(_location(each.text, context))
    return _Addresses(tuple(found), _told(_location(urls[0].text, context)))


def _from_descriptor(record: _Record, context: ListContext) -> _Addresses | Need:
    """``source`` in place of ``url``: a path, a URL, a marketplace ID or a metadata file."""
    text = record.text("source")
    if text is None:
        raise _wrong(record.line, "the key url is missing")
    with _at(record.fields.entries["source"].line, "source"):
        found = parse_descriptor(
            text,
            marketplace=context.marketplace,
            base=context.folder,
            trusted=context.trusted,
            origin=context.origin,
            naming=context.naming,
            name=text,
        )
    match found:
        case Spec():
            return _Addresses(found.sources, _told(found.sources[0]))
        case Need():
            return found
        case _:
            assert_never(found)


def _location(text: str, context: ListContext) -> Location:
    """An address; files are named by definitions of this machine alone (fault 15)."""
    if _fields.scheme_of(text) != "file":
        return _fields.http_url(text)
    if not context.trusted:
        raise ImageListError(
            f"{_fields.shown(text)} is a local file, and these definitions are not local",
            hint="definitions that are fetched may only name http and https addresses",
        )
    return LocalPath(Path(_fields.file_path(text)))


def _told(location: Location) -> str:
    """What users of the cloud may see of an address: of a file its name only."""
    if isinstance(location, LocalPath):
        return f"file:{location.path.name}"
    return location.public


# --- the whole document ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Reader:
    """One pass over the definitions of a document."""

    context: ListContext
    entries: list[Spec | Need] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def read(self, node: Node) -> None:
        """Take in one definition; what is wrong with it becomes a problem, never an exception."""
        descriptor = ""
        try:
            record = _Record.of(node, "an image")
            if record.flag("enable") is False:
                return
            descriptor = record.needed("name")
            self.tell_unknown(record, _KEYS)
            image = _Image.of(record)
            self._tell_keep(image)
            versions = _ordered(image)
        except ImageListError as error:
            self._refuse(node.line, error, descriptor)
            return
        found = [self._version(version) for version in versions]
        newest = found[-1] if found else None
        self.entries += [_beside(entry, newest) for entry in found if entry is not None]

    def _tell_keep(self, image: _Image) -> None:
        if image.attributes.keep is not None:
            line = image.record.fields.entries["keep"].line
            what = f"{_list(self.context.origin)}, line {line}: keep is not acted on"
            self._warn("list.keep_ignored", f"{what}: no image is ever deleted", line)

    def _version(self, version: _Version) -> Spec | Need | None:
        line, descriptor = version.record.line, version.identity
        self.tell_unknown(version.record, _VERSION_KEYS)
        try:
            if version.name != version.name.strip():
                raise _wrong(line, f"the name {version.name!r} begins or ends with blanks")
            with _at(line, "version"):
                _fields.image_name(version.name, "it")
            return _entry_of(version, self.context, self._origin(line))
        except ImageListError as error:
            self._refuse(line, error, descriptor)
            return None

    def tell_unknown(self, record: _Record, known: frozenset[str]) -> None:
        """Warn of keys that mean nothing here: they may be misspelt."""
        for key, entry in record.fields.entries.items():
            if key not in known:
                what = f"{_list(self.context.origin)}, line {entry.line}: the key {clipped(key)}"
                message = f"{what} is not known"
                self._warn("list.key_unknown", message, entry.line)

    def _refuse(self, line: int, error: ImageListError, descriptor: str) -> None:
        message = f"{_list(self.context.origin)}, {error.message}"
        problem = Problem(
            Severity.ERROR,
            "list.entry_refused",
            message,
            self._origin(line),
            clipped(descriptor),
            error.hint,
        )
        self.problems.append(problem)

    def _warn(self, event: str, message: str, line: int) -> None:
        problem = Problem(Severity.WARNING, event, message, self._origin(line))
        self.problems.append(problem)

    def _origin(self, line: int) -> Origin:
        return replace(self.context.origin, line=line)

    def result(self) -> Parsed:
        """All that was read; definitions that want nothing at all get a warning."""
        if not self.entries and not self.problems:
            message = f"{_list(self.context.origin)} have no image that is enabled"
            self._warn("list.empty", message, 0)
        return Parsed(
            specs=tuple(entry for entry in self.entries if isinstance(entry, Spec)),
            problems=tuple(self.problems),
            needs=tuple(entry for entry in self.entries if isinstance(entry, Need)),
        )


def _ordered(image: _Image) -> list[_Version]:
    """The versions of an image, oldest first, with their names.

    ImageListError when one cannot be told: it might be the newest, whose name no other may get.
    """
    listed: dict[str, _Record] = {}
    for version, record in image.versions():
        if listed.setdefault(version, record) is not record:
            raise _wrong(record.line, f"the version {clipped(version)} stands twice")
    in_order = sorted(listed, key=lambda version: (version == LATEST, version_key(version)))
    return [_placed(image, version, in_order[-1], listed[version]) for version in in_order]


def _placed(image: _Image, version: str, newest: str, record: _Record) -> _Version:
    followed = image.multi and version != newest
    successor = f"{image.name}/{newest}" if followed else None
    return _Version(image, version, image.named(version, newest=not followed), record, successor)


def _beside(entry: Spec | Need, newest: Spec | Need | None) -> Spec | Need:
    """An older version beside the newest one, of which only one may be the generic image.

    The SCS image metadata standard (scs-0102-v2) has at most one public image of a distribution,
    version and architecture be ``generic``, and names those it followed ``oldgeneric``.
    """
    image, successor = _image_of(entry), _image_of(newest) if newest else None
    if image is None or successor is None or entry is newest:
        return entry
    found = successor.attributes.visibility in ("public", "community")
    generic = all(image.properties.get(k) == successor.properties.get(k) for k in _GENERIC)
    if not found or successor.attributes.hidden or not generic:
        return entry
    if image.properties.get("os_purpose") != "generic":
        return entry
    properties = MappingProxyType({**image.properties, "os_purpose": "oldgeneric"})
    old = replace(image, properties=properties)
    return old if isinstance(entry, Spec) else replace(entry, spec=old)


_GENERIC = ("os_purpose", "architecture", "os_distro", "os_version")


def _image_of(entry: Spec | Need) -> Spec | None:
    return entry if isinstance(entry, Spec) else entry.spec
