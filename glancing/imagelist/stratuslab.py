"""Metadata of the StratusLab marketplace: XML in two root forms, and RDF-JSON.

Which of them a document is follows from its first character, not from its name. Digests and size
are of the *image*, also where the published file is compressed. The XML signature is not verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import _fields, _json
from glancing.imagelist._text import clipped, text_bytes
from glancing.model import MIB, Expected, LocalPath, Location, Naming, Need, Spec

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_XML_BYTES = 10 * MIB

_DCTERMS = "http://purl.org/dc/terms/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_SLREQ = "http://mp.stratuslab.eu/slreq#"
_SLTERMS = "http://mp.stratuslab.eu/slterms#"

_IDENTIFIER = f"{_DCTERMS}identifier"
_TITLE = f"{_DCTERMS}title"
_FORMAT = f"{_DCTERMS}format"
_COMPRESSION = f"{_DCTERMS}compression"
_BYTES = f"{_SLREQ}bytes"
_CHECKSUM = f"{_SLREQ}checksum"
_ALGORITHM = f"{_SLREQ}algorithm"
_VALUE = f"{_SLREQ}value"
_LOCATION = f"{_SLTERMS}location"
_VERSION = f"{_SLTERMS}version"
_OS_PARTS = tuple(f"{_SLTERMS}{part}" for part in ("os", "os-version", "os-arch"))

_BAD = ErrorKind.BAD_METADATA


def parse_metadata(data: bytes, need: Need) -> Spec:
    """The image that a metadata document describes.

    ImageListError of kind ``bad-metadata`` when the document is not what was needed, is about
    another image or about several, or lacks a location; of ``bad-digest`` and ``bad-compression``
    where those fields contradict themselves or name what is not supported.
    """
    return _spec(_resource(data, f"the metadata {need.descriptor}"), need)


def _resource(data: bytes, what: str) -> _Resource:
    start = text_bytes(data, what, _BAD).lstrip()[:100].lower()
    if start.startswith(b"{"):
        return _from_json(data, what)
    if start.startswith((b"<!doctype html", b"<html")):
        raise ImageListError(f"{what} is HTML where metadata should be", kind=_BAD)
    if start.startswith(b"<"):
        return _from_xml(data, what)
    raise ImageListError(f"{what} is neither XML nor JSON", kind=_BAD)


@dataclass(frozen=True, slots=True)
class _Resource:
    """One image, whatever the notation: its literals by predicate, and its checksums."""

    literals: Mapping[str, Sequence[str]]
    checksums: tuple[tuple[str | None, str], ...]

    def all(self, predicate: str) -> tuple[str, ...]:
        """The values that are not empty, each once; an empty string counts as missing."""
        stripped = (value.strip() for value in self.literals.get(predicate, ()))
        return tuple(dict.fromkeys(filter(None, stripped)))

    def first(self, predicate: str) -> str:
        """Any value, for fields that people read (a title in several languages)."""
        return next(iter(self.all(predicate)), "")

    def one(self, predicate: str) -> str:
        """The value; ImageListError when there are different ones."""
        values = self.all(predicate)
        if len(values) > 1:
            field = predicate.rpartition("/")[2]
            raise ImageListError(f"{field} has {len(values)} different values", kind=_BAD)
        return values[0] if values else ""

    @property
    def is_image(self) -> bool:
        """Whether this is about an image and not about one of its checksums or endorsements."""
        return _IDENTIFIER in self.literals or _LOCATION in self.literals


def _only_image(resources: Iterable[_Resource], what: str) -> _Resource:
    images = [resource for resource in resources if resource.is_image]
    if len(images) != 1:
        raise ImageListError(f"{what} describes {len(images)} images, not one", kind=_BAD)
    return images[0]


# --- XML ------------------------------------------------------------------------------------------


def _from_xml(data: bytes, what: str) -> _Resource:
    root = _xml_root(data, what)
    rdf_tag = f"{{{_RDF}}}RDF"
    found = root.findall(rdf_tag) if root.tag == "metadata" else [root]
    if len(found) != 1 or found[0].tag != rdf_tag:
        raise ImageListError(f"{what} is XML, but no RDF metadata", kind=_BAD)
    descriptions = found[0].findall(f"{{{_RDF}}}Description")
    nodes = {node.get(f"{{{_RDF}}}nodeID", ""): node for node in descriptions}
    return _only_image((_xml_resource(node, nodes) for node in descriptions), what)


def _xml_root(data: bytes, what: str) -> Element:
    """Parse; any document type is refused, and with it every entity (fault 24)."""
    if len(data) > MAX_XML_BYTES:
        raise ImageListError(f"{what} has more than {MAX_XML_BYTES} bytes", kind=_BAD)
    # Imported here: most runs read no XML, and each start would pay for it.
    from defusedxml import DefusedXmlException, ElementTree  # noqa: PLC0415

    try:
        root: Element = ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        raise ImageListError(f"{what} has a document type, which is refused", kind=_BAD) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ImageListError(f"{what} is no proper XML: {clipped(str(error))}", kind=_BAD) from None
    return root


def _xml_resource(node: Element, nodes: Mapping[str, Element]) -> _Resource:
    literals: dict[str, list[str]] = {}
    for child in node:
        predicate = child.tag.replace("{", "", 1).replace("}", "", 1)
        literals.setdefault(predicate, []).append(child.text or "")
    checksums = (_xml_checksum(child, nodes) for child in node.findall(_xml_tag(_CHECKSUM)))
    return _Resource(literals, tuple(checksums))


def _xml_checksum(element: Element, nodes: Mapping[str, Element]) -> tuple[str | None, str]:
    """Algorithm and value: inside the element, in a description there, or in a node it names."""
    inner = element.find(f"{{{_RDF}}}Description")
    holder = nodes.get(element.get(f"{{{_RDF}}}nodeID", "-"), element) if inner is None else inner
    algorithm = (holder.findtext(_xml_tag(_ALGORITHM)) or "").strip()
    return algorithm or None, holder.findtext(_xml_tag(_VALUE)) or ""


def _xml_tag(predicate: str) -> str:
    """``{namespace}name``, as the parser spells a predicate's URL."""
    namespace = _SLREQ if predicate.startswith(_SLREQ) else _SLTERMS
    return f"{{{namespace}}}{predicate.removeprefix(namespace)}"


