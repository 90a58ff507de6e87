"""Brings the data of one image into Glance, where nobody can see or boot it yet.

These are the first three steps of ``Publisher.publish``: a record under an id that two runs cannot
both get, one request with the data, whose tail is held back until everything is verified, and
Glance's own digests. What comes out is an active image, private and hidden, whose bytes are proven.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from glancing import marks
from glancing.errors import ErrorKind, GlancingError, ImageError, InterruptedRunError, StoreError
from glancing.intake import Intake, Receiver, from_mirrors
from glancing.leftovers import Life, Target, is_incoming, life_of, remove_leftover
from glancing.model import (
    Digest,
    ImageChange,
    ImageStore,
    Location,
    Measured,
    NewImage,
    Spec,
    StoredImage,
)
from glancing.pipeline import Body, Hasher, upload_body
from glancing.retry import call

_ATTEMPTS = 3
_IDS = 1000
# After its last byte an upload may still take as long as the store waits for Glance's answer.
_LAST_ANSWER = timedelta(minutes=20)


class FoundEqualError(ImageError):
    """The bytes just read are those that Glance has; the tail is not sent."""

    def __init__(self, intake: Intake, stored: StoredImage) -> None:
        super().__init__("the bytes are those of the stored image")
        self.intake = intake
        self.stored = stored


@dataclass(frozen=True, slots=True)
class Filled:
    """An incoming image whose data is in Glance and confirmed."""

    stored: StoredImage
    intake: Intake
    backup_path: Path | None


class Filler:
    """Fills incoming images for one run; safe to use from several threads.

    ``inventory`` is what Glance had when the run began, ``left`` has images among it that dead runs
    filled and did not publish.
    """

    def __init__(
        self,
        store: ImageStore,
        inventory: Iterable[StoredImage],
        receiver: Receiver,
        run_id: str,
        left: Mapping[Target, StoredImage],
    ) -> None:
        self._store = store
        self._known = frozenset(stored.id for stored in inventory)
        self._receiver = receiver
        self._tools = receiver.tools
        self._options = receiver.options
        self._run_id = run_id
        self._left = dict(left)
        self._fixed: set[str] = set()

    def fill(self, spec: Spec, old: StoredImage | None) -> Filled:
        """An active incoming image with the wanted bytes, and the copy of ``old`` made.

        Raises ImageError, or FoundEqualError when the bytes are those of the old image.
        """
        return self._adopted(spec, old) or from_mirrors(
            self._tools, spec, lambda source: self._repeated(spec, source, old)
        )

    def remove_unpublished(self, record: StoredImage) -> None:
        """Take an image away unless the PATCH whose answer never came has published it."""
        try:
            now = self._store.get(record.id)
        except GlancingError as error:
            self._tell_left(record, error)
            return
        if now is not None and is_incoming(now):
            self._remove(now)

    def remove_leftovers(self) -> bool:
        """Take away what dead runs filled and nobody wants; True when nothing of it is left."""
        store, events = self._store, self._tools.events
        gone = [remove_leftover(store, events, each) for each in self._left.values()]
        return all(gone)

    # --- what a dead run has filled ---

    def _adopted(self, spec: Spec, old: StoredImage | None) -> Filled | None:
        """The image that a dead run filled, if it can be proven to be the wanted one.

        Raises StoreError ``busy`` when another run was first to publish it.
        """
        left = self._left.get((spec.identity, spec.name))
        if left is None or not spec.expected.digests:
            return None
        try:
            intake, stored = self._reviewed(spec, left)
        except InterruptedRunError:
            raise
        except ImageError as error:
            fields = {"image_id": left.id, "name": spec.name, "reason": error.message}
            self._tools.events.warning("image.leftover_unusable", **fields)
            return None
        if not is_incoming(stored):
            raise StoreError(f"another run has published {left.id}", kind=ErrorKind.BUSY)
        filled = Filled(stored, intake, self._gate(intake, old))
        del self._left[spec.identity, spec.name]
        self._tools.events.info("image.adopted", image_id=left.id, name=spec.name)
        return filled

    def _reviewed(self, spec: Spec, left: StoredImage) -> tuple[Intake, StoredImage]:
        """Read an image back from Glance, and verify it as if it came from a source.

        Anybody with our login may have filled it, and Glance keeps two digests at most, so its own
        word is not enough.
        """
        with self._store.download(left) as stream:
            intake = self._receiver.review(spec, stream)
        stored = self._confirmed(left, intake.measured)
        intake.announced_format = stored.disk_format
        intake.require_announced_format()
        return intake, stored

    # --- a new image with verified data ---

    def _repeated(self, spec: Spec, source: Location, old: StoredImage | None) -> Filled:
        """Fill an image, again from the start where something passing came in between.

        From the second attempt on the image is spooled where there is room, so that trouble with
        Glance does not cost another download each time.
        """
        failed: list[GlancingError] = []

        def attempt() -> Filled:
            return self._fill(spec, source, old, spool=self._may_spool(spec, failed))

        def note(error: GlancingError, attempt: int, wait_s: float) -> None:
            failed.append(error)
            self._tools.events.warning(
                "image.retried",
                name=spec.name,
                attempt=attempt,
                wait_s=round(wait_s, 1),
                reason=error.message,
            )

        return call(
            self._tools.retry,
            attempt,
            stop=self._tools.stop,
            on_retry=note,
            attempts_for=_worth,
        )

    def _may_spool(self, spec: Spec, failed: Sequence[GlancingError]) -> bool:
        if self._options.spool or spec.attributes.id:  # no id is spent on wrong bytes
            return True
        size_bytes = spec.expected.image_size_bytes or spec.expected.published_size_bytes
        upload_broke = any(isinstance(error, StoreError) for error in failed)
        return bool(upload_broke and size_bytes and self._tools.workspace.has_room(size_bytes))

    def _fill(
        self, spec: Spec, source: Location, old: StoredImage | None, *, spool: bool
    ) -> Filled:
        with (
            self._receiver.receive(spec, source, spool=spool) as intake,
            closing(_Delivery(intake, lambda: self._gate(intake, old), self._tools.stop)) as sent,
        ):
            sent.body.wait_ready()
            record = self._create(spec, old, intake)
            try:
                self._send(record, sent.body)
                stored = self._confirmed(record, intake.measured)
                intake.settled = True
            except BaseException:
                self._remove(record)
                raise
            return Filled(stored, intake, sent.backup_path)

    def _gate(self, intake: Intake, old: StoredImage | None) -> Path | None:
        """What has to be done between the verification of the last byte and its sending."""
        intake.require_announced_format()
        if old is None:
            return None
        if _same_bytes(intake.measured, old):
            intake.settled = True
            raise FoundEqualError(intake, old)
        return self._copy(old)

    def _create(self, spec: Spec, old: StoredImage | None, intake: Intake) -> StoredImage:
        """Create the record under an id that two runs cannot both get.

        All runs at one image derive the same ids in the same order. One that is taken belongs to a
        run that is alive, which makes this image busy, or is spent: then the next one is tried.
        """
        record = marks.incoming_image(
            spec, intake.announce_format(), old, self._run_id, self._deadline()
        )
        if spec.attributes.id:
            return self._create_as(spec.attributes.id, record)
        for attempt in range(_IDS):
            image_id = marks.record_id(self._store.project_id, spec, intake.validators, attempt)
            made = self._store.create(replace(record, id=image_id))
            if made is not None:
                return made
            self._require_spent(image_id)
        raise StoreError(f"the ids of {_IDS} attempts are all spent")

    def _create_as(self, image_id: str, record: NewImage) -> StoredImage:
        """Create the record under an id of its list's, or take up what was begun of it.

        Glance never gives an id twice, so this record is never deleted: as long as it is without
        data, it can take some. StoreError ``id-spent`` when the id cannot be had any more.
        """
        made = self._store.create(replace(record, id=image_id))
        if made is None:
            begun = self._begun(image_id)
            if begun.status != "queued" or begun.disk_format != record.disk_format:
                what = f"is {begun.status}, as {begun.disk_format}, and takes no other data"
                raise _spent(f"the record {image_id} {what}")
            change = ImageChange(
                name=record.name,
                min_disk_gib=record.min_disk_gib,
                min_ram_mib=record.min_ram_mib,
                tags=record.tags,
                properties=record.properties,
            )
            made = self._store.update(begun, change)
        self._fixed.add(image_id)
        return made

    def _begun(self, image_id: str) -> StoredImage:
        """A record under a fixed id that this run or a dead one has begun."""
        holder = self._store.get(image_id)
        if holder is None:
            raise _spent(f"there was an image {image_id} already, and Glance gives no id twice")
        if not is_incoming(holder):
            raise _spent(f"image {holder.name!r} has the id {image_id}")
        if holder.properties.get("glancing_run") != self._run_id:
            life = life_of(holder, self._store.now(), self._tools.workspace.is_alive)
            if life is not Life.DEAD:
                raise StoreError(f"another run is at this image ({image_id})", kind=ErrorKind.BUSY)
        return holder

    def _require_spent(self, image_id: str) -> None:
        """Raise StoreError ``busy`` when another run is at an image, or has just made it.

        One of our own is an earlier attempt that could not be removed, and no reason to wait.
        """
        holder = self._store.get(image_id)
        if holder is None or holder.id in self._known:
            return
        if holder.properties.get("glancing_run") == self._run_id:
            self.remove_unpublished(holder)
            return
        is_alive = self._tools.workspace.is_alive
        if is_incoming(holder) and life_of(holder, self._store.now(), is_alive) is Life.DEAD:
            return
        raise StoreError(f"another run is at this image ({holder.id})", kind=ErrorKind.BUSY)

    def _deadline(self) -> datetime:
        """Past it nobody is at the image any more: our own limit, and Glance's last answer."""
        limit = timedelta(seconds=self._options.image_timeout_s) + _LAST_ANSWER
        return self._store.now() + limit

    def _send(self, record: StoredImage, body: Body) -> None:
        """Send the data; an answer that was lost on the way does not cost another upload."""
        try:
            self._store.upload(record.id, body)
        except GlancingError as error:
            if body.error is not None:  # the request broke off because the body did
                raise body.error from None
            if not (error.transient and self._is_active(record)):
                raise

    def _is_active(self, record: StoredImage) -> bool:
        now = self._store.get(record.id)
        return now is not None and now.status == "active"

    def _confirmed(self, record: StoredImage, measured: Measured) -> StoredImage:
        """The filled image, once Glance's own size and digests are those that we computed."""
        stored = self._store.get(record.id)
        if stored is None or stored.status != "active":
            status = stored.status if stored else "gone"
            raise StoreError(f"after its upload the image is {status}", transient=True)
        if stored.size_bytes == measured.image_size_bytes and _same_bytes(measured, stored):
            return stored
        raise StoreError(
            "Glance stored other bytes than were sent: "
            f"{_told(stored.digests, stored.size_bytes)}, computed "
            f"{_told(measured.image, measured.image_size_bytes)}",
            kind=ErrorKind.STORED_WRONG,
            transient=True,
        )

    # --- the copy in the backup directory ---

    def _copy(self, old: StoredImage) -> Path | None:
        if not self._options.backup:
            return None
        try:
            with self._store.download(old) as stream:
                path = self._tools.workspace.back_up(old, _proven(old, stream))
        except GlancingError as error:
            raise StoreError(
                f"image {old.id} could not be copied to the backup directory: {error.message}",
                kind=ErrorKind.BACKUP_FAILED,
                hint=error.hint,
                transient=error.transient,
            ) from error
        self._tools.events.info("backup.written", image_id=old.id, path=str(path))
        return path

    # --- cleaning up ---

    def _remove(self, record: StoredImage) -> bool:
        """Take away what was not published; a record that stays is removed by a later run."""
        if record.id in self._fixed:
            kept = StoreError("its id could not be given again; a later run goes on with it")
            self._tell_left(record, kept)
            return False
        try:
            self._store.delete(record.id)
        except GlancingError as error:
            self._tell_left(record, error)
            return False
        return True

    def _tell_left(self, record: StoredImage, error: GlancingError) -> None:
        self._tools.events.warning("image.incoming_left", image_id=record.id, reason=error.message)


