"""Random histories of a cloud and its publishers, in which the promises of glancing are watched.

The machine's steps are what publishers, administrators, accidents and runs do; every history ends
with a quiet run or two. Checked after each run, and where it says so at each call of it:

- P1 only bytes that match all published digests appear under a name, or the image says that it was
  forced or that nothing was verified (at each call)
- P2 a name that had an active image has one at every instant, but for edits by hand and names that
  publishers give up (at each call)
- P3 one run after any crash brings the right images and backups and leaves nothing incoming, and
  another one changes nothing
- P4 images of others are never touched, unmarked ones only renamed by a replace, and nothing but
  incoming images of ours is ever deleted (at each call)
- P9 exit code and rows tell what Glance holds
"""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from glancing.catalogue import Catalogue, ImportRequest
from glancing.errors import ErrorKind, ExitCode, GlancingError
from glancing.files import Directories
from glancing.intake import Tools
from glancing.job import Job
from glancing.model import (
    TAG,
    ImageResult,
    Options,
    Outcome,
    RetryPolicy,
    State,
    StoredImage,
)
from glancing.report import RunResult
from tests.fakes import PROJECT, Crash, FakeClock, FakeStore, ListEvents
from tests.fuzz.line import Accident, Break, Line, Run, is_incoming, is_usable
from tests.fuzz.market import (
    BARE,
    IDS,
    KEYS,
    LIST,
    MARKETPLACE,
    NAMES,
    Market,
    Publication,
    Trouble,
    content,
)

FIGURES: Counter[str] = Counter()
"""What was done in this process: histories, steps, runs, crashes and other accidents."""

LONG_S = 4 * 3600.0  # beyond every promise that a run makes of itself


