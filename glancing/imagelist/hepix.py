"""Image lists of HEPiX, as EGI and CERN publish them: JSON, plain or in an S/MIME envelope.

Size and digests are of the file at ``hv:uri``, compressed or not. The envelope is opened here but
its signature is not verified; the list says whether it was signed. Whether a list has expired is
its reader's to judge, who has a clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import _fields, _json
from glancing.imagelist._text import clipped, has_control, text_bytes
from glancing.model import Expected, ListMark, Naming, Origin, Problem, Severity, Spec

MAX_LIST_BYTES = _json.MAX_JSON_BYTES
_MAX_HEADER_BYTES = 64 * 1024
_SIGNED_PARTS = 2  # the content and its signature (RFC 1847, section 2.1)
_SHOWN_IDENTIFIERS = 3
_BAD = ErrorKind.BAD_LIST


@dataclass(frozen=True, slots=True)
class HepixList:
    """A list that was read. Times are aware and in UTC, None where the list says none.

    ``endorser_dn`` and ``endorser_ca`` are the names that the list gives to its endorser and to the
    authority that certified it, in slash form; empty where it gives none.

    ``image_expires`` has the images that expire by themselves; an image that is not in it does not
    expire. ``signed`` tells that there is a signature, not that it is good.
    """

    identifier: str
    title: str
    version: str
    created: datetime | None
    expires: datetime | None
    signed: bool
    specs: tuple[Spec, ...] = ()
    problems: tuple[Problem, ...] = ()
    image_expires: Mapping[str, datetime] | None = None
    endorser_dn: str = ""
    endorser_ca: str = ""

    def entry(self, identifier: str) -> Spec:
        """The image of a ``dc:identifier``; ImageListError when it is absent or was refused."""
        for problem in self.problems:
            if problem.severity is Severity.ERROR and problem.descriptor == identifier:
                raise ImageListError(problem.message, hint=problem.hint)
        for spec in self.specs:
            if spec.identity == identifier:
                return spec
        known = ", ".join(spec.identity for spec in self.specs[:_SHOWN_IDENTIFIERS])
        raise ImageListError(
            f"the list {self.title} has no image {clipped(identifier)} among its {len(self.specs)}",
            hint=f"it begins with {known}" if known else None,
        )


def entry(
    data: bytes, identifier: str, *, origin: Origin, naming: Naming = Naming.OS_VERSION_ARCH
) -> Spec:
    """One image of a list, by its ``dc:identifier`` (``import -c``); raises as ``parse`` does."""
    return parse(data, origin=origin, naming=naming).entry(identifier)


def parse(data: bytes, *, origin: Origin, naming: Naming = Naming.OS_VERSION_ARCH) -> HepixList:
    """Read a list; ``origin`` says which one, the 1-based numbers of images are filled in here.

    An image that cannot be read is a problem of the list, not its end. ImageListError when the
    document is no such list.
    """
    payload, signed = _payload(data)
    return _read(_Record.of(_root(payload), "the list"), signed, origin, naming)


def parse_content(
    content: bytes, *, origin: Origin, naming: Naming = Naming.OS_VERSION_ARCH
) -> HepixList:
    """Read what was signed of a list: its JSON, with or without header fields of its own."""
    text = content if content.lstrip().startswith(b"{") else _decoded(content)
    return _read(_Record.of(_root(text), "the list"), False, origin, naming)


# --- the envelope ---------------------------------------------------------------------------------


def _payload(data: bytes) -> tuple[bytes, bool]:
    """The JSON inside, and whether it came in a signed envelope (RFC 8551, section 3.5.3)."""
    if len(data) > MAX_LIST_BYTES:
        raise ImageListError(f"the list has more than {MAX_LIST_BYTES} bytes")
    text = text_bytes(data, "the list", _BAD).lstrip()
    if text.startswith((b"{", b"[")):
        return text, False
    head, blank, body = _halves(text)
    boundary = _BOUNDARY.search(head)
    if not blank or b"multipart/signed" not in head.lower() or boundary is None:
        raise ImageListError("the list is neither JSON nor an S/MIME-signed message")
    return _content(body, boundary[1] or boundary[2]), True


def _halves(message: bytes) -> tuple[bytes, bytes, bytes]:
    """The header, the blank line, the body; no header of ours is longer than 64 KiB."""
    blank = _BLANK_LINE.search(message, 0, _MAX_HEADER_BYTES)
    if blank is None:
        return b"", b"", message
    return message[: blank.start()], blank[0], message[blank.end() :]


_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
# RFC 2046, section 5.1.1: at most 70 characters
_BOUNDARY = re.compile(rb"boundary=(?:\"([^\"\r\n]{1,70})\"|([^\s;\"]{1,70}))", re.IGNORECASE)


def _content(body: bytes, boundary: bytes) -> bytes:
    """The first part of a ``multipart/signed`` body, decoded.

    openssl writes the content right after the boundary, with no header and no blank line.
    """
    line = rb"(?:^|\r?\n)--" + re.escape(boundary) + rb"(?:--)?[ \t]*(?=\r?\n|$)"
    parts = re.split(line, body)
    if len(parts) != _SIGNED_PARTS + 2:  # what stands before and after them
        raise ImageListError("the signed message does not have a content and a signature")
    part = parts[1].removeprefix(b"\r").removeprefix(b"\n")
    return part if part.lstrip().startswith(b"{") else _decoded(part)


def _decoded(part: bytes) -> bytes:
    """The content of a part that has header fields of its own (RFC 2045)."""
    # Imported here: only such lists need it, and it takes a while.
    from email import message_from_bytes  # noqa: PLC0415

    content = message_from_bytes(part).get_payload(decode=True)
    if not isinstance(content, bytes):
        raise ImageListError("the signed message has no readable content")
    return content


def _root(payload: bytes) -> object:
    document = _json.as_object(_json.load(payload, "the list", _BAD), "the list", _BAD)
    if "hv:imagelist" not in document:
        raise ImageListError("the list has no hv:imagelist: it is no HEPiX image list")
    return document["hv:imagelist"]


# --- the fields -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Record:
    """A JSON object whose fields are read by type; null and empty strings count as missing."""

    fields: Mapping[str, object]
    what: str

    @classmethod
    def of(cls, value: object, what: str) -> _Record:
        return cls(_json.as_object(value, what, _BAD), what)

    def text(self, name: str) -> str:
        """A string, or a whole number as its digits (``hv:size`` and ``hv:version`` are both)."""
        value = self.fields.get(name)
        if value is None:
            return ""
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise ImageListError(f"{name} of {self.what} is not a string")
        if has_control(value) and name != "dc:description":
            raise ImageListError(f"{name} of {self.what} has control characters")
        return value.strip()

    def needed(self, name: str) -> str:
        """A string that is not empty."""
        value = self.text(name)
        if not value:
            raise ImageListError(f"{self.what} has no {name}")
        return value

    def time(self, name: str) -> datetime | None:
        """A time (RFC 3339); one without a zone is UTC."""
        text = self.text(name)
        if not text:
            return None
        try:
            moment = datetime.fromisoformat(text)
            return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError):
            what = f"{name} of {self.what} is {clipped(text)!r}, no time"
            raise ImageListError(what) from None


def _read(record: _Record, signed: bool, origin: Origin, naming: Naming) -> HepixList:
    identifier = record.needed("dc:identifier")
    version, created = record.text("hv:version"), record.text("dc:date:created")
    images = _json.as_array(record.fields.get("hv:images"), "hv:images", _BAD)
    reader = _Reader(origin, naming, str(ListMark(identifier, version, created)), {}, [], {})
    if signed:
        reader.warn("list.signature_unchecked", "the signature of the list was not verified")
    for number, image in enumerate(images, start=1):
        reader.read(number, image)
    return HepixList(
        identifier=identifier,
        title=record.text("dc:title"),
        version=version,
        created=record.time("dc:date:created"),
        expires=record.time("dc:date:expires"),
        signed=signed,
        specs=tuple(reader.specs.values()),
        problems=tuple(reader.problems),
        image_expires=reader.expires,
        endorser_dn=_endorser(record).text("hv:dn"),
        endorser_ca=_endorser(record).text("hv:ca"),
    )


def _endorser(record: _Record) -> _Record:
    """``hv:endorser`` is a certificate's names, or missing."""
    endorser = _Record.of(record.fields.get("hv:endorser") or {}, "hv:endorser")
    return _Record.of(endorser.fields.get("hv:x509") or {}, "hv:x509")


