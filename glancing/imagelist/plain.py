"""The seed's image list: one descriptor per line, ``#`` comments, blank lines.

A line may go on with ``key=value`` words (``name id sums format version``; a value with white space
stands in double quotes), or be ``list=`` and another list. Any other white space inside, and a
duplicate, are skipped with a warning (the seed's rules); a line that cannot be read costs that
line, and only a file that is no text costs the list (fault 36).
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist import _fields
from glancing.imagelist._fields import shown
from glancing.imagelist._json import MAX_JSON_BYTES
from glancing.imagelist._text import clipped, text_bytes
from glancing.imagelist.descriptor import MAX_DEPTH, parse_descriptor
from glancing.model import (
    MIB,
    Keys,
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
    algorithm_named,
)

MAX_SUMS_BYTES = 16 * MIB
"""How much of a checksum file may be read."""

_INCLUSION = "list="
_WORD = re.compile(r"(name|id|sums|format|version)=(?:\"([^\"]*)\"|([^\s\"]+))")


def parse(data: bytes, context: ListContext) -> Parsed:
    """Read a list; the line numbers of ``context.origin`` are filled in here.

    ImageListError when the file is UTF-16 or binary.
    """
    reader = _Reader(context)
    for line, content in _entries(text_bytes(data, _list(context.origin), ErrorKind.BAD_LIST)):
        reader.read(line, content)
    return reader.result()


def _entries(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that are neither blank nor comments, with their numbers."""
    for number, line in enumerate(io.BytesIO(data), start=1):
        content = line.strip()
        if content and not content.startswith(b"#"):
            yield number, content


def _list(origin: Origin) -> str:
    return f"the list {clipped(origin.list_name)}" if origin.list_name else "the list"


@dataclass(slots=True)
class _Reader:
    """One pass over a list: what it wants so far, by identity, and what is wrong with it."""

    context: ListContext
    entries: dict[str, Spec | Need] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def read(self, line: int, content: bytes) -> None:
        """Take in one line; what is wrong with it becomes a problem, never an exception."""
        origin = replace(self.context.origin, line=line)
        text = content.decode("utf-8", "surrogateescape").strip()
        if not text:  # blank to Unicode, but not to ASCII
            return
        words = _words(text)
        if words is None:
            self._skip(origin, "list.line_skipped", "has white space: one image per line", text)
            return
        try:
            self._add(self._parse(*words, origin))
        except ImageListError as error:
            self._refuse(origin, error, text.split()[0])

    def _parse(self, text: str, pairs: dict[str, str], origin: Origin) -> Spec | Need:
        if text.startswith(_INCLUSION):
            return self._inclusion(text.removeprefix(_INCLUSION), pairs, origin)
        keys = self._keys(pairs)
        entry = parse_descriptor(
            text,
            marketplace=self.context.marketplace,
            base=self.context.folder,
            trusted=self.context.trusted,
            origin=origin,
            naming=self.context.naming,
            name=keys.name,
        )
        return replace(entry, keys=keys) if isinstance(entry, Need) else _with_sums(entry, keys)

    def _keys(self, pairs: dict[str, str]) -> Keys:
        sums = pairs.get("sums")
        literal = _literal_digests(sums) if sums else None
        name, identity = pairs.get("name"), pairs.get("id")
        return Keys(
            name=_fields.image_name(name, "name=") if name is not None else None,
            id=_fields.image_name(identity, "id=") if identity is not None else None,
            version=pairs.get("version"),
            format=pairs.get("format"),
            sums=_fields.digests(literal, ErrorKind.BAD_DIGEST) if literal else (),
            sums_files=(self._location(sums),) if sums and not literal else (),
        )

    def _location(self, text: str) -> Location:
        """A further document; only lists that are the operator's own name files (fault 15)."""
        scheme = _fields.scheme_of(text)
        if scheme not in (None, "file"):
            return _fields.http_url(text)
        if self.context.folder is None:
            raise ImageListError(
                f"{shown(text)} is a local path, and this list is not local",
                hint="lists that are fetched may only name http and https addresses and IDs",
            )
        path = _fields.file_path(text) if scheme == "file" else text
        return LocalPath(Path(posixpath.normpath(self.context.folder / path)))

    def _inclusion(self, text: str, pairs: dict[str, str], origin: Origin) -> Need:
        if not text or pairs:
            raise ImageListError("list= takes the address or path of a list, and no other words")
        location = self._location(text)
        path = (*self.context.included_by, str(self.context.location))
        if str(location) in path:
            raise ImageListError(f"{location} includes itself")
        if len(path) > MAX_DEPTH:
            raise ImageListError(f"{location}: lists include lists more than {MAX_DEPTH} deep")
        inner = replace(origin, list_name=str(location), line=0, depth=len(path))
        context = replace(
            self.context,
            location=location,
            origin=inner,
            reading=replace(self.context.reading, format=None),
            included_by=path,
        )
        return Need(
            NeedKind.LIST,
            location,
            MAX_JSON_BYTES,
            shown(text),
            origin,
            trusted=context.trusted,
            context=context,
        )

    def _add(self, entry: Spec | Need) -> None:
        earlier = self.entries.setdefault(_identity(entry), entry)
        if earlier is entry:
            return
        line = earlier.origin.line
        if _same_address(earlier, entry):
            what = f"names the image of line {line} again"
            self._skip(entry.origin, "list.duplicate_skipped", what, entry.descriptor)
            return
        raise ImageListError(
            f"{entry.descriptor} differs from line {line} only in user info or query",
            hint="such URLs are taken for one image: give id= to tell them apart",
        )

    def _skip(self, origin: Origin, event: str, what: str, text: str) -> None:
        message = f"{_list(origin)}, line {origin.line} {what}"
        self.problems.append(Problem(Severity.WARNING, event, message, origin, shown(text)))

    def _refuse(self, origin: Origin, error: ImageListError, text: str) -> None:
        message = f"{_list(origin)}, line {origin.line}: {error.message}"
        self.problems.append(
            Problem(Severity.ERROR, "list.entry_refused", message, origin, shown(text), error.hint)
        )

    def result(self) -> Parsed:
        """All that was read; a list without any entry gets a warning of its own."""
        if not self.entries and not self.problems:
            what = f"{_list(self.context.origin)} has no entry"
            self.problems.append(Problem(Severity.WARNING, "list.empty", what, self.context.origin))
        found = self.entries.values()
        return Parsed(
            specs=tuple(entry for entry in found if isinstance(entry, Spec)),
            problems=tuple(self.problems),
            needs=tuple(entry for entry in found if isinstance(entry, Need)),
        )


