"""Takes an image in: opens its source, runs the one pass over it, spools it where that is wanted.

What comes out is an ``Intake``: pieces that end normally only when everything was verified, and
afterwards what was measured. Nothing here knows Glance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from glancing.errors import (
    DownloadError,
    ErrorKind,
    InterruptedRunError,
    UnsafeImageError,
    VerificationError,
)
from glancing.model import (
    Clock,
    Events,
    Expected,
    Integrity,
    LocalPath,
    Location,
    Measured,
    Options,
    Progress,
    RetryPolicy,
    Sources,
    SourceStream,
    Spec,
    Validators,
    Workspace,
)
from glancing.pipeline import Checks, Pipeline

T = TypeVar("T")

_PROGRESS_S = 10.0


class NoProgress:
    """``model.Progress`` where nobody watches."""

    def advanced(self, name: str, done_bytes: int, total_bytes: int | None) -> None:
        """Show nothing."""

    def ended(self, name: str) -> None:
        """Show nothing."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a run works with; all of it can be replaced by a test's own."""

    sources: Sources
    workspace: Workspace
    clock: Clock
    events: Events
    stop: threading.Event
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    progress: Progress = field(default_factory=NoProgress)


def from_mirrors(tools: Tools, spec: Spec, attempt: Callable[[Location], T]) -> T:
    """What the first source gives; what is missing or wrong at one may be right at the next.

    Raises the error of the last source.
    """
    *others, last = spec.sources
    for source in others:
        try:
            return attempt(source)
        except (DownloadError, VerificationError, UnsafeImageError) as error:
            fields = {"name": spec.name, "source": str(source), "reason": error.message}
            tools.events.warning("source.passed_over", **fields)
    return attempt(last)


@dataclass(slots=True)
class Intake:
    """One image on its way in: its stream, the pass over it, and what is known of it.

    ``settled`` is set by whoever has used it well; else a kept file goes with the failed attempt.
    ``kept_path`` is known once the intake was left again: before, a crash would keep the file too.
    ``first`` is what the pass into the work directory measured, where there was one: only that one
    saw the published bytes.
    """

    spec: Spec
    source: Location
    stream: SourceStream
    pipeline: Pipeline
    pieces: Iterator[bytes]
    validators: Validators
    first: Measured | None = None
    kept_path: Path | None = None
    announced_format: str | None = field(default=None, init=False)
    settled: bool = field(default=False, init=False)

    @property
    def measured(self) -> Measured:
        """What was found out; RuntimeError before all of it was read and verified."""
        return self.first or self.pipeline.measured

    @property
    def integrity(self) -> Integrity:
        """How far the bytes are proven; RuntimeError as for ``measured``."""
        if self.measured.mismatched:
            return Integrity.FORCED
        if not self.measured.matched:
            return Integrity.NONE
        expected = self.spec.expected
        proven_elsewhere = set(expected.digests) - expected.over_http
        if expected.over_http and not proven_elsewhere and self.source.travels_openly:
            return Integrity.TRANSPORT
        return Integrity.PUBLISHED

    def announce_format(self) -> str:
        """The disk format for the record, which Glance wants before the data."""
        self.announced_format = self.pipeline.likely_format
        if self.announced_format is None:
            raise UnsafeImageError(
                "the first bytes do not tell the disk format",
                kind=ErrorKind.FORMAT_MISMATCH,
                hint="--spool reads the whole image before anything is sent",
            )
        return self.announced_format

    def require_announced_format(self) -> None:
        """Refuse an image that turned out to be of another format than its record says."""
        if self.announced_format in (None, self.measured.disk_format):
            return
        raise UnsafeImageError(
            f"the image began like {self.announced_format} and is {self.measured.disk_format}",
            kind=ErrorKind.FORMAT_MISMATCH,
        )