class _Delivery:
    """The body of one upload, and what its gate has done."""

    def __init__(
        self, intake: Intake, gate: Callable[[], Path | None], stop: threading.Event
    ) -> None:
        self.backup_path: Path | None = None
        self._gate = gate
        self.body = upload_body(
            intake.pieces,
            intake.pipeline.image_size_bytes,
            gate=self._pass_gate,
            on_close=intake.stream.close,
            stop=stop,
        )

    def _pass_gate(self) -> None:
        self.backup_path = self._gate()

    def close(self) -> None:
        """Break off what is still going on."""
        self.body.close()


def _spent(what: str) -> StoreError:
    hint = "give the image another id, or none"
    return StoreError(what, kind=ErrorKind.ID_SPENT, hint=hint)


def _worth(error: GlancingError) -> int:
    """How many attempts at the whole image an error is worth.

    A source has already tried again by itself, so only a change under our hands is worth it.
    """
    fresh_start = isinstance(error, StoreError) or error.kind is ErrorKind.CHANGED
    return _ATTEMPTS if fresh_start else 1


def _same_bytes(measured: Measured, stored: StoredImage) -> bool:
    """Whether Glance's own digests are ours; False when there is none to compare."""
    computed = {digest.algorithm: digest.value for digest in measured.image}
    compared = [computed.get(each.algorithm) == each.value for each in stored.digests]
    return bool(compared) and all(compared)


def _proven(stored: StoredImage, stream: Iterable[bytes]) -> Iterator[bytes]:
    """Hand pieces on, and fail at the end unless they were the stored image, all of it."""
    if not stored.digests:
        raise StoreError("Glance keeps no digest of it, so a copy could not be verified")
    size_bytes = 0
    with Hasher(digest.algorithm for digest in stored.digests) as hasher:
        for piece in stream:
            size_bytes += len(piece)
            hasher.update(piece)
            yield piece
        computed = hasher.digests()
    if computed != stored.digests or size_bytes != stored.size_bytes:
        raise StoreError(
            f"it came back with {_told(computed, size_bytes)}, "
            f"Glance says {_told(stored.digests, stored.size_bytes)}",
            transient=True,
        )


def _told(digests: Iterable[Digest], size_bytes: int | None) -> str:
    return f"{size_bytes} bytes, {', '.join(str(digest) for digest in digests) or 'no digest'}"
