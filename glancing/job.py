"""The whole run, as operators think of it.

``sync`` makes Glance hold what image lists ask for, ``import`` does so for one image:

1. read the lists, and the metadata they point to (``catalogue``); nothing is touched before all of
   it was read
2. log in, and read the inventory: all images of our own project (``glance``)
3. ask the sources of bare URLs whether they have changed (``download``)
4. decide, for every entry, from these facts alone (``plan``)
5. carry the decisions out, several at once (``publisher``): upload, replace, update, retire. A dry
   run reads and verifies what it would upload; a plan only asks the sources whether they answer
6. one row and one event per entry, and an exit code (``report``)

An entry that fails costs nothing but itself: ``_Carrier.carry_out`` is the one place that catches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, assert_never

from glancing import digests, plan
from glancing.catalogue import Catalogue, ImportRequest, Wanted, failed_row
from glancing.crew import Crew
from glancing.errors import (
    ConfigError,
    DownloadError,
    ErrorKind,
    ExitCode,
    GlancingError,
    InterruptedRunError,
    RunInterrupted,
    VerificationError,
)
from glancing.intake import Receiver, Tools
from glancing.model import (
    Digest,
    ErrorReport,
    ImageResult,
    Integrity,
    Location,
    Measured,
    Options,
    Origin,
    Outcome,
    Spec,
    StoredImage,
    StoreFactory,
    Validators,
)
from glancing.publisher import Publisher
from glancing.report import RunResult, exit_code

_CLEANING_UP_S = 8.0  # Kubernetes kills 30 s after it asked; docker stop after 10 s
_ASKING = 8


class Mode(Enum):
    """How far a run goes: do it, read and verify but change nothing, or decide only."""

    APPLY = "apply"
    VERIFY = "verify"
    PLAN = "plan"


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one command.

    ``connect`` logs in when it is called, so that a list that cannot be read ends the run before
    the cloud is even asked. It is None where no cloud is configured and none is needed.
    """

    command: str
    run_id: str
    catalogue: Catalogue
    connect: StoreFactory | None
    tools: Tools
    options: Options
    mode: Mode = Mode.APPLY

    def sync(self, lists: Sequence[Location]) -> RunResult:
        """Make Glance hold the images of all lists; raises ConfigError, CloudError."""
        policy = plan.Policy(adopt=self.options.adopt)
        return self._run(lambda: self.catalogue.read_lists(lists), policy)

    def import_one(self, request: ImportRequest) -> RunResult:
        """Make Glance hold one image under its name; raises ConfigError, CloudError."""
        return self._run(lambda: self._one(request), plan.Policy(by_name=True))

    def _one(self, request: ImportRequest) -> Wanted:
        try:
            return Wanted(specs=(self.catalogue.read_request(request),))
        except ConfigError:
            raise
        except GlancingError as error:
            return Wanted(failures=(failed_row(request.descriptor, Origin(), error),))

    # --- the steps ---

    def _run(self, read: Callable[[], Wanted], policy: plan.Policy) -> RunResult:
        started_s = self.tools.clock.monotonic_s()
        wanted = self._asked_for(read())
        rows = list(wanted.failures)
        for row in rows:
            tell(self.tools, row)
        interrupted = None
        if wanted.specs:
            done, interrupted = self._decide_and_act(wanted.specs, policy)
            rows += done
        rows.sort(key=lambda row: row.origin)
        return RunResult(
            run_id=self.run_id,
            command=self.command,
            images=tuple(rows),
            seconds=self.tools.clock.monotonic_s() - started_s,
            exit_code=interrupted or exit_code(rows),
        )

    def _decide_and_act(
        self, specs: Sequence[Spec], policy: plan.Policy
    ) -> tuple[list[ImageResult], ExitCode | None]:
        store = self.connect() if self.connect else None
        inventory = store.inventory() if store else ()
        if store is None:
            self.tools.events.warning("glance.not_consulted", reason="no cloud is configured")
        decisions, failures = self._decisions(specs, inventory, policy)
        reported = (stored.hash_algorithm for stored in inventory)
        algorithms = tuple(dict.fromkeys(("md5", "sha512", *filter(None, reported))))
        receiver = Receiver(self.tools, self.options, algorithms)
        publisher = Publisher(store, inventory, receiver, self.run_id) if store else None
        carrier = _Carrier(self.mode, receiver, publisher, failures)
        return self._act(carrier, [d for d in decisions if self._is_asked_for(d.spec)])

    def _decisions(
        self, specs: Sequence[Spec], inventory: Sequence[StoredImage], policy: plan.Policy
    ) -> tuple[tuple[plan.Decision, ...], dict[str, GlancingError]]:
        """Decide twice where needed: the first time shows which sources have to be asked."""
        decisions = plan.decide(specs, inventory, policy=policy)
        answers, failures = self._ask(plan.unread(decisions))
        if answers:
            decisions = plan.decide(specs, inventory, policy=policy, validators=answers)
        return decisions, failures

    def _ask(self, specs: Sequence[Spec]) -> tuple[dict[str, Validators], dict[str, GlancingError]]:
        """What the sources of bare URLs say of themselves, or why they say nothing."""

        def ask(spec: Spec) -> Validators | GlancingError:
            try:
                return self.tools.sources.probe(spec.sources[0])
            except DownloadError as error:
                return error

        answers: dict[str, Validators] = {}
        failures: dict[str, GlancingError] = {}
        for index, answer in Crew(ask, specs, workers=_ASKING).results():
            if isinstance(answer, GlancingError):
                failures[specs[index].identity] = answer
            else:
                answers[specs[index].identity] = answer
        return answers, failures

    def _asked_for(self, wanted: Wanted) -> Wanted:
        """Forget failures of entries that nobody asked for; ConfigError when one asked is none.

        Entries that can be read all stay: what they claim counts for the decisions.
        """
        only = self.options.only
        known = {word for spec in wanted.specs for word in _names_of(spec)}
        missing = set(only) - known - {row.descriptor for row in wanted.failures}
        if missing and not wanted.failures:
            raise ConfigError(f"no entry is called {', '.join(sorted(missing))}")
        asked = [row for row in wanted.failures if not only or missing or row.descriptor in only]
        return replace(wanted, failures=tuple(asked))

    def _is_asked_for(self, spec: Spec) -> bool:
        return not self.options.only or not _names_of(spec).isdisjoint(self.options.only)

    def _act(
        self, carrier: _Carrier, decisions: Sequence[plan.Decision]
    ) -> tuple[list[ImageResult], ExitCode | None]:
        """Carry decisions out, and when the run is interrupted, gather what became of them."""
        crew = Crew(carrier.carry_out, decisions, workers=self.options.jobs)
        rows: dict[int, ImageResult] = {}
        try:
            for index, row in crew.results():
                rows[index] = row
        except RunInterrupted as interruption:
            self.tools.events.warning("run.interrupted", exit_code=int(interruption.exit_code))
            rows.update(crew.results_within(_CLEANING_UP_S))
            undone = [d for index, d in enumerate(decisions) if index not in rows]
            given_up = [_interrupted_row(decision) for decision in undone]
            return [*rows.values(), *given_up], interruption.exit_code
        return list(rows.values()), None