class PatientStop(threading.Event):
    """An event whose waiting passes the fake clock's time instead of ours."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.advance(timeout or 0)
        return self.is_set()


keys = st.sampled_from(KEYS)
ids = st.sampled_from(IDS)
names = st.sampled_from(NAMES)
which = st.integers(0, 5)
troubles: st.SearchStrategy[Trouble] = st.sampled_from(
    ["corrupt", "cut", "silent cut", "gone", "other size"]
)
breaks: st.SearchStrategy[Break] = st.sampled_from(
    ["crash before", "crash after", "crash inside", "crash both", "error", "lost answer"]
)
accidents = st.builds(Accident, breaks, st.integers(0, 14))
options = st.builds(
    Options,
    force=st.booleans(),
    verify_digests=st.sampled_from([True, True, False]),
    adopt=st.booleans(),
    backup=st.booleans(),
    spool=st.sampled_from([False, False, True]),
    jobs=st.sampled_from([1, 1, 1, 3]),
)
PLAIN = Options(jobs=1)


class Machine(RuleBasedStateMachine):
    """One cloud, one list of images, one folder, for as many runs as a history has."""

    def __init__(self) -> None:
        super().__init__()
        FIGURES["histories"] += 1
        self.clock = FakeClock()
        self.store = FakeStore(self.clock)
        self.market = Market()
        self.runs = 0
        self.numbers = 1000
        self._folder = tempfile.TemporaryDirectory(dir=_memory())
        self.folder = Path(self._folder.name)

    # --- publishers ---

    @initialize(bare=st.booleans())
    def begin(self, bare: bool) -> None:
        """A list of two images with metadata, and perhaps one without."""
        if bare:
            self.market.publish(BARE, Publication("omega", version=1, number=7))

    @rule(key=keys, newer=st.integers(-1, 2), packed=st.booleans())
    def publish(self, key: str, newer: int, packed: bool) -> None:
        """A new image, a newer or older version, or the same version with other bytes."""
        self._step()
        self.numbers += 1
        last = self.market.published.get(key) or Publication(NAMES[KEYS.index(key)], 1, 0)
        version = max(1, last.version + newer)
        self.market.publish(key, Publication(last.title, version, self.numbers, packed))

    @rule(key=ids, other=keys)
    def publish_same_bytes(self, key: str, other: str) -> None:
        """Two publishers give the same image."""
        self._step()
        known = self.market.published
        if key in known and other in known:
            last = known[key]
            self.market.publish(key, replace(known[other], title=last.title, version=last.version))

    @precondition(lambda self: self.market.listed)
    @rule(key=keys)
    def withdraw(self, key: str) -> None:
        self._step()
        if key in self.market.listed:
            self.market.withdraw(key)

    @rule(key=ids, name=names)
    def retitle(self, key: str, name: str) -> None:
        self._step()
        if key in self.market.published:
            self.market.publish(key, replace(self.market.published[key], title=name))

    @rule(key=keys, trouble=troubles)
    def trouble(self, key: str, trouble: Trouble) -> None:
        """The bytes are corrupted at their source, or it breaks off, or it is gone."""
        self._step()
        if key in self.market.published:
            self.market.change(key, trouble)

    @rule()
    def heal(self) -> None:
        self._step()
        self.market.heal()

    # --- hands ---

    @rule(index=which, name=names)
    def rename_by_hand(self, index: int, name: str) -> None:
        self._edit(index, lambda image: replace(image, name=name))

    @rule(index=which)
    def delete_by_hand(self, index: int) -> None:
        self._step()
        image = self._pick(index)
        if image is not None and not image.protected:
            self.store.delete(image.id)

    @rule(name=names, number=st.integers(0, 3), owner=st.sampled_from([PROJECT, "another"]))
    def make_by_hand(self, name: str, number: int, owner: str) -> None:
        """An image that glancing did not make, perhaps of a known name or of known bytes."""
        self._step()
        self.numbers += 1
        known = [*self.market.published.values()][number : number + 1]
        data = known[0].image if known else content(self.numbers)
        image = StoredImage(f"hand-{self.numbers}", name, "active", owner=owner, disk_format="raw")
        self.store.add_filled(image, data)

    @rule(name=names, key=ids, version=st.integers(1, 3))
    def make_by_seed(self, name: str, key: str, version: int) -> None:
        """An image of the scripts of 2016."""
        self._step()
        self.numbers += 1
        marks = MappingProxyType({"mpid": key, "version": str(version)})
        image = StoredImage(f"seed-{self.numbers}", name, "active", properties=marks)
        self.store.add_filled(image, content(self.numbers))

    @rule(index=which, status=st.sampled_from(["active", "deactivated"]))
    def activate_by_hand(self, index: int, status: str) -> None:
        self._edit(index, lambda image: replace(image, status=status))

    @rule(index=which)
    def untag_by_hand(self, index: int) -> None:
        self._edit(index, lambda image: replace(image, tags=image.tags - {TAG}))

    @rule(index=which, key=st.sampled_from(["os_distro", "version"]), value=st.sampled_from("09"))
    def describe_by_hand(self, index: int, key: str, value: str) -> None:
        self._edit(
            index,
            lambda image: replace(
                image, properties=MappingProxyType({**image.properties, key: value})
            ),
        )

    @rule(index=which)
    def protect_by_hand(self, index: int) -> None:
        self._edit(index, lambda image: replace(image, protected=True))

    @rule(index=which)
    def share_by_hand(self, index: int) -> None:
        self._step()
        image = self._pick(index)
        if image is not None and image.visibility == "shared":
            self.store.add_member(image.id, "friend")

    # --- time and runs ---

    @rule(seconds=st.sampled_from([5.0, 61.0, LONG_S]))
    def wait(self, seconds: float) -> None:
        self._step()
        self.clock.advance(seconds)

    @rule(options=options)
    def sync(self, options: Options) -> None:
        self._step()
        self._sync(options)

    @rule(options=options, accident=accidents)
    def sync_with_accident(self, options: Options, accident: Accident) -> None:
        self._step()
        self._sync(replace(options, jobs=1), accident)

    @rule(options=options, position=st.integers(0, 12), others=options, last=st.none() | accidents)
    def two_syncs(
        self, options: Options, position: int, others: Options, last: Accident | None
    ) -> None:
        """A second run starts while the first is at a call of its, or inside an upload."""
        self._step()
        accident = Accident("intruder", position)
        self._sync(
            replace(options, jobs=1), accident, lambda: self._sync(replace(others, jobs=1), last)
        )

    @precondition(lambda self: self.market.listed)
    @rule(index=which, options=options, accident=st.none() | accidents, name=st.none() | names)
    def import_one(
        self, index: int, options: Options, accident: Accident | None, name: str | None
    ) -> None:
        self._step()
        key = self.market.listed[index % len(self.market.listed)]
        request = ImportRequest(key, name=name or self.market.published[key].title)
        self._run(lambda job: job.import_one(request), replace(options, jobs=1), accident)

    @rule()
    def settle(self) -> None:
        """Everything is well again and nobody is at it: one run, and one that changes nothing."""
        self._step()
        self._settle()

    def teardown(self) -> None:
        try:
            self._settle()
        finally:
            self._folder.cleanup()

    # --- how ---

    def _step(self) -> None:
        FIGURES["steps"] += 1

    def _pick(self, index: int) -> StoredImage | None:
        """One of the images that a hand may have to do with: those that are in use."""
        usable = [image for image in self.store.images() if not is_incoming(image)]
        return usable[index % len(usable)] if usable else None

    def _edit(self, index: int, edit: Callable[[StoredImage], StoredImage]) -> None:
        self._step()
        image = self._pick(index)
        if image is not None:
            held = self.store.data_of(image.id), self.store.members_of(image.id)
            self.store.add(edit(image), *held)

    def _sync(
        self,
        options: Options,
        accident: Accident | None = None,
        intrude: Callable[[], Any] | None = None,
    ) -> RunResult | None:
        return self._run(lambda job: job.sync([LIST]), options, accident, intrude)

    def _run(
        self,
        command: Callable[[Job], RunResult],
        options: Options,
        accident: Accident | None = None,
        intrude: Callable[[], Any] | None = None,
    ) -> RunResult | None:
        """One run, judged; None when it died or ended early."""
        self.runs += 1
        run = Run(f"run-{self.runs}", options, len(self.market.promised), accident, intrude)
        result = None
        try:
            result = command(self._job(run))
        except Crash:
            assert accident is not None
        except GlancingError:
            assert run.happened, "a run ended early without a reason"
        self._count(run, died=result is None)
        assert not run.broken, run.broken
        if result is not None:
            self._check_result(result, run)
        return result

    def _count(self, run: Run, *, died: bool) -> None:
        FIGURES["runs"] += 1
        FIGURES["changes of the store"] += run.changes
        if run.happened and run.accident:
            FIGURES[run.accident.kind] += 1
        if died:
            FIGURES["runs that died"] += 1

    def _job(self, run: Run) -> Job:
        tools = Tools(
            sources=self.market,
            workspace=Directories(work_dir=self.folder, backup_dir=self.folder),
            clock=self.clock,
            events=ListEvents(),
            stop=PatientStop(self.clock),
            retry=RetryPolicy(attempts=3, first_wait_s=0, longest_wait_s=0),
        )
        catalogue = Catalogue(self.market, tools.events, self.clock, MARKETPLACE, Path("/lists"))
        line = Line(self.store, self.market, run)
        return Job("sync", run.run_id, catalogue, lambda: line, tools, run.options)

    # --- P9 ---

    def _check_result(self, result: RunResult, run: Run) -> None:
        outcomes = {row.outcome for row in result.images}
        failed = bool(outcomes & {Outcome.FAILED, Outcome.REFUSED})
        expected = ExitCode.IMAGES_FAILED if failed else ExitCode.OK
        if not failed and Outcome.BUSY in outcomes:
            expected = ExitCode.BUSY
        assert result.exit_code == expected, "P9: the exit code is not that of the rows"
        undisturbed = not (run.accident and run.accident.kind == "intruder")
        for row in result.images:
            assert row.error is None or row.error.kind != ErrorKind.INTERNAL, row
            if undisturbed:
                self._check_row(row, run)

    def _check_row(self, row: ImageResult, run: Run) -> None:
        if row.error is not None:
            return
        image = self._image(row.image_id)
        assert image is not None and image.status in ("active", "deactivated"), f"P9: {row}"
        if image.status == "deactivated":  # whatever its name: an administrator is at it
            return
        assert image.name == row.name, f"P9: {row} is called {image.name}"
        assert image.state != State.BACKUP and not is_incoming(image), f"P9: {row} is {image}"
        if row.outcome is Outcome.REPLACED:
            self._check_backup(row, run)

    def _check_backup(self, row: ImageResult, run: Run) -> None:
        backup = self._image(row.backup_id)
        assert backup is not None, f"P9: {row} has no backup"
        kept = backup.hidden and "_old" in backup.name and backup.state == State.BACKUP
        assert kept, f"P9: the backup of {row} is {backup}"
        if run.options.backup:
            copy = Path(str(row.backup_path)).read_bytes()
            assert copy == self.store.data_of(backup.id), "the copy is not the backup"

    # --- P3 ---

    def _settle(self) -> None:
        self.market.heal()
        self.clock.advance(LONG_S)
        first = self._sync(PLAIN)
        assert first is not None
        left = [image for image in self.store.images() if is_incoming(image)]
        assert not left, f"P3: left over: {left}"
        for row in first.images:
            self._check_held(row)
        refused = [row for row in first.images if row.outcome is Outcome.REFUSED]
        for _ in refused:  # what one entry gives up, another may take in the next run
            self._sync(PLAIN)
        before = self.store.images()
        again = self._sync(PLAIN)
        assert again is not None
        assert self.store.images() == before, "P3: a further run changed something"
        assert {row.outcome for row in again.images} <= {Outcome.UNCHANGED, Outcome.REFUSED}

    def _check_held(self, row: ImageResult) -> None:
        """What is told as done is there with the published bytes; what is refused, for a reason."""
        if row.outcome is Outcome.REFUSED:
            assert row.error is not None and row.error.kind in _REFUSALS, row
            return
        assert row.error is None, f"P3: nothing is in the way of {row}"
        publication = self.market.published[row.descriptor]
        assert row.image_id is not None
        assert self.store.data_of(row.image_id) == publication.image, f"P9: not the bytes: {row}"
        made_for_it = [
            image
            for image in self.store.images()
            if is_usable(image) and TAG in image.tags and image.identity == row.descriptor
        ]
        assert len(made_for_it) <= 1, f"P3: several images for {row.descriptor}"

    def _image(self, image_id: str | None) -> StoredImage | None:
        return next((image for image in self.store.images() if image.id == image_id), None)


_REFUSALS = {
    ErrorKind.NAME_TAKEN,
    ErrorKind.AMBIGUOUS,
    ErrorKind.DOWNGRADE,
    ErrorKind.CORRUPTED,
    ErrorKind.DEACTIVATED,
}


def _memory() -> str | None:
    """A folder in memory where there is one: what is flushed there costs nothing."""
    folder = Path("/dev/shm")
    return str(folder) if folder.is_dir() else None
