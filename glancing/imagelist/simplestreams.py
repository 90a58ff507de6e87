"""simplestreams, as Ubuntu and others publish them: an index, products, versions, items.

An index leads to documents of products; each item of a version is one file. What is said further
out counts further in, unless it is said again there. Every path is relative to the mirror's root,
where ``streams/v1`` lies. Which items are wanted, filters say; without one about ``ftype``, those
that are whole disks.

With ``newest=1`` a product's item is one image that each newer serial replaces; otherwise each
serial is an image of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import _fields, _json
from glancing.imagelist._text import clipped, has_control
from glancing.imagelist.descriptor import MAX_DEPTH
from glancing.model import (
    Digest,
    Expected,
    Filter,
    ListContext,
    LocalPath,
    Location,
    Need,
    NeedKind,
    Origin,
    Parsed,
    Problem,
    Severity,
    Spec,
    Url,
)

Attributes = Mapping[str, object]

_BAD = ErrorKind.BAD_LIST
_IMAGES = "image-downloads"
_STREAMS = "/streams/v1/"
_DISK_FORMATS = {
    "disk.img": "qcow2",
    "disk1.img": "qcow2",
    "disk-kvm.img": "qcow2",
    "squashfs": "squashfs",
}
_DISKS = Filter("ftype", "~", r"^disk1?\.img$")
_ARCHITECTURES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "i386": "i686",
    "armhf": "armv7l",
    "ppc64el": "ppc64le",
}
_ALGORITHMS = ("md5", "sha256", "sha512")


def parse(data: bytes, context: ListContext) -> Parsed:
    """Read an index, or a document of products; ImageListError when it is neither."""
    what = f"the list {clipped(context.origin.list_name or '')}"
    document = _json.as_object(_json.load(data, what, _BAD), what, _BAD)
    match document.get("format"):
        case "index:1.0":
            return _index(document, context, what)
        case "products:1.0":
            return _Products(context).read(document, what)
        case other:
            raise ImageListError(f"{what} has the format {clipped(str(other))!r}, not products:1.0")


# --- paths ----------------------------------------------------------------------------------------


def _below_root(path: object, context: ListContext) -> Location:
    """Where a path leads; ImageListError when it would leave the mirror."""
    if not isinstance(path, str) or not path:
        raise ImageListError("has no path")
    parts = path.split("/")
    if _fields.scheme_of(path) or has_control(path) or "\\" in path or {"", ".", ".."} & {*parts}:
        raise ImageListError(f"path {clipped(path)!r} is not one below the mirror's root")
    if isinstance(context.location, Url):
        split = context.location.parts
        root = _root(split.path)
        return Url(split._replace(path=f"{root}{quote(path, safe='/:@+~!$&,;=()*')}").geturl())
    return LocalPath(Path(_root(str(context.location.path))) / path)


def _root(path: str) -> str:
    """The mirror's root, with its final slash; a document elsewhere lies in it."""
    before, found, _ = path.rpartition(_STREAMS)
    return f"{before}/" if found else path[: path.rfind("/") + 1]


# --- the index ------------------------------------------------------------------------------------


def _index(document: Attributes, context: ListContext, what: str) -> Parsed:
    entries = _json.as_object(document.get("index"), f"index of {what}", _BAD)
    path = (*context.included_by, str(context.location))
    if len(path) > MAX_DEPTH:
        raise ImageListError(f"{what}: lists lead to lists more than {MAX_DEPTH} deep")
    needs, problems, filters = [], [], context.reading.filters
    for number, (content_id, value) in enumerate(entries.items(), start=1):
        origin = replace(context.origin, line=number)
        try:
            entry = _json.as_object(value, f"index entry {clipped(content_id)}", _BAD)
            if entry.get("datatype") != _IMAGES or not _may_hold(content_id, filters):
                continue
            location = _below_root(entry.get("path"), context)
        except ImageListError as error:
            problems.append(_problem(f"{content_id}: {error.message}", origin, content_id))
            continue
        inner = replace(origin, list_name=str(location), line=0, depth=len(path))
        deeper = replace(context, location=location, origin=inner, included_by=path)
        needs.append(
            Need(
                NeedKind.LIST,
                location,
                _json.MAX_JSON_BYTES,
                content_id,
                origin,
                trusted=context.trusted,
                context=deeper,
            )
        )
    return Parsed(needs=tuple(needs), problems=tuple(problems))


def _may_hold(content_id: str, filters: Iterable[Filter]) -> bool:
    """Whether a document may have what is wanted, as far as its identifier tells."""
    return all(
        each.holds({"content_id": content_id}) for each in filters if each.key == "content_id"
    )


def _problem(message: str, origin: Origin, descriptor: str) -> Problem:
    return Problem(Severity.ERROR, "list.entry_refused", message, origin, descriptor)


# --- products -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Item:
    """One file of a product, with all that is said of it, from the outside in."""

    attributes: Mapping[str, str]
    identity: str
    product: str
    serial: str