def _words(text: str) -> tuple[str, dict[str, str]] | None:
    """The descriptor and its keys; None when a word is neither, or a key stands twice."""
    first, *others = text.split(maxsplit=1)
    rest, pairs = "".join(others), dict[str, str]()
    while rest:
        word = _WORD.match(rest)
        if word is None or word[1] in pairs or rest[word.end() :][:1].strip():
            return None
        pairs[word[1]] = word[2] if word[2] is not None else word[3]
        rest = rest[word.end() :].lstrip()
    return first, pairs


def _literal_digests(text: str) -> list[tuple[str | None, str]] | None:
    """``[algorithm:]digest`` parts between colons, as ``-s`` takes them; None for an address."""
    label: str | None = None
    found = []
    for part in text.split(":"):
        if label is None and algorithm_named(part):
            label = part
        elif re.fullmatch(r"[0-9A-Fa-f]{32,128}", part):
            found.append((label, part))
            label = None
        else:
            return None
    return found if label is None else None


def _with_sums(spec: Spec, keys: Keys) -> Spec | Need:
    """An image whose keys are applied; a need while its digests are still to be read."""
    keyed = with_keys(spec, keys)
    return need_of_sums(keyed, keys) if keys.sums_files else keyed


def need_of_sums(spec: Spec, keys: Keys) -> Need:
    """What is needed for an image whose digests stand in other files."""
    return Need(
        NeedKind.SUMS,
        keys.sums_files[0],
        MAX_SUMS_BYTES,
        spec.descriptor,
        spec.origin,
        trusted=isinstance(keys.sums_files[0], LocalPath),
        keys=keys,
        spec=spec,
    )


def with_keys(spec: Spec, keys: Keys) -> Spec:
    """The image as the words after its descriptor have it; digests only where it has none yet."""
    disk_format, compression = _fields.format_and_compression(keys.format or "")
    expected = spec.expected
    if keys.sums and not expected.digests:
        expected = replace(expected, either=keys.sums)
    return replace(
        spec,
        name=keys.name or spec.name,
        identity=keys.id or spec.identity,
        version=keys.version or spec.version,
        expected=replace(
            expected,
            disk_format=disk_format or expected.disk_format,
            compression=compression or expected.compression,
        ),
    )


def _same_address(one: Spec | Need, other: Spec | Need) -> bool:
    """Whether two entries of one identity are read from one place; paths have no hidden parts."""
    first, second = _address(one), _address(other)
    return isinstance(first, LocalPath) or first == second


def _image(entry: Spec | Need) -> Spec | Need:
    return entry.spec or entry if isinstance(entry, Need) else entry


def _address(entry: Spec | Need) -> Location:
    image = _image(entry)
    return image.sources[0] if isinstance(image, Spec) else image.location


def _identity(entry: Spec | Need) -> str:
    image = _image(entry)
    if isinstance(image, Spec):
        return image.identity
    return image.keys.id or image.mpid or str(image.location)
