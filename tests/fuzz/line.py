"""One run's connection to the store: it breaks where it is told to, and watches every change.

What is promised at every instant is checked here, at each call that changes something, and not only
after a run: P1, P2 and P4 of the fuzzed machine. What was broken is noted and not raised, because a
run takes exceptions for its own business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeVar

from glancing.errors import StoreError
from glancing.model import (
    ImageChange,
    NewImage,
    Options,
    SourceStream,
    State,
    StoredImage,
    UploadBody,
)
from tests.fakes import PROJECT, Crash, FakeStore
from tests.fuzz.market import BARE, Market, sha512

R = TypeVar("R")

Break = Literal[
    "crash before",  # the process dies, and the call was not made
    "crash after",  # the process dies, and the call was made
    "crash inside",  # it dies in the middle of an upload; Glance takes the image back
    "crash both",  # Glance dies as well, in the middle of an upload
    "error",  # the call fails and did nothing
    "lost answer",  # the call fails and did everything
    "intruder",  # another run comes in between
]


@dataclass(frozen=True, slots=True)
class Accident:
    """What happens at one call of the store, counted from 0."""

    kind: Break
    position: int


@dataclass(slots=True)
class Run:
    """One run, as far as its conduct can be judged by its calls."""

    run_id: str
    options: Options
    promised_before: int
    accident: Accident | None = None
    intrude: Callable[[], None] | None = None
    happened: bool = False
    changes: int = 0
    broken: list[str] = field(default_factory=list)

    def demand(self, condition: bool, message: str) -> None:
        """Note a promise that was broken."""
        if not condition:
            self.broken.append(message)


class Line:
    """``model.ImageStore`` for one run; after a crash nothing of the run gets through any more."""

    project_id = PROJECT
    _one_at_a_time = threading.RLock()

    def __init__(self, store: FakeStore, market: Market, run: Run) -> None:
        self._store = store
        self._market = market
        self._run = run
        self._calls = 0
        self._dead = False

    # --- model.ImageStore ---

    def now(self) -> datetime:
        return self._store.now()

    def inventory(self) -> tuple[StoredImage, ...]:
        return self._call(self._store.inventory)

    def get(self, image_id: str) -> StoredImage | None:
        return self._call(lambda: self._store.get(image_id))

    def members(self, image_id: str) -> tuple[str, ...]:
        return self._call(lambda: self._store.members(image_id))

    def download(self, image: StoredImage) -> AbstractContextManager[SourceStream]:
        return self._call(lambda: self._store.download(image))

    def create(self, image: NewImage) -> StoredImage | None:
        return self._changing(lambda: self._store.create(image))

    def upload(self, image_id: str, body: UploadBody) -> None:
        def act() -> None:
            before = self._image(image_id)
            self._run.demand(before is None or is_incoming(before), f"P4: filled {before}")
            self._store.upload(image_id, _Breaking(body, self))

        self._run.changes += 1
        self._call(act, inside=image_id)
        self._store.clock.advance(1)

    def update(self, image: StoredImage, change: ImageChange) -> StoredImage:
        def act() -> StoredImage:
            before, names = self._image(image.id), self._usable_names()
            after = self._store.update(image, change)
            if before is not None:
                self._check_owner(before, after, change)
                self._check_promise(before, after)
                self._check_names(names, before, change)
            return after

        return self._changing(act)

    def deactivate(self, image_id: str) -> None:
        self._changing(lambda: self._store.deactivate(image_id))

    def delete(self, image_id: str) -> None:
        def act() -> None:
            image = self._image(image_id)
            ours = image is None or (image.owner == PROJECT and image.marked)
            on_its_way = image is None or (is_incoming(image) and image.hidden)
            self._run.demand(ours and on_its_way, f"P4: deleted {image}")
            self._store.delete(image_id)

        self._changing(act)

    def add_member(self, image_id: str, project_id: str) -> None:
        def act() -> None:
            image = self._image(image_id)
            ours = image is None or (image.owner == PROJECT and image.marked)
            self._run.demand(ours, f"P4: shared {image}")
            self._store.add_member(image_id, project_id)

        self._changing(act)

    # --- accidents ---

    def _changing(self, act: Callable[[], R]) -> R:
        def alone() -> R:
            with self._one_at_a_time:
                self._store.clock.advance(1)
                return act()

        self._run.changes += 1
        return self._call(alone)

    def _call(self, act: Callable[[], R], inside: str = "") -> R:
        if self._dead:
            raise Crash("the process is dead")
        kind = self._accident()
        self._calls += 1
        if kind == "crash before" or (kind in ("crash inside", "crash both") and not inside):
            self._die()
        if kind == "error":
            raise StoreError("Glance answered 503", transient=True)
        if kind == "intruder" and not inside and self._run.intrude:
            self._run.intrude()
        try:
            result = act()
        except Crash:
            if kind == "crash both":
                self._store.set_status(inside, "saving")
            raise
        if kind == "crash after":
            self._die()
        if kind == "lost answer":
            raise StoreError("Glance answered and nobody heard it", transient=True)
        return result

    def _accident(self) -> Break | None:
        accident = self._run.accident
        if accident is None or accident.position != self._calls:
            return None
        self._run.happened = True
        return accident.kind

    def _die(self) -> None:
        self._dead = True
        raise Crash("the process dies")

    def in_upload(self) -> None:
        """What happens in the middle of an upload, which was counted already."""
        accident = self._run.accident
        if accident is None or accident.position != self._calls - 1:
            return
        if accident.kind in ("crash inside", "crash both"):
            self._die()
        if accident.kind == "intruder" and self._run.intrude:
            self._run.intrude()

    # --- promises ---

    def _image(self, image_id: str) -> StoredImage | None:
        return next((image for image in self._store.images() if image.id == image_id), None)

    def _usable_names(self) -> set[str]:
        return {image.name for image in self._store.images() if is_usable(image)}

    def _check_owner(self, before: StoredImage, after: StoredImage, change: ImageChange) -> None:
        """P4: of what glancing did not make, nothing but the name given up in a replace.

        One that became a backup so has its name dated when the next one comes.
        """
        self._run.demand(before.owner == PROJECT, f"P4: changed another owner's {before}")
        if before.marked or (self._run.options.adopt and change.tags):
            return
        dated = before.state == State.BACKUP and after.name.startswith(f"{before.name}_20")
        renamed = dated or after.name == f"{before.name}_old"
        retired = renamed and after.hidden and change.tags is None
        theirs = {k: v for k, v in before.properties.items() if not k.startswith("glancing_")}
        kept = {k: v for k, v in after.properties.items() if not k.startswith("glancing_")}
        self._run.demand(retired and theirs == kept, f"P4: changed {before} by {change}")

    def _check_promise(self, before: StoredImage, after: StoredImage) -> None:
        """P1: what becomes visible holds the published bytes, or says that it was forced."""
        if not is_incoming(before) or is_incoming(after):
            return
        digest, options = sha512(self._store.data_of(after.id)), self._run.options
        identity = after.identity or ""
        holds = {
            "published": self._is_promised(identity, digest),
            "forced": options.force,
            "none": identity == BARE or not options.verify_digests,
        }
        word = after.properties.get("glancing_integrity", "")
        self._run.demand(holds.get(word, False), f"P1: {word} is not true of {after}")

    def _is_promised(self, identity: str, digest: str) -> bool:
        """Whether these bytes were published when the run began, or since."""
        promised = self._market.promised
        earlier = [each for each in promised[: self._run.promised_before] if each[0] == identity]
        return (identity, digest) in [*earlier[-1:], *promised[self._run.promised_before :]]

    def _check_names(self, names: set[str], before: StoredImage, change: ImageChange) -> None:
        """P2: a name that had a usable image keeps one, unless its publisher gave it up."""
        lost = names - self._usable_names()
        entry = self._market.published.get(before.identity or "")
        renamed = change.properties.get("glancing_state") != State.BACKUP
        if renamed or (entry is not None and entry.title != before.name):
            lost.discard(before.name)  # the list has another name for it
        self._run.demand(not lost, f"P2: nothing is called {lost} after {change} of {before}")


class _Breaking:
    """The body of an upload, in the middle of which accidents happen."""

    def __init__(self, body: UploadBody, line: Line) -> None:
        self._body = body
        self._line = line
        self.size_bytes = body.size_bytes

    def __iter__(self) -> Iterator[bytes]:
        pieces = iter(self._body)
        yield next(pieces)
        self._line.in_upload()
        yield from pieces


def is_incoming(image: StoredImage) -> bool:
    """Whether it is an image on its way."""
    return image.state == State.INCOMING


def is_usable(image: StoredImage) -> bool:
    """Whether somebody could boot it by its name at this instant."""
    return image.owner == PROJECT and image.status == "active" and not image.hidden
