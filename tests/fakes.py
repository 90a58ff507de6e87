"""In-memory stand-ins for what lies outside: Glance, the sources, the clock, the event stream.

``FakeStore`` behaves as Glance was seen to: ``test_store_conformance`` holds it and the real one to
the same words.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from glancing.errors import DownloadError, ErrorKind, StoreError
from glancing.model import (
    ImageChange,
    LocalPath,
    Location,
    NewImage,
    SourceStream,
    StoredImage,
    UploadBody,
    Validators,
)

PROJECT = "a-project"
NO_VALIDATORS = Validators()
_MAX_NAME_CHARACTERS = 255
_MAX_VALUE_BYTES = 65_535
_LAST_OF_THE_BASIC_PLANE = "\uffff"


class FakeClock:
    """Stands still until a test advances it."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic_s = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic_s += seconds


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it was reported."""

    level: str
    name: str
    fields: Mapping[str, Any]


class ListEvents:
    """Keeps events in a list."""

    def __init__(self) -> None:
        self.all: list[Event] = []

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.all]

    def named(self, name: str) -> list[Event]:
        return [event for event in self.all if event.name == name]

    def debug(self, event: str, **fields: Any) -> None:
        self.all.append(Event("debug", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.all.append(Event("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.all.append(Event("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.all.append(Event("error", event, fields))


class Body:
    """An ``UploadBody`` of given pieces; refuses to be read a second time."""

    def __init__(
        self, *pieces: bytes, size_bytes: int | None = None, error: Exception | None = None
    ) -> None:
        self._pieces = pieces
        self._error = error
        self.size_bytes = size_bytes
        self.reads = 0

    @classmethod
    def sized(cls, *pieces: bytes) -> Body:
        return cls(*pieces, size_bytes=sum(map(len, pieces)))

    def __iter__(self) -> Iterator[bytes]:
        self.reads += 1
        assert self.reads == 1, "the body of an upload is read once"
        yield from self._pieces
        if self._error is not None:
            raise self._error


# --- sources --------------------------------------------------------------------------------------


@dataclass(slots=True)
class FakeSource:
    """What lies at one location, and what is wrong with it.

    ``break_after`` is the number of bytes after which ``error`` is raised, or the stream silently
    ends where there is none. ``refuse`` is raised by every attempt to open, probe or read.
    """

    data: bytes = b""
    validators: Validators = NO_VALIDATORS
    announces_size: bool = True
    end_is_proven: bool = True
    piece_bytes: int = 1024
    break_after: int | None = None
    error: Exception | None = None
    refuse: Exception | None = None


class FakeStream:
    """The bytes of a ``FakeSource`` or of a stored image, piece by piece."""

    def __init__(self, source: FakeSource) -> None:
        self._source = source
        self.size_bytes = len(source.data) if source.announces_size else None
        self.validators = source.validators
        self.end_is_proven = source.end_is_proven
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        source = self._source
        sent = source.data[: source.break_after]
        for start in range(0, len(sent), source.piece_bytes):
            if self.closed:
                raise DownloadError("broken off", kind=ErrorKind.INTERRUPTED)
            yield sent[start : start + source.piece_bytes]
        if source.break_after is not None and source.error is not None:
            raise source.error

    def close(self) -> None:
        self.closed = True


class FakeSources:
    """``model.Sources`` over a dictionary, which a test may change at any time.

    ``opened``, ``probed`` and ``fetched`` tell what was asked for, in order.
    """

    def __init__(self, contents: Mapping[Location, FakeSource | bytes] | None = None) -> None:
        self.contents: dict[Location, FakeSource] = {}
        for location, content in (contents or {}).items():
            self.put(location, content)
        self.opened: list[Location] = []
        self.probed: list[Location] = []
        self.fetched: list[Location] = []
        self.vouched: set[Location] = set()

    def vouch(self, locations: Iterable[Location]) -> None:
        self.vouched.update(locations)

    def put(self, location: Location, content: FakeSource | bytes) -> FakeSource:
        source = FakeSource(content) if isinstance(content, bytes) else content
        self.contents[location] = source
        return source

    def names_in(self, location: Location) -> tuple[str, ...] | None:
        if not isinstance(location, LocalPath):
            return None
        paths = [found.path for found in self.contents if isinstance(found, LocalPath)]
        names = tuple(sorted(path.name for path in paths if path.parent == location.path))
        return names or None

    def open(self, location: Location) -> AbstractContextManager[SourceStream]:
        self.opened.append(location)
        return closing(FakeStream(self._find(location)))

    def probe(self, location: Location) -> Validators:
        self.probed.append(location)
        return self._find(location).validators

    def read(self, location: Location, max_bytes: int) -> bytes:
        self.fetched.append(location)
        data = b"".join(FakeStream(self._find(location)))
        if len(data) > max_bytes:
            raise DownloadError(f"more than {max_bytes} bytes", kind=ErrorKind.TOO_LARGE)
        return data

    def _find(self, location: Location) -> FakeSource:
        source = self.contents.get(location)
        if source is None:
            raise DownloadError(f"nothing at {location}", kind=ErrorKind.NOT_FOUND)
        if source.refuse is not None:
            raise source.refuse
        return source


# --- Glance ---------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process dies here; nothing may catch it."""