@dataclass(frozen=True, slots=True)
class _Carrier:
    """Carries out decisions as far as the mode goes, and tells what became of each.

    ``unanswered`` has, by identity, sources that were asked whether they changed and failed.
    """

    mode: Mode
    receiver: Receiver
    publisher: Publisher | None
    unanswered: dict[str, GlancingError]

    def carry_out(self, decision: plan.Decision) -> ImageResult:
        """Do it; whatever goes wrong becomes the row of this one image."""
        clock = self.receiver.tools.clock
        started_s = clock.monotonic_s()
        try:
            row = self._done(decision)
        except GlancingError as error:
            row = _failed(decision, error)
        except Exception as error:  # noqa: BLE001 - one image must not end the others
            self.receiver.tools.events.error(
                "image.crashed", name=decision.spec.name, exc_info=error
            )
            unexpected = f"unexpected {type(error).__name__}"
            row = _failed(decision, GlancingError(unexpected, kind=ErrorKind.INTERNAL))
        row = replace(row, seconds=clock.monotonic_s() - started_s)
        tell(self.receiver.tools, row)
        return row

    def _done(self, decision: plan.Decision) -> ImageResult:
        if self.receiver.tools.stop.is_set():
            raise InterruptedRunError("the run was told to stop before this image")
        match decision:
            case plan.Refuse():
                return _refused(decision)
            case plan.Skip():
                self._retire(decision.retire)
                return _row(decision, Outcome.UNCHANGED, decision.stored)
            case plan.Update():
                return self._updated(decision)
            case plan.Upload():
                return self._published(decision, None)
            case plan.Replace():
                return self._published(decision, decision.stored)
            case _:
                assert_never(decision)

    def _updated(self, decision: plan.Update) -> ImageResult:
        if self.mode is not Mode.APPLY or self.publisher is None:
            return _row(decision, Outcome.PLANNED, decision.stored)
        self.publisher.update(decision.stored, decision.change)
        self._retire(decision.retire)
        return _row(decision, Outcome.UPDATED, decision.stored)

    def _published(
        self, decision: plan.Upload | plan.Replace, old: StoredImage | None
    ) -> ImageResult:
        self._require_digest(decision.spec)
        if decision.spec.identity in self.unanswered:
            raise self.unanswered[decision.spec.identity]
        match self.mode:
            case Mode.PLAN:
                self._ask_source(decision.spec)
                return _row(decision, Outcome.PLANNED, None)
            case Mode.VERIFY:
                return self._verified(decision)
            case Mode.APPLY:
                return self._applied(decision, old)

    def _verified(self, decision: plan.Upload | plan.Replace) -> ImageResult:
        intake = self.receiver.check(decision.spec)
        return _with_bytes(
            _row(decision, Outcome.PLANNED, None),
            intake.measured,
            intake.integrity,
            kept_path=_text(intake.kept_path),
        )

    def _applied(
        self, decision: plan.Upload | plan.Replace, old: StoredImage | None
    ) -> ImageResult:
        assert self.publisher is not None  # noqa: S101 - a run that applies has logged in
        done = self.publisher.publish(decision.spec, old)
        if isinstance(decision, plan.Replace):
            self._retire(decision.retire)
        made = Outcome.REPLACED if old else Outcome.UPLOADED
        return _with_bytes(
            _row(decision, Outcome.UNCHANGED if done.unchanged else made, None),
            done.measured,
            done.integrity,
            image_id=done.image_id,
            backup_id=done.backup_id,
            backup_path=_text(done.backup_path),
            kept_path=_text(done.kept_path),
        )

    def _retire(self, surplus: Sequence[StoredImage]) -> None:
        if self.mode is not Mode.APPLY or self.publisher is None:
            return
        for stored in surplus:
            self.publisher.retire(stored)

    def _require_digest(self, spec: Spec) -> None:
        """Say what the digests of an image are worth, and refuse it where that is too little."""
        options, events = self.receiver.options, self.receiver.tools.events
        known = spec.expected.digests if options.verify_digests else ()
        if options.require_digest and not digests.meets(known, options.require_digest):
            raise VerificationError(
                f"no digest meets the demand for {options.require_digest}",
                kind=ErrorKind.NO_DIGEST,
                hint="give one with --sums, or run without --require-digest",
            )
        if not known:
            events.warning("image.unverified", name=spec.name, reason="no digest to check against")
        elif digests.is_weak(known):
            events.warning("image.weakly_verified", name=spec.name, digests=[str(d) for d in known])

    def _ask_source(self, spec: Spec) -> None:
        """A plan tells what a run would: a source that does not answer fails there as well."""
        found = self.receiver.tools.sources.probe(spec.sources[0])
        expected_bytes = spec.expected.published_size_bytes
        if self.receiver.options.force or expected_bytes in (None, found.size_bytes):
            return
        if found.size_bytes is not None:
            raise VerificationError(
                f"the size of the published file is wrong: expected {expected_bytes} bytes, "
                f"the source announces {found.size_bytes}",
                kind=ErrorKind.WRONG_SIZE,
            )