@dataclass(frozen=True, slots=True)
class Receiver:
    """Opens intakes for one run; ``algorithms`` are computed of every image in any case."""

    tools: Tools
    options: Options
    algorithms: tuple[str, ...] = ("md5", "sha512")

    def check(self, spec: Spec) -> Intake:
        """Read and verify a whole image, and let go of its bytes; raises ImageError."""

        def read(source: Location) -> Intake:
            with self.receive(spec, source, spool=self.options.spool) as intake:
                for _ in intake.pieces:
                    pass
                intake.settled = True
                return intake

        return from_mirrors(self.tools, spec, read)

    def review(self, spec: Spec, stream: SourceStream) -> Intake:
        """Read and verify a stored image as if it came from a source; raises ImageError.

        Digests of a published file that was compressed are none of the image's, and so never match.
        """
        expected = spec.expected
        checks = Checks(
            expected=Expected(
                image=expected.digests,
                image_size_bytes=expected.image_size_bytes,
                disk_format=expected.disk_format,
            ),
            image_algorithms=self.algorithms,
            operator_disk_format=self.options.disk_format,
            max_size_bytes=self.options.max_size_bytes,
        )
        pipeline = Pipeline(stream, checks)
        pieces = self._watched(pipeline, spec)
        for _ in pieces:
            if self.tools.stop.is_set():
                raise InterruptedRunError(f"reading image {spec.name!r} back was broken off")
        return Intake(spec, spec.sources[0], stream, pipeline, pieces, Validators())

    @contextmanager
    def receive(self, spec: Spec, source: Location, *, spool: bool) -> Iterator[Intake]:
        """Open a source up to its first bytes; with ``spool``, verify it all into a file first."""
        with ExitStack() as stack:
            stream = stack.enter_context(self.tools.sources.open(source))
            pipeline = Pipeline(stream, self._checks(spec))
            pipeline.start()
            pieces = self._watched(pipeline, spec)
            direct = Intake(spec, source, stream, pipeline, pieces, stream.validators)
            yield stack.enter_context(self._spooled(direct)) if spool else direct

    @contextmanager
    def _spooled(self, direct: Intake) -> Iterator[Intake]:
        """Verify the whole image into the work directory, and read it from there."""
        workspace, spec = self.tools.workspace, direct.spec
        path = workspace.spool(spec.name, direct.pieces, direct.pipeline.image_size_bytes)
        first = direct.measured
        self.tools.events.info("image.spooled", name=spec.name, size_bytes=first.image_size_bytes)
        spooled = None
        try:
            with self.tools.sources.open(LocalPath(path)) as stream:
                pipeline = Pipeline(stream, self._checks_of_spool(first))
                pipeline.start()
                pieces = self._watched(pipeline, spec)
                again = replace(direct, stream=stream, pipeline=pipeline, pieces=pieces)
                spooled = replace(again, first=first)
                yield spooled
        finally:
            if self.options.keep_temps and spooled and spooled.settled:
                spooled.kept_path = workspace.keep(path)
            else:
                workspace.discard(path)

    def _checks(self, spec: Spec) -> Checks:
        return Checks(
            expected=spec.expected,
            image_algorithms=self.algorithms,
            force=self.options.force,
            verify_digests=self.options.verify_digests,
            operator_disk_format=self.options.disk_format,
            max_size_bytes=self.options.max_size_bytes,
        )

    def _checks_of_spool(self, first: Measured) -> Checks:
        expected = Expected(
            image=first.image,
            image_size_bytes=first.image_size_bytes,
            disk_format=first.disk_format,
        )
        return Checks(expected=expected, image_algorithms=self.algorithms)

    def _watched(self, pipeline: Pipeline, spec: Spec) -> Iterator[bytes]:
        """Say how far a transfer is, and from time to time that a long one is alive."""
        clock, done_bytes = self.tools.clock, 0
        told_s = started_s = clock.monotonic_s()
        progress = self.tools.progress
        with closing(iter(pipeline)) as pieces:
            try:
                for piece in pieces:
                    done_bytes += len(piece)
                    self._enforce_limit(clock.monotonic_s() - started_s)
                    progress.advanced(spec.name, done_bytes, pipeline.image_size_bytes)
                    if clock.monotonic_s() - told_s >= _PROGRESS_S:
                        told_s = clock.monotonic_s()
                        fields = {"name": spec.name, "done_bytes": done_bytes}
                        self.tools.events.info("image.progressed", **fields)
                    yield piece
            finally:
                progress.ended(spec.name)

    def _enforce_limit(self, passed_s: float) -> None:
        """Other runs take an image for abandoned once its time is over, so it has to be."""
        if passed_s <= self.options.image_timeout_s:
            return
        raise DownloadError(
            f"the image took longer than {self.options.image_timeout_s:.0f} seconds",
            kind=ErrorKind.STALLED,
            hint="--image-timeout sets what is allowed",
        )