@dataclass(slots=True)
class _Held:
    image: StoredImage
    data: bytes = b""
    members: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the store: the method and the image it was about (its name for ``create``)."""

    method: str
    subject: str = ""


class FakeStore:
    """``model.ImageStore`` in memory, as a member of one project sees it.

    ``calls`` records what was asked for. ``crash_before`` and ``crash_after`` are positions in it,
    counted from 0, at which the process dies: before the call did anything, or after it did all.
    From then on no call of it reaches the store, until ``revive`` starts another one.
    """

    project_id = PROJECT

    def __init__(self, clock: FakeClock | None = None, *, may_publicize: bool = False) -> None:
        self.clock = clock or FakeClock()
        self.may_publicize = may_publicize
        self.calls: list[Call] = []
        self.crash_before: int | None = None
        self.crash_after: int | None = None
        self.dead = False
        self._held: dict[str, _Held] = {}
        self._ids: set[str] = set()
        self._lock = threading.RLock()

    # --- setting scenes ---

    def add(self, image: StoredImage, data: bytes = b"", members: Iterable[str] = ()) -> None:
        """Put an image there as it is, whoever made it."""
        image = replace(image, owner=image.owner or PROJECT)
        self._held[image.id] = _Held(image, data, list(members))
        self._ids.add(image.id)

    def add_filled(self, image: StoredImage, data: bytes) -> StoredImage:
        """Put an active image there, with what Glance computes over its data."""
        filled = _filled(replace(image, created_at=self.clock.now()), data, self.clock.now())
        self.add(filled, data)
        return self._held[image.id].image

    def data_of(self, image_id: str) -> bytes:
        return self._held[image_id].data

    def members_of(self, image_id: str) -> tuple[str, ...]:
        return tuple(self._held[image_id].members)

    def images(self) -> tuple[StoredImage, ...]:
        """All images of all owners, without a call being recorded."""
        return tuple(held.image for held in self._held.values())

    def set_status(self, image_id: str, status: str) -> None:
        """What only an administrator or a crash does."""
        held = self._held[image_id]
        held.image = replace(held.image, status=status)

    def revive(self) -> None:
        """Start another process, which does not die."""
        self.dead = False
        self.crash_before = self.crash_after = None

    # --- model.ImageStore ---

    def now(self) -> datetime:
        return self.clock.now()

    def inventory(self) -> tuple[StoredImage, ...]:
        with self._call("inventory"):
            return tuple(image for image in self.images() if image.owner == PROJECT)

    def get(self, image_id: str) -> StoredImage | None:
        with self._call("get", image_id):
            held = self._held.get(image_id)
            return held.image if held else None

    def create(self, image: NewImage) -> StoredImage | None:
        with self._call("create", image.name):
            _check_texts(image.name, image.properties)
            image_id = image.id or str(uuid.uuid4())
            if image_id in self._ids:
                return None
            self._ids.add(image_id)
            now = self.clock.now()
            made = StoredImage(
                id=image_id,
                name=image.name,
                status="queued",
                visibility="private",
                hidden=True,
                owner=PROJECT,
                disk_format=image.disk_format,
                container_format=image.container_format,
                min_disk_gib=image.min_disk_gib,
                min_ram_mib=image.min_ram_mib,
                tags=image.tags,
                properties=MappingProxyType(dict(image.properties)),
                created_at=now,
                updated_at=now,
            )
            self._held[made.id] = _Held(made)
            return made

    def upload(self, image_id: str, body: UploadBody) -> None:
        with self._call("upload", image_id):
            held = self._find(image_id, "take the image's data")
            if held.image.status != "queued":
                raise _refusal(409, "take the image's data")
            before = held.image
            held.image = replace(before, status="saving")
            try:
                data = b"".join(body)
            except BaseException:
                held.image = before
                raise
            if image_id not in self._held:
                raise _refusal(410, "take the image's data")
            # What was changed meanwhile is undone: Glance writes the record as it was read.
            held.image = before
            if body.size_bytes is not None and body.size_bytes != len(data):
                raise StoreError("not the bytes that were announced", kind=ErrorKind.WRONG_SIZE)
            held.image = _filled(before, data, self.clock.now())
            held.data = data

    def update(self, image: StoredImage, change: ImageChange) -> StoredImage:
        with self._call("update", image.id):
            held = self._find(image.id, "change the image's record")
            _check_texts(change.name, change.properties)
            if change.visibility == "public" and not self.may_publicize:
                raise _refusal(403, "change the image's record")
            held.image = replace(_changed(held.image, change), updated_at=self.clock.now())
            return held.image

    def deactivate(self, image_id: str) -> None:
        with self._call("deactivate", image_id):
            held = self._find(image_id, "deactivate the image")
            if held.image.status not in ("active", "deactivated"):
                raise _refusal(403, "deactivate the image")
            held.image = replace(held.image, status="deactivated")

    def delete(self, image_id: str) -> None:
        with self._call("delete", image_id):
            held = self._held.get(image_id)
            if held is None:
                return
            if held.image.protected:
                raise _refusal(403, "delete the image")
            del self._held[image_id]

    def download(self, image: StoredImage) -> AbstractContextManager[SourceStream]:
        with self._call("download", image.id):
            held = self._find(image.id, "download the stored image")
            if held.image.status == "deactivated":
                raise _refusal(403, "download the stored image")
            if held.image.status != "active":
                raise _refusal(204, "download the stored image")
            return closing(FakeStream(FakeSource(held.data, piece_bytes=1 << 16)))

    def members(self, image_id: str) -> tuple[str, ...]:
        with self._call("members", image_id):
            return tuple(self._find(image_id, "list the image's members").members)

    def add_member(self, image_id: str, project_id: str) -> None:
        with self._call("add_member", image_id):
            held = self._find(image_id, "share the image")
            if held.image.visibility != "shared":
                raise _refusal(403, "share the image")
            if project_id not in held.members:
                held.members.append(project_id)

    # --- plumbing ---

    def _call(self, method: str, subject: str = "") -> _Recorded:
        return _Recorded(self, Call(method, subject))

    def _find(self, image_id: str, task: str) -> _Held:
        held = self._held.get(image_id)
        if held is None:
            raise _refusal(404, task)
        return held


class _Recorded:
    """Around one call: records it, and dies before or after it where a test wants that."""

    def __init__(self, store: FakeStore, call: Call) -> None:
        self._store = store
        self._call = call
        self._position = -1

    def __enter__(self) -> None:
        with self._store._lock:
            if self._store.dead:
                raise Crash("the process is dead")
            self._position = len(self._store.calls)
            self._store.calls.append(self._call)
        if self._position == self._store.crash_before:
            self._store.dead = True
            raise Crash(f"before {self._call}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._position == self._store.crash_after:
            self._store.dead = True
            raise Crash(f"after {self._call}")


_KINDS = {403: ErrorKind.FORBIDDEN, 413: ErrorKind.QUOTA_EXCEEDED, 415: ErrorKind.REJECTED_FORMAT}


def _refusal(status: int, task: str) -> StoreError:
    return StoreError(
        f"Glance did not {task}: HTTP {status}",
        kind=_KINDS.get(status),
        transient=status in (404, 409, 410),
    )


def _filled(image: StoredImage, data: bytes, now: datetime) -> StoredImage:
    return replace(
        image,
        status="active",
        size_bytes=len(data),
        checksum=hashlib.md5(data, usedforsecurity=False).hexdigest(),
        hash_algorithm="sha512",
        hash_value=hashlib.sha512(data).hexdigest(),
        updated_at=now,
    )


def _changed(image: StoredImage, change: ImageChange) -> StoredImage:
    kept = {key: value for key, value in image.properties.items() if key not in change.remove}
    fields = {
        "name": change.name,
        "visibility": change.visibility,
        "hidden": change.hidden,
        "protected": change.protected,
        "min_disk_gib": change.min_disk_gib,
        "min_ram_mib": change.min_ram_mib,
        "tags": change.tags,
    }
    given = {key: value for key, value in fields.items() if value is not None}
    properties = MappingProxyType({**kept, **change.properties})
    return replace(image, properties=properties, **given)  # type: ignore[arg-type]


def _check_texts(name: str | None, properties: Mapping[str, str]) -> None:
    too_long = len(name or "") > _MAX_NAME_CHARACTERS or any(
        len(key) > _MAX_NAME_CHARACTERS or len(value.encode()) > _MAX_VALUE_BYTES
        for key, value in properties.items()
    )
    if too_long:
        raise _refusal(400, "take so long a name or value")
    texts = (name or "", *properties.keys(), *properties.values())
    if any(character > _LAST_OF_THE_BASIC_PLANE for text in texts for character in text):
        raise _refusal(400, "take 4 byte characters")