@dataclass(slots=True)
class _Reader:
    """One pass over the images of a list."""

    origin: Origin
    naming: Naming
    list_mark: str
    specs: dict[str, Spec]
    problems: list[Problem]
    expires: dict[str, datetime]

    def warn(self, event: str, message: str) -> None:
        """Note something about the list as a whole."""
        self.problems.append(Problem(Severity.WARNING, event, message, self.origin))

    def read(self, number: int, value: object) -> None:
        """Take in one image; what is wrong with it becomes a problem, never an exception."""
        origin = Origin(self.origin.list_index, number, self.origin.list_name)
        identifier = ""
        try:
            image = _image(value, number)
            identifier = image.needed("dc:identifier")
            self._add(image, identifier, origin)
        except ImageListError as error:
            what = f"image {number}: {error.message}"
            self.problems.append(
                Problem(Severity.ERROR, "list.entry_refused", what, origin, identifier, error.hint)
            )

    def _add(self, image: _Record, identifier: str, origin: Origin) -> None:
        if identifier in self.specs:
            raise ImageListError(f"dc:identifier {clipped(identifier)} stands twice in the list")
        expires = image.time("dc:date:expires")
        spec = _spec(image, identifier, origin, self.naming, self.list_mark)
        self.specs[identifier] = spec
        if expires is not None:
            self.expires[identifier] = expires


def _image(value: object, number: int) -> _Record:
    holder = _Record.of(value, f"item {number} of hv:images")
    return _Record.of(holder.fields.get("hv:image"), f"hv:image {number}")


def _spec(image: _Record, identifier: str, origin: Origin, naming: Naming, list_mark: str) -> Spec:
    return Spec(
        name=_name(image, naming, identifier),
        identity=identifier,
        descriptor=identifier,
        origin=origin,
        sources=(_fields.http_url(image.needed("hv:uri")),),
        expected=_expected(image),
        version=image.text("hv:version") or None,
        list_mark=list_mark,
    )


def _name(image: _Record, naming: Naming, identifier: str) -> str:
    """``dc:title`` for a list, ``os-osversion-arch`` for one image, else the other."""
    parts = "-".join(filter(None, map(image.text, ("sl:os", "sl:osversion", "sl:arch"))))
    title = image.text("dc:title")
    choices = (title, parts) if naming is Naming.TITLE else (parts, title)
    return _fields.image_name(next(filter(None, choices), ""), f"image {clipped(identifier)}")


_CHECKSUM = "sl:checksum:"


def _expected(image: _Record) -> Expected:
    disk_format, compression = _fields.format_and_compression(image.text("hv:format"))
    checksums = [
        (name.removeprefix(_CHECKSUM), image.text(name))
        for name in image.fields
        if name.startswith(_CHECKSUM)
    ]
    return Expected(
        published=_fields.digests(checksums, _BAD),
        published_size_bytes=_fields.size_bytes(image.text("hv:size"), "hv:size", _BAD),
        compression=compression,
        disk_format=disk_format,
    )