@dataclass(slots=True)
class _Products:
    """One pass over a document of products."""

    context: ListContext
    specs: list[Spec] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def read(self, document: Attributes, what: str) -> Parsed:
        """Take in all products; what is wrong with an item costs that item."""
        products = _json.as_object(document.get("products"), f"products of {what}", _BAD)
        outer = _texts(document)
        for product, value in products.items():
            try:
                versions = list(self._versions(product, value, outer))
            except ImageListError as error:
                self._refuse(product, error)
                continue
            for items in self._newest(versions):
                for item in items:
                    self._add(item)
        return Parsed(specs=tuple(self.specs), problems=tuple(self.problems))

    def _versions(
        self, product: str, value: object, outer: Mapping[str, str]
    ) -> Iterator[tuple[str, list[_Item]]]:
        """Each serial that has wanted items, with them."""
        holder = _json.as_object(value, f"product {clipped(product)}", _BAD)
        above = {**outer, **_texts(holder), "product_name": product}
        versions = _json.as_object(holder.get("versions"), f"versions of {clipped(product)}", _BAD)
        for serial, version in versions.items():
            try:
                items = self._items(product, serial, version, above)
            except ImageListError as error:
                self._refuse(f"{product} {serial}", error)
                continue
            if items:
                yield serial, items

    def _items(
        self, product: str, serial: str, value: object, above: Mapping[str, str]
    ) -> list[_Item]:
        what = f"version {clipped(serial)} of {clipped(product)}"
        holder = _json.as_object(value, what, _BAD)
        here = {**above, **_texts(holder), "version_name": serial}
        found = []
        for name, item in _json.as_object(holder.get("items"), f"items of {what}", _BAD).items():
            own = _texts(_json.as_object(item, f"item {clipped(name)} of {what}", _BAD))
            said = {**here, **own, "item_name": name}
            if all(each.holds(said) for each in _wanted(self.context.reading.filters)):
                identity = ":".join((said.get("content_id", ""), product, serial, name))
                found.append(_Item(MappingProxyType(said), identity, product, serial))
        return found

    def _newest(self, versions: Sequence[tuple[str, list[_Item]]]) -> Iterator[list[_Item]]:
        """The items of the newest serials; serials compare as plain strings."""
        ordered = sorted(versions, key=lambda pair: pair[0], reverse=True)
        for _, items in ordered[: self.context.reading.newest]:
            yield items

    def _add(self, item: _Item) -> None:
        origin = replace(self.context.origin, line=next(self._numbers))
        try:
            self.specs.append(_spec(item, replace(self.context, origin=origin)))
        except ImageListError as error:
            self.problems.append(
                _problem(f"{item.identity}: {error.message}", origin, item.identity)
            )

    def _refuse(self, what: str, error: ImageListError) -> None:
        origin = replace(self.context.origin, line=next(self._numbers))
        self.problems.append(_problem(f"{clipped(what)}: {error.message}", origin, clipped(what)))


def _texts(holder: Attributes) -> dict[str, str]:
    """Attributes that are said by themselves; numbers are written as texts by some."""
    return {
        key: str(value)
        for key, value in holder.items()
        if isinstance(value, str | int) and not isinstance(value, bool)
    }


def _wanted(filters: tuple[Filter, ...]) -> tuple[Filter, ...]:
    return filters if any(each.key == "ftype" for each in filters) else (*filters, _DISKS)


def _spec(item: _Item, context: ListContext) -> Spec:
    said = item.attributes
    disk_format = _DISK_FORMATS.get(said.get("ftype", ""))
    if said.get("ftype", "").startswith("root.tar"):
        disk_format = "root-tar"
    return Spec(
        name=_name(item),
        identity=_identity(item, context),
        descriptor=item.identity,
        origin=context.origin,
        sources=(_below_root(said.get("path"), context),),
        expected=Expected(
            published=_digests(said),
            published_size_bytes=_fields.size_bytes(said.get("size", ""), "size", _BAD),
            disk_format=disk_format,
        ),
        version=item.serial,
        properties=MappingProxyType(dict(_properties(said))),
    )


def _name(item: _Item) -> str:
    """As the mirror tool of simplestreams names images: the published name and the item's."""
    published = item.attributes.get("pubname") or f"{item.product}-{item.serial}"
    return _fields.image_name(f"{published}-{item.attributes['item_name']}", item.identity)


def _identity(item: _Item, context: ListContext) -> str:
    if context.reading.newest != 1:
        return item.identity
    content_id, item_name = item.attributes.get("content_id", ""), item.attributes["item_name"]
    return ":".join((content_id, item.product, item_name))


def _digests(said: Mapping[str, str]) -> tuple[Digest, ...]:
    return _fields.digests(((name, said.get(name, "")) for name in _ALGORITHMS), _BAD)


def _properties(said: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    arch = said.get("arch", "")
    known = {
        **{key: said.get(key) for key in ("content_id", "product_name", "version_name")},
        "item_name": said.get("item_name"),
        "os_distro": said.get("os"),
        "os_version": said.get("version"),
        "architecture": _ARCHITECTURES.get(arch, arch),
    }
    for key, value in known.items():
        if value and not has_control(value):
            yield key, value
