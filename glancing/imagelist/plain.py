"""The seed's image list: one descriptor per line, ``#`` comments, blank lines.

A line with white space inside and a duplicate are skipped with a warning (the seed's rules); a line
that cannot be read costs that line, and only a file that is no text costs the list (fault 36).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist._fields import shown
from glancing.imagelist._text import clipped, text_bytes
from glancing.imagelist.descriptor import parse_descriptor
from glancing.model import (
    LocalPath,
    Location,
    Naming,
    Need,
    Origin,
    Parsed,
    Problem,
    Severity,
    Spec,
    Url,
)


def parse(
    data: bytes,
    *,
    marketplace: Url,
    base: Path | None,
    trusted: bool,
    origin: Origin,
    naming: Naming = Naming.TITLE,
) -> Parsed:
    """Read a list; ``origin`` says which one, the line numbers are filled in here.

    ``base``, ``trusted`` and ``naming`` are those of ``parse_descriptor``. ImageListError when the
    file is UTF-16 or binary.
    """
    reader = _Reader(marketplace, base, trusted, origin, naming)
    for line, content in _entries(text_bytes(data, _list(origin), ErrorKind.BAD_LIST)):
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

    marketplace: Url
    base: Path | None
    trusted: bool
    origin: Origin
    naming: Naming
    entries: dict[str, Spec | Need] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def read(self, line: int, content: bytes) -> None:
        """Take in one line; what is wrong with it becomes a problem, never an exception."""
        origin = Origin(self.origin.list_index, line, self.origin.list_name)
        text = content.decode("utf-8", "surrogateescape").strip()
        if len(text.split()) > 1:
            self._skip(origin, "list.line_skipped", "has white space: one image per line", text)
            return
        try:
            self._add(self._parse(text, origin))
        except ImageListError as error:
            self._refuse(origin, error, text)

    def _parse(self, text: str, origin: Origin) -> Spec | Need:
        return parse_descriptor(
            text,
            marketplace=self.marketplace,
            base=self.base,
            trusted=self.trusted,
            origin=origin,
            naming=self.naming,
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
            what = f"{_list(self.origin)} has no entry"
            self.problems.append(Problem(Severity.WARNING, "list.empty", what, self.origin))
        found = self.entries.values()
        return Parsed(
            specs=tuple(entry for entry in found if isinstance(entry, Spec)),
            problems=tuple(self.problems),
            needs=tuple(entry for entry in found if isinstance(entry, Need)),
        )


def _same_address(one: Spec | Need, other: Spec | Need) -> bool:
    """Whether two entries of one identity are read from one place; paths have no hidden parts."""
    first, second = _address(one), _address(other)
    return isinstance(first, LocalPath) or first == second


def _address(entry: Spec | Need) -> Location:
    return entry.sources[0] if isinstance(entry, Spec) else entry.location


def _identity(entry: Spec | Need) -> str:
    return entry.identity if isinstance(entry, Spec) else entry.mpid or str(entry.location)
