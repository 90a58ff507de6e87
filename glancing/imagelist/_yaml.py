"""YAML of strangers, read strictly: plain data with the lines where it stands, or nothing.

Built from the parser's events, so that nothing recurses and what an alias stands for is counted
before anybody walks through it (fault 25, and the "billion laughs" of YAML).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from glancing.errors import ErrorKind, ImageListError
from glancing.imagelist._text import clipped, text_bytes
from glancing.model import MIB

MAX_YAML_BYTES = 4 * MIB
MAX_NODES = 300_000
"""How many values a document may have, each alias counted as all that it stands for."""
MAX_DEPTH = 32

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
# YAML 1.1, which PyYAML reads, has more booleans than YAML 1.2
_TRUE = frozenset({"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})
_FALSE = frozenset({"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value as it was written; ``plain`` tells that no quotes make it a text in any case."""

    text: str
    plain: bool
    line: int

    @property
    def is_null(self) -> bool:
        """Whether nothing is said."""
        return self.plain and self.text in _NULLS

    @property
    def boolean(self) -> bool | None:
        """Yes or no; None for everything else."""
        if not self.plain or self.text not in _TRUE | _FALSE:
            return None
        return self.text in _TRUE


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence."""

    values: Sequence[Node]
    line: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A value under a key; ``line`` is where the key stands."""

    value: Node
    line: int


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping, whose keys are all texts and different."""

    entries: Mapping[str, Entry]
    line: int


Node = Scalar | Items | Fields


def read(data: bytes, what: str) -> Node:
    """The one value of a UTF-8 document (YAML 1.1), with or without a byte order mark.

    ImageListError, with the line, for anything that is not YAML, for keys that stand twice or are
    no texts, tags other than those of texts, maps and sequences, a second document, aliases to what
    they are part of, and for more than 4 MiB, 300,000 values or 32 levels.
    """
    if len(data) > MAX_YAML_BYTES:
        raise ImageListError(f"{what} has more than {MAX_YAML_BYTES} bytes")
    builder = _Builder()
    try:
        text = text_bytes(data, what, ErrorKind.BAD_LIST).decode()
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except UnicodeError:
        raise ImageListError(f"{what} is not UTF-8") from None
    except _Unsound as error:
        raise ImageListError(f"{what}, {error}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ImageListError(f"{what} is not proper YAML: {_told(error)}") from None
    if builder.root is None:
        raise ImageListError(f"{what} has no value")
    return builder.root


def _told(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "bad character"
    return f"line {mark.line + 1}: {clipped(problem)}" if mark else clipped(str(problem))


class _Unsound(Exception):  # noqa: N818 - a reason, turned into an error at once
    """Why a document that is YAML is not read."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")


@dataclass(slots=True)
class _Frame:
    """A collection whose end was not seen yet; ``key`` waits for its value."""

    line: int
    anchor: str | None
    begun_at: int
    values: list[Node] | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    merged: list[Fields] = field(default_factory=list)
    key: Scalar | None = None


@dataclass(slots=True)
class _Builder:
    """Takes events, keeps count, and has the value in ``root`` in the end."""

    root: Node | None = None
    nodes: int = 0
    frames: list[_Frame] = field(default_factory=list)
    anchors: dict[str, tuple[Node, int] | None] = field(default_factory=dict)

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        match event:
            case yaml.ScalarEvent():
                self._scalar(event, line)
            case yaml.MappingStartEvent():
                self._begin(event, line, None)
            case yaml.SequenceStartEvent():
                self._begin(event, line, [])
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._end()
            case yaml.AliasEvent():
                self._alias(event.anchor, line)
            case yaml.DocumentStartEvent() if self.root is not None:
                raise _Unsound(line, "a second document begins")
            case _:
                pass

    def _count(self, line: int, nodes: int = 1) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise _Unsound(line, f"more than {MAX_NODES} values")

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        _require_tag(event.tag, "str", line)
        if not event.value.isascii():
            event.value.encode()  # an escape may have made an unpaired surrogate
        self._count(line)
        scalar = Scalar(event.value, event.implicit[0], line)
        if event.anchor is not None:
            self.anchors[event.anchor] = (scalar, 1)
        self._add(scalar)

    def _begin(
        self, event: yaml.CollectionStartEvent, line: int, values: list[Node] | None
    ) -> None:
        _require_tag(event.tag, "map" if values is None else "seq", line)
        if len(self.frames) >= MAX_DEPTH:
            raise _Unsound(line, f"nested more than {MAX_DEPTH} deep")
        self._count(line)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.frames.append(_Frame(line, event.anchor, self.nodes, values))

    def _end(self) -> None:
        frame = self.frames.pop()
        node: Node
        if frame.values is not None:
            node = Items(frame.values, frame.line)
        else:
            for base in frame.merged:
                frame.entries = {**base.entries, **frame.entries}
            node = Fields(frame.entries, frame.line)
        if frame.anchor is not None:
            self.anchors[frame.anchor] = (node, self.nodes - frame.begun_at + 1)
        self._add(node)

    def _alias(self, anchor: str | None, line: int) -> None:
        known = self.anchors.get(anchor or "")
        if known is None:
            raise _Unsound(line, f"the alias *{clipped(anchor or '')} stands for nothing yet")
        node, size = known
        self._count(line, size)
        self._add(node)

    def _add(self, node: Node) -> None:
        if not self.frames:
            self.root = node
            return
        frame = self.frames[-1]
        if frame.values is not None:
            frame.values.append(node)
        elif frame.key is None:
            frame.key = _key(node, frame)
        else:
            _put(frame, frame.key, node)
            frame.key = None


def _key(node: Node, frame: _Frame) -> Scalar:
    if not isinstance(node, Scalar):
        raise _Unsound(node.line, "a key is no text")
    if node.text in frame.entries:
        raise _Unsound(node.line, f"the key {clipped(node.text)} stands twice")
    return node


def _put(frame: _Frame, key: Scalar, node: Node) -> None:
    if key.text != "<<" or not key.plain:
        frame.entries[key.text] = Entry(node, key.line)
        return
    # The merge key (https://yaml.org/type/merge.html): what is not said here is as it is there.
    bases = node.values if isinstance(node, Items) else [node]
    for base in bases:
        if not isinstance(base, Fields):
            raise _Unsound(key.line, "<< takes in what is no map")
        frame.merged.append(base)


def _require_tag(tag: str | None, kind: str, line: int) -> None:
    if tag not in (None, "!", _CORE + kind):
        raise _Unsound(line, f"the tag {clipped(tag or '')} is not read")