def _names_of(spec: Spec) -> set[str]:
    """What ``--only`` may call an entry."""
    return {spec.name, spec.identity, spec.descriptor}


# --- rows -----------------------------------------------------------------------------------------


def tell(tools: Tools, row: ImageResult) -> None:
    """The one event of an image: everything that its row says."""
    fields: dict[str, Any] = {
        "name": row.name,
        "descriptor": row.descriptor,
        "decision": row.decision,
        "reason": row.reason,
        "list": row.origin.list_name,
        "line": row.origin.line or None,
        "image_id": row.image_id,
        "backup_id": row.backup_id,
        "backup_path": row.backup_path,
        "size_bytes": row.size_bytes,
        "integrity": row.integrity.value if row.integrity else None,
        "mismatched": list(row.mismatched) or None,
        "kind": row.error.kind if row.error else None,
        "error": row.error.message if row.error else None,
        "hint": row.error.hint if row.error else None,
        "seconds": round(row.seconds, 3),
    }
    known = {key: value for key, value in fields.items() if value is not None}
    troubled = row.outcome in (Outcome.FAILED, Outcome.REFUSED)
    (tools.events.error if troubled else tools.events.info)(f"image.{row.outcome.value}", **known)


_NAMES: dict[type[plan.Decision], str] = {
    plan.Upload: "upload",
    plan.Skip: "skip",
    plan.Update: "update",
    plan.Replace: "replace",
    plan.Refuse: "refuse",
}


