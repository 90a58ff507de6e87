"""Reads image lists and metadata into wanted images, over whatever documents that takes.

Parsers are pure: they say which further document they need, and this is where it is fetched. A
document that fails costs its own entries and no others, and every loss is a row of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from glancing import digests
from glancing.crew import Crew
from glancing.errors import (
    ConfigError,
    DownloadError,
    ErrorKind,
    GlancingError,
    ImageListError,
)
from glancing.imagelist import MAX_LIST_BYTES, hepix, parse_descriptor, parse_list, parse_need
from glancing.model import (
    Clock,
    Digest,
    ErrorReport,
    Events,
    Expected,
    ImageResult,
    LocalPath,
    Location,
    Naming,
    Need,
    Origin,
    Outcome,
    Parsed,
    Problem,
    Severity,
    Sources,
    Spec,
    Url,
)

MARKETPLACE = Url("https://marketplace.stratuslab.eu/marketplace/metadata")
MAX_SUMS_BYTES = 16 * 1024 * 1024
_READERS = 8  # documents are small: what counts is the waiting for each


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything that was asked for: images in order, and rows for those that cannot be told."""

    specs: tuple[Spec, ...] = ()
    failures: tuple[ImageResult, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """One image as the command line of ``import`` names it.

    ``cern_list`` makes ``descriptor`` an identifier in that list. ``sums`` and ``sums_files`` come
    before what metadata says, in this order of authority.
    """

    descriptor: str
    name: str | None = None
    sums: tuple[Digest, ...] = ()
    sums_files: tuple[Location, ...] = ()
    cern_list: Location | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Reads the documents of one run.

    ``folder`` is where relative paths of the command line start.
    """

    sources: Sources
    events: Events
    clock: Clock
    marketplace: Url = MARKETPLACE
    folder: Path = field(default_factory=Path.cwd)

    # --- lists ---

    def read_lists(self, locations: Sequence[Location]) -> Wanted:
        """All entries of all lists, in order.

        ConfigError when a local list is missing or cannot be parsed, or when no list at all could
        be read. An unreachable remote list is one failed row.
        """
        parsed: list[Parsed] = []
        failures: list[ImageResult] = []
        for index, location in enumerate(locations):
            origin = Origin(list_index=index, list_name=str(location))
            try:
                parsed.append(self._read_list(location, origin))
            except (DownloadError, ImageListError) as error:
                if isinstance(location, LocalPath) or len(locations) == 1:
                    raise _unreadable(location, error) from error
                failures.append(failed_row(str(location), origin, error))
        if failures and not parsed:
            raise ConfigError("none of the lists could be read", kind=ErrorKind.BAD_LIST)
        wanted = self._complete(parsed)
        return replace(wanted, failures=(*failures, *wanted.failures))

    def _read_list(self, location: Location, origin: Origin) -> Parsed:
        local = isinstance(location, LocalPath)
        self.sources.vouch([location, self.marketplace])
        base = (self.folder / location.path).parent if isinstance(location, LocalPath) else None
        found = parse_list(
            self.sources.read(location, MAX_LIST_BYTES),
            marketplace=self.marketplace,
            base=base,
            trusted=local,
            origin=origin,
        )
        if local:
            self._vouch_for(found)
        entries = len(found.specs) + len(found.needs)
        self.events.info("list.read", list=str(location), entries=entries)
        return found

    def _vouch_for(self, found: Parsed) -> None:
        """What a local document names is the operator's own word."""
        self.sources.vouch(need.location for need in found.needs)
        self.sources.vouch(source for spec in found.specs for source in spec.sources)

    def _complete(self, parsed: Iterable[Parsed]) -> Wanted:
        """Fetch what is needed further, tell the problems, and put everything in order."""
        specs: list[Spec] = []
        failures: list[ImageResult] = []
        needs: list[Need] = []
        for part in parsed:
            specs += part.specs
            needs += part.needs
            failures += self._tell(part.problems)
        for found in self._fetch(needs):
            if isinstance(found, ImageResult):
                failures.append(found)
            else:
                specs += found
        specs.sort(key=lambda spec: spec.origin)
        return Wanted(self._without_duplicates(specs), tuple(failures))

    def _tell(self, problems: Iterable[Problem]) -> list[ImageResult]:
        rows = []
        for problem in problems:
            where = {"list": problem.origin.list_name, "line": problem.origin.line or None}
            if problem.severity is Severity.WARNING:
                self.events.warning(problem.event, reason=problem.message, **where)
                continue
            error = ImageListError(problem.message, hint=problem.hint)
            rows.append(failed_row(problem.descriptor, problem.origin, error))
        return rows

    def _without_duplicates(self, specs: Sequence[Spec]) -> tuple[Spec, ...]:
        """Drop what several lists name alike; other clashes are the plan's to judge."""
        seen: dict[tuple[str, str], Spec] = {}
        for spec in specs:
            first = seen.setdefault((spec.identity, spec.descriptor), spec)
            if first is not spec:
                self.events.warning(
                    "list.duplicate_skipped",
                    list=spec.origin.list_name,
                    line=spec.origin.line,
                    reason=f"{spec.descriptor} stands already in {first.origin.list_name}",
                )
        return tuple(seen.values())

    # --- further documents ---

    def _fetch(self, needs: Sequence[Need]) -> list[ImageResult | tuple[Spec, ...]]:
        found = Crew(self._answer, needs, workers=_READERS).results()
        return [answer for _, answer in sorted(found, key=lambda pair: pair[0])]

    def _answer(self, need: Need) -> ImageResult | tuple[Spec, ...]:
        try:
            return self._follow(need)
        except GlancingError as error:
            return failed_row(need.descriptor, need.origin, error)

    def _follow(self, need: Need) -> tuple[Spec, ...]:
        """Read a document, and what it needs in turn."""
        found = parse_need(self.sources.read(need.location, need.max_bytes), need)
        if need.location.travels_openly:
            found = replace(found, specs=tuple(_over_http(spec) for spec in found.specs))
        if isinstance(need.location, LocalPath):
            self._vouch_for(found)
        further = (spec for inner in found.needs for spec in self._follow(inner))
        return (*found.specs, *further)

    # --- the one image of `import` ---

    def read_request(self, request: ImportRequest) -> Spec:
        """The one image that ``import`` is to bring; raises GlancingError."""
        self.sources.vouch([self.marketplace])
        spec = self._named(request)
        if request.name:
            spec = replace(spec, name=request.name)
        expected, notes = self._with_sums(spec, request)
        for note in notes:
            self.events.warning("digest.overridden", name=spec.name, reason=note)
        return replace(spec, expected=expected)

    def _with_sums(self, spec: Spec, request: ImportRequest) -> tuple[Expected, tuple[str, ...]]:
        """What is expected with the digests of ``-s`` and ``-S``, and what gave way to them."""
        listed = [(place, self._listed(place, spec)) for place in request.sums_files]
        sums_files = tuple(digest for _, found in listed for digest in found)
        expected, notes = digests.override(spec.expected, sums=request.sums, sums_files=sums_files)
        openly = {each for place, found in listed if place.travels_openly for each in found}
        safely = {each for place, found in listed if not place.travels_openly for each in found}
        over_http = (expected.over_http | openly) - safely - set(request.sums)
        over_http &= set(expected.digests)
        return replace(expected, over_http=frozenset(over_http)), notes

    def _named(self, request: ImportRequest) -> Spec:
        if request.cern_list is not None:
            return self._entry(request.cern_list, request.descriptor)
        found = parse_descriptor(
            request.descriptor,
            marketplace=self.marketplace,
            base=self.folder,
            trusted=True,
            origin=Origin(),
            naming=Naming.OS_VERSION_ARCH,
            name=request.name,
        )
        if isinstance(found, Spec):
            self.sources.vouch(found.sources)
            return found
        self.sources.vouch([found.location])
        return self._follow(found)[0]

    def _entry(self, location: Location, identifier: str) -> Spec:
        """An entry of a HEPiX list on this machine, whose signature and expiry are the operator's.

        A fetched list is refused: its signature is not verified here.
        """
        if not isinstance(location, LocalPath):
            raise ConfigError(
                f"{location} is not a local list, and its signature cannot be verified",
                hint="fetch the list, verify it, and give the file",
            )
        try:
            data = self.sources.read(location, MAX_LIST_BYTES)
            found = hepix.parse(data, origin=Origin())
        except (DownloadError, ImageListError) as error:
            raise _unreadable(location, error) from error
        now = self.clock.now()
        if not found.signed:
            self.events.warning("list.unsigned", list=str(location))
        for problem in found.problems:
            if problem.severity is Severity.WARNING:
                self.events.warning(problem.event, list=str(location), reason=problem.message)
        if found.expires and found.expires < now:
            self.events.warning("list.expired", list=str(location), expired=str(found.expires))
        spec = found.entry(identifier)
        self.sources.vouch(spec.sources)
        return spec

    def _listed(self, location: Location, spec: Spec) -> tuple[Digest, ...]:
        """The digests that a sums file gives for an image's published file."""
        self.sources.vouch([location])
        try:
            data = self.sources.read(location, MAX_SUMS_BYTES)
        except DownloadError as error:
            if isinstance(location, LocalPath):
                raise _unreadable(location, error) from error
            raise
        return digests.parse_sums_file(data, _file_name(location), _names(spec))


def failed_row(descriptor: str, origin: Origin, error: GlancingError) -> ImageResult:
    """The row of an entry for which nothing could be decided."""
    return ImageResult(
        name="",
        descriptor=descriptor,
        origin=origin,
        decision="refuse",
        reason=error.message,
        outcome=Outcome.FAILED,
        error=ErrorReport(error.kind.value, error.message, error.hint),
    )


def _over_http(spec: Spec) -> Spec:
    """An image whose digests all came in one document, unsigned over plain HTTP."""
    weak = frozenset(spec.expected.digests)
    return replace(spec, expected=replace(spec.expected, over_http=weak))


def _unreadable(location: Location, error: GlancingError) -> ConfigError:
    return ConfigError(
        f"{location} cannot be read: {error.message}", kind=ErrorKind.BAD_LIST, hint=error.hint
    )


def _names(spec: Spec) -> list[str]:
    """The names under which sums files may list an image: those of its sources."""
    return [_file_name(source) for source in spec.sources]


def _file_name(location: Location) -> str:
    if isinstance(location, LocalPath):
        return location.path.name
    return PurePosixPath(location.parts.path).name
