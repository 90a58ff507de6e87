"""Brings one image into Glance, or lets a new version take the place of an old one.

This is where the promises are kept: no image is published before its bytes are verified, at no
moment is there no usable image under a name that had one, and the previous version stays as a
backup. ``Publisher.publish`` is the order of steps; each can be the last one before a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from glancing import marks
from glancing.filler import Filled, Filler, FoundEqualError
from glancing.intake import Intake, Receiver
from glancing.leftovers import Target
from glancing.model import (
    ImageChange,
    ImageStore,
    Integrity,
    Measured,
    Spec,
    State,
    StoredImage,
)

_NOTHING: Mapping[Target, StoredImage] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one image's bytes.

    ``image_id`` is None after a dry run. ``unchanged`` says that the bytes turned out to be those
    that Glance has already, so that nothing was sent.
    """

    measured: Measured
    integrity: Integrity
    image_id: str | None = None
    backup_id: str | None = None
    backup_path: Path | None = None
    kept_path: Path | None = None
    unchanged: bool = False


class Publisher:
    """Carries out what was decided, one image at a time; safe to use from several threads."""

    def __init__(
        self,
        store: ImageStore,
        inventory: Iterable[StoredImage],
        receiver: Receiver,
        run_id: str,
        filled: Mapping[Target, StoredImage] = _NOTHING,
    ) -> None:
        self._store = store
        self._inventory = tuple(inventory)
        self._retired: dict[str, StoredImage] = {}
        self._made_way: set[str] = set()
        self._filler = Filler(store, self._inventory, receiver, run_id, filled)
        self._tools = receiver.tools
        self._run_id = run_id

    # --- the order of steps ---

    def publish(self, spec: Spec, old: StoredImage | None = None) -> Published:
        """Make ``spec`` the image under its name; ``old`` becomes the backup.

        1. open the source, fill the reserve, create the record. Crash: an incoming image without
           data, private and hidden, which the next run removes.
        2. send the data, verify everything, and before the tail is released copy the old image to
           the backup directory, verified. Crash: as before.
        3. release the tail, compare Glance's own digests. Crash: incoming, active, never shown.
        4. deactivate it where that is wanted; one PATCH publishes. Crash: two images under the
           name, both usable; the newer counts.
        5. one PATCH retires the old image to ``NAME_old``.

        Where a dead run got as far as 3, its image is read back, verified, and published instead.
        A failure in 1 to 4 removes the incoming image and leaves the old one as it was. Bytes that
        turn out to be those of the old image end it before the copy. Raises ImageError, or
        GlancingError where the cloud went away.
        """
        try:
            filled = self._filler.fill(spec, old)
        except FoundEqualError as found:
            return self._leave(found.intake, found.stored)
        try:
            self._publish(spec, old, filled)
            if old is not None:
                self.retire(old)
        except BaseException:
            self._drop_kept(filled.intake)
            raise
        return Published(
            measured=filled.intake.measured,
            integrity=filled.intake.integrity,
            image_id=filled.stored.id,
            backup_id=old.id if old else None,
            backup_path=filled.backup_path,
            kept_path=filled.intake.kept_path,
        )

    def update(self, spec: Spec, stored: StoredImage, change: ImageChange) -> None:
        """Make the record of an image whose bytes are right say what is wanted."""
        if spec.attributes.deactivated and stored.status == "active":
            self._store.deactivate(stored.id)
        if change != ImageChange():
            self._store.update(stored, change)

    def make_way(self, spec: Spec, stored: StoredImage, change: ImageChange) -> None:
        """Rename an image whose name another one has now.

        Crash before: both bear the name, both usable, and the next run renames this one.
        """
        self.update(spec, stored, change)
        self._made_way.add(stored.id)

    def has_made_way(self, stored: StoredImage) -> bool:
        """Whether an image has given its name to another one in this run."""
        return stored.id in self._made_way

    def retire_surplus(self, current_id: str | None, surplus: Iterable[StoredImage]) -> None:
        """Make further images of one identity backups: a run ended before it could.

        What that run may not have done either is to share the current one with the same projects.
        """
        for stored in surplus:
            if current_id:
                self._share(stored, current_id)
            self.retire(stored)

    def retire(self, stored: StoredImage) -> StoredImage:
        """Make an image the previous version; the one that was so far gets a dated name first."""
        name = marks.backup_name(stored.name)
        for earlier in (*self._inventory, *self._retired.copy().values()):
            if _is_backup(earlier, stored) and self._retired.get(earlier.id, earlier).name == name:
                dated = marks.older_backup_name(stored.name, self._tools.clock.now())
                self._rename(earlier, dated)
        return self._rename(stored, name)

    def _rename(self, stored: StoredImage, backup_name: str) -> StoredImage:
        retired = self._store.update(stored, marks.retire_change(stored, backup_name))
        self._retired[stored.id] = retired
        return retired

    def remove_leftovers(self) -> bool:
        """Take away what dead runs filled and nobody wants; True when nothing of it is left."""
        return self._filler.remove_leftovers()

    # --- steps 4 and 5 ---

    def _publish(self, spec: Spec, old: StoredImage | None, filled: Filled) -> None:
        found = {**marks.wanted_properties(spec), **self._found(filled.intake)}
        measured = filled.intake.measured
        disk_size_bytes = measured.virtual_size_bytes or measured.image_size_bytes
        change = marks.publish_change(spec, old, found, disk_size_bytes)
        try:
            if spec.attributes.deactivated:
                self._store.deactivate(filled.stored.id)
            self._store.update(filled.stored, change)
        except BaseException:
            self._filler.remove_unpublished(filled.stored)
            raise
        self._share(old, filled.stored.id)

    def _share(self, old: StoredImage | None, image_id: str) -> None:
        """Share the new image with those the old one was shared with; accepting it is theirs."""
        if old is None or old.visibility != "shared":
            return
        members = self._store.members(old.id)
        for project_id in members:
            self._store.add_member(image_id, project_id)
        if members:
            self._tools.events.info(
                "image.shared", image_id=image_id, projects=len(members), accepted_by_them=False
            )

    def _leave(self, intake: Intake, stored: StoredImage) -> Published:
        """Keep an image whose bytes turned out to be the same, and note what was learnt.

        With the source's validators and digests kept, the next run need not read it again. Images
        that were not made for this entry are left as they are.
        """
        if stored.marked and stored.identity == intake.spec.identity:
            change = marks.confirm_change(intake.spec, stored, self._found(intake))
            if change is not None:
                self._store.update(stored, change)
        return Published(
            measured=intake.measured,
            integrity=intake.integrity,
            image_id=stored.id,
            kept_path=intake.kept_path,
            unchanged=True,
        )

    def _found(self, intake: Intake) -> dict[str, str]:
        measured = marks.measured_properties(
            intake.measured, intake.validators, intake.integrity.value, self._run_id
        )
        return {**marks.dated_properties(intake.spec, intake.validators), **measured}

    def _drop_kept(self, intake: Intake) -> None:
        """Remove a file that was to be kept: the row of an image that failed names none."""
        if intake.kept_path is not None:
            self._tools.workspace.discard(intake.kept_path)


def _is_backup(earlier: StoredImage, of: StoredImage) -> bool:
    """Whether it is a backup of ours, or the seed's of the same image, which it left unmarked.

    An image in use may be called so as well, and has to keep its name.
    """
    seed_backup = not earlier.state and earlier.mpid is not None and earlier.mpid == of.mpid
    return earlier.state == State.BACKUP or seed_backup