def _row(decision: plan.Decision, outcome: Outcome, stored: StoredImage | None) -> ImageResult:
    row = ImageResult(
        name=decision.spec.name,
        descriptor=decision.spec.descriptor,
        origin=decision.spec.origin,
        decision=_NAMES[type(decision)],
        reason=decision.reason,
        outcome=outcome,
    )
    if stored is None:
        return row
    return replace(
        row,
        image_id=stored.id,
        size_bytes=stored.size_bytes,
        disk_format=stored.disk_format,
        digests=stored.digests,
        integrity=_kept_integrity(stored),
    )


def _kept_integrity(stored: StoredImage) -> Integrity | None:
    kept = stored.properties.get("glancing_integrity")
    return Integrity(kept) if kept in set(Integrity) else None


def _with_bytes(
    row: ImageResult, measured: Measured, integrity: Integrity, **fields: Any
) -> ImageResult:
    return replace(
        row,
        size_bytes=measured.image_size_bytes,
        disk_format=measured.disk_format,
        digests=_of_image(measured),
        matched=measured.matched,
        mismatched=measured.mismatched,
        integrity=integrity,
        **fields,
    )


def _of_image(measured: Measured) -> tuple[Digest, ...]:
    return tuple(sorted(set(measured.image)))


def _failed(decision: plan.Decision, error: GlancingError) -> ImageResult:
    refused = error.kind is ErrorKind.NO_DIGEST
    row = _row(decision, Outcome.REFUSED if refused else Outcome.FAILED, None)
    return replace(row, error=ErrorReport(error.kind.value, error.message, error.hint))


def _refused(decision: plan.Refuse) -> ImageResult:
    row = _row(decision, Outcome.REFUSED, decision.stored)
    return replace(row, error=ErrorReport(decision.kind.value, decision.reason, decision.hint))


def _interrupted_row(decision: plan.Decision) -> ImageResult:
    return _failed(decision, InterruptedRunError("the run was told to stop"))


def _text(value: object) -> str | None:
    return None if value is None else str(value)
