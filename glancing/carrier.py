"""Carries out what was decided, one image at a time, and tells what became of each.

A decision becomes a row of the result and one event, whatever happens: ``Carrier.carry_out`` is the
one place that catches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, assert_never

from glancing import digests, plan
from glancing.errors import (
    ErrorKind,
    GlancingError,
    InterruptedRunError,
    StoreError,
    VerificationError,
)
from glancing.intake import Receiver, Tools, from_mirrors
from glancing.leftovers import Target
from glancing.model import (
    Compression,
    Digest,
    ErrorReport,
    Expected,
    ImageResult,
    Integrity,
    Measured,
    Outcome,
    Spec,
    StoredImage,
)
from glancing.publisher import Publisher


class Mode(Enum):
    """How far a run goes: do it, read and verify but change nothing, or decide only."""

    APPLY = "apply"
    VERIFY = "verify"
    PLAN = "plan"


@dataclass(frozen=True, slots=True)
class Carrier:
    """Carries out decisions as far as the mode goes, and tells what became of each.

    ``unanswered`` has, by identity, sources that were asked whether they changed and failed;
    ``busy`` the identities and names that another run is at.
    """

    mode: Mode
    receiver: Receiver
    publisher: Publisher | None
    unanswered: dict[str, GlancingError]
    busy: frozenset[Target] = frozenset()

    def carry_out(self, decision: plan.Decision) -> ImageResult:
        """Do it; whatever goes wrong becomes the row of this one image."""
        clock = self.receiver.tools.clock
        started_s = clock.monotonic_s()
        self._tell_decision(decision)
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

    def _tell_decision(self, decision: plan.Decision) -> None:
        self.receiver.tools.events.debug(
            "image.decided",
            name=decision.spec.name,
            decision=_NAMES[type(decision)],
            reason=decision.reason,
            sources=[str(source) for source in decision.spec.sources],
            digests=[str(digest) for digest in decision.spec.expected.digests],
        )

    def _done(self, decision: plan.Decision) -> ImageResult:
        if self.receiver.tools.stop.is_set():
            raise InterruptedRunError("the run was told to stop before this image")
        match decision:
            case plan.Refuse():
                return _refused(decision)
            case plan.Skip():
                self._retire(decision.stored.id, decision.retire)
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
        if decision.after is None:
            self.publisher.update(decision.spec, decision.stored, decision.change)
            self._make_way(decision.making_way)
        elif not self.publisher.has_made_way(decision.stored):
            raise StoreError(
                f"it keeps its name until {decision.after.descriptor} is there",
                kind=ErrorKind.BUSY,
            )
        self._retire(decision.stored.id, decision.retire)
        return _row(decision, Outcome.UPDATED, decision.stored)

    def _published(
        self, decision: plan.Upload | plan.Replace, old: StoredImage | None
    ) -> ImageResult:
        identity = decision.spec.identity
        if (identity, decision.spec.name) in self.busy:
            raise StoreError("another run is at this image", kind=ErrorKind.BUSY)
        self._require_digest(decision.spec)
        if identity in self.unanswered:
            raise self.unanswered[identity]
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
        self._make_way(decision.making_way)
        if isinstance(decision, plan.Replace):
            self._retire(done.image_id, decision.retire)
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

    def _make_way(self, updates: Sequence[plan.Update]) -> None:
        """Give images that bore names which others have now the ones that they are to have."""
        for update in updates:
            assert self.publisher is not None  # noqa: S101 - a run that applies has logged in
            self.publisher.make_way(update.spec, update.stored, update.change)

    def _retire(self, current_id: str | None, surplus: Sequence[StoredImage]) -> None:
        if self.mode is Mode.APPLY and self.publisher is not None:
            self.publisher.retire_surplus(current_id, surplus)

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
        tools = self.receiver.tools
        announced_bytes = from_mirrors(tools, spec, tools.sources.probe).size_bytes
        if announced_bytes is not None:
            self._check_announced(spec.expected, announced_bytes)

    def _check_announced(self, expected: Expected, announced_bytes: int) -> None:
        """Refuse what the pipeline would refuse for the size that the source announces."""
        options = self.receiver.options
        if announced_bytes == 0:
            raise VerificationError("the published file is empty", kind=ErrorKind.EMPTY)
        if announced_bytes > options.max_size_bytes:
            raise VerificationError(
                f"the published file has more than {options.max_size_bytes} bytes",
                kind=ErrorKind.TOO_LARGE,
                hint="--max-size sets what is allowed",
            )
        plain = expected.compression is Compression.NONE
        image_bytes = expected.image_size_bytes if plain else None
        for what, wanted in (
            ("published file", expected.published_size_bytes),
            ("image", image_bytes),
        ):
            if wanted not in (None, announced_bytes) and not options.force:
                raise VerificationError(
                    f"the size of the {what} is wrong: expected {wanted} bytes, "
                    f"the source announces {announced_bytes}",
                    kind=ErrorKind.WRONG_SIZE,
                )


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
    special = {ErrorKind.NO_DIGEST: Outcome.REFUSED, ErrorKind.BUSY: Outcome.BUSY}
    row = _row(decision, special.get(error.kind, Outcome.FAILED), None)
    return replace(row, error=ErrorReport(error.kind.value, error.message, error.hint))


def _refused(decision: plan.Refuse) -> ImageResult:
    row = _row(decision, Outcome.REFUSED, decision.stored)
    return replace(row, error=ErrorReport(decision.kind.value, decision.reason, decision.hint))


def interrupted_row(decision: plan.Decision) -> ImageResult:
    """The row of an image that the run was not allowed to finish."""
    return _failed(decision, InterruptedRunError("the run was told to stop"))


def _text(value: object) -> str | None:
    return None if value is None else str(value)