# --- RDF-JSON -------------------------------------------------------------------------------------


def _from_json(data: bytes, what: str) -> _Resource:
    subjects = _json.as_object(_json.load(data, what, _BAD), what, _BAD)
    if "rMsg" in subjects:
        answer = clipped(str(subjects["rMsg"]))
        raise ImageListError(f"{what} is an answer of the marketplace: {answer}", kind=_BAD)
    literals = {name: _json_literals(subject, name) for name, subject in subjects.items()}
    return _only_image((_json_resource(subject, literals) for subject in literals.values()), what)


_Literals = Mapping[str, Sequence[str]]


def _json_literals(subject: object, name: str) -> _Literals:
    """The values of each predicate; those that are no literals are the names of subjects."""
    what = f"subject {clipped(name)}"
    predicates = _json.as_object(subject, what, _BAD)
    return {
        predicate: tuple(_json_values(values, what)) for predicate, values in predicates.items()
    }


def _json_values(values: object, what: str) -> Iterator[str]:
    for item in _json.as_array(values, f"a predicate of {what}", _BAD):
        value = _json.as_object(item, f"a value of {what}", _BAD).get("value", "")
        if not isinstance(value, str):
            raise ImageListError(f"a value of {what} is not a string", kind=_BAD)
        yield value


def _json_resource(subject: _Literals, subjects: Mapping[str, _Literals]) -> _Resource:
    """A checksum that names a subject which is not there counts as missing."""
    nodes = (subjects.get(name, {}) for name in subject.get(_CHECKSUM, ()))
    checksums = tuple((_joined(node, _ALGORITHM) or None, _joined(node, _VALUE)) for node in nodes)
    return _Resource(subject, checksums)


def _joined(node: _Literals, predicate: str) -> str:
    """The value; several ones make a text that no digest and no algorithm is, and so fail."""
    return " ".join(node.get(predicate, ())).strip()


# --- the spec -------------------------------------------------------------------------------------


def _spec(resource: _Resource, need: Need) -> Spec:
    mpid = _mpid(resource, need)
    sources = _sources(resource, need)
    return Spec(
        name=_name(resource, need.naming or Naming.TITLE, mpid, need.descriptor),
        identity=mpid or str(sources[0]),
        descriptor=need.descriptor,
        origin=need.origin,
        sources=sources,
        expected=_expected(resource),
        version=resource.one(_VERSION) or None,
        mpid=mpid,
    )


def _mpid(resource: _Resource, need: Need) -> str | None:
    """The marketplace ID; ImageListError when the document is about another one than asked for."""
    identifier = resource.one(_IDENTIFIER) or None
    if need.mpid and identifier and identifier != need.mpid:
        raise ImageListError(
            f"metadata of {need.mpid} was asked for, this is of {clipped(identifier)}", kind=_BAD
        )
    if identifier is not None:
        _fields.image_name(identifier, "the identifier", _BAD)
    return need.mpid or identifier


def _sources(resource: _Resource, need: Need) -> tuple[Location, ...]:
    locations = resource.all(_LOCATION)
    if not locations:
        raise ImageListError(f"the metadata {need.descriptor} has no location", kind=_BAD)
    return tuple(_location(text, need) for text in locations)


def _location(text: str, need: Need) -> Location:
    """Where the image is; only metadata that is the operator's own may name a file (fault 15)."""
    if _fields.scheme_of(text) is not None:
        return _fields.http_url(text, _BAD)
    if need.trusted and isinstance(need.location, LocalPath):
        return LocalPath(need.location.path.parent / text)
    raise ImageListError(
        f"location {clipped(text)} is no http or https address",
        kind=_BAD,
        hint="metadata that is fetched cannot name local files",
    )


def _expected(resource: _Resource) -> Expected:
    return Expected(
        image=_fields.digests(resource.checksums, _BAD),
        image_size_bytes=_fields.size_bytes(resource.one(_BYTES), "slreq:bytes", _BAD),
        compression=_fields.compression(resource.one(_COMPRESSION)),
        disk_format=_fields.disk_format(resource.one(_FORMAT)),
    )


def _name(resource: _Resource, naming: Naming, mpid: str | None, of: str) -> str:
    """The title for a list, ``os-osversion-arch`` for one image (the seed's rules), else the other.

    The identifier is the last resort.
    """
    parts = "-".join(filter(None, (resource.one(part) for part in _OS_PARTS)))
    title = resource.first(_TITLE)
    choices = (title, parts, mpid) if naming is Naming.TITLE else (parts, title, mpid)
    return _fields.image_name(next(filter(None, choices), "") or "", f"the metadata {of}", _BAD)
