"""Reads image lists and metadata into wanted images, over whatever documents that takes.

Parsers are pure: they say which further document they need, and this is where it is fetched. A
document that fails costs its own entries and no others, and every loss is a row of the result.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from glancing import digests
from glancing.crew import Crew
from glancing.errors import (
    ConfigError,
    DownloadError,
    ErrorKind,
    GlancingError,
    ImageListError,
    SignatureError,
)
from glancing.imagelist import (
    MAX_LIST_BYTES,
    folder,
    hepix,
    parse_descriptor,
    parse_need,
    with_keys,
)
from glancing.model import (
    Clock,
    Digest,
    ErrorReport,
    Events,
    ImageResult,
    ListContext,
    LocalPath,
    Location,
    Naming,
    Need,
    NeedKind,
    Origin,
    Outcome,
    Parsed,
    Problem,
    Reading,
    Severity,
    Sources,
    Spec,
    Url,
)
from glancing.signed import SignedDocuments

MARKETPLACE = Url("https://marketplace.stratuslab.eu/marketplace/metadata")
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


class _SumsFiles:
    """The checksum files of one run; many entries name the same one, which is read once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: dict[Location, Future[bytes]] = {}

    def read(self, location: Location, read: Callable[[Location], bytes]) -> bytes:
        """The file as it was first read, or its error; raises what ``read`` raises."""
        with self._lock:
            known = self._read.get(location)
            found = self._read.setdefault(location, known or Future())
        if known is None:
            try:
                found.set_result(read(location))
            except GlancingError as error:
                found.set_exception(error)
        return found.result()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Reads the documents of one run.

    ``folder`` is where relative paths of the command line start, ``signed`` tells which documents
    have to be signed (None for none).
    """

    sources: Sources
    events: Events
    clock: Clock
    marketplace: Url = MARKETPLACE
    folder: Path = field(default_factory=Path.cwd)
    reading: Reading = field(default_factory=Reading)
    signed: SignedDocuments | None = None
    _sums: _SumsFiles = field(default_factory=_SumsFiles)

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
        specs = self._without_duplicates(wanted.specs)
        return Wanted(specs, failures=(*failures, *wanted.failures))

    def _read_list(self, location: Location, origin: Origin) -> Parsed:
        self.sources.vouch([location, self.marketplace])
        context = ListContext(
            self._absolute(location), origin, self.marketplace, reading=self.reading
        )
        return self._parsed(location, context)

    def _parsed(self, location: Location, context: ListContext) -> Parsed:
        """What a list or a folder says; raises DownloadError and ImageListError."""
        names = self.sources.names_in(location)
        if names is None:
            data = self.sources.read(location, MAX_LIST_BYTES)
            found = self._documents.read_list(data, context, self.sources, self.clock.now())
        else:
            found = folder.parse(names, context)
        self._tell_list(location, found)
        if context.trusted:
            self._vouch_for(found)
        return _over_http(found) if location.travels_openly and not found.signed else found

    def _absolute(self, location: Location) -> Location:
        if isinstance(location, LocalPath):
            return LocalPath(Path(os.path.normpath(self.folder / location.path)))
        return location

    def _tell_list(self, location: Location, found: Parsed) -> None:
        entries = len(found.specs) + len(found.needs)
        self.events.info("list.read", list=str(location), entries=entries)

    def _vouch_for(self, found: Parsed) -> None:
        """What a local document names is the operator's own word."""
        self.sources.vouch(need.location for need in found.needs)
        self.sources.vouch(file for need in found.needs for file in need.keys.sums_files)
        specs = (*found.specs, *(need.spec for need in found.needs if need.spec))
        self.sources.vouch(source for spec in specs for source in spec.sources)

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
            specs += found.specs
            failures += found.failures
        specs.sort(key=lambda spec: spec.origin)
        return Wanted(tuple(specs), tuple(failures))

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
        """Drop what several lists name alike; what they say otherwise is the plan's to judge."""
        seen: dict[tuple[str, str], Spec] = {}
        clashing: list[Spec] = []
        for spec in specs:
            first = seen.setdefault((spec.identity, spec.descriptor), spec)
            if first is not spec and not _agree(first, spec):
                clashing.append(spec)
            elif first is not spec:
                self.events.warning(
                    "list.duplicate_skipped",
                    list=spec.origin.list_name,
                    line=spec.origin.line,
                    reason=f"{spec.descriptor} stands already in {first.origin.list_name}",
                )
        return tuple(sorted((*seen.values(), *clashing), key=lambda spec: spec.origin))

    # --- further documents ---

    def _fetch(self, needs: Sequence[Need]) -> list[Wanted]:
        found = Crew(self._answer, needs, workers=_READERS).results()
        return [answer for _, answer in sorted(found, key=lambda pair: pair[0])]

    def _answer(self, need: Need) -> Wanted:
        """What a document leads to, over whatever it needs in turn; a failure is a row."""
        try:
            return self._complete([self._followed(need)])
        except GlancingError as error:
            return Wanted(failures=(failed_row(need.descriptor, need.origin, error),))

    def _followed(self, need: Need) -> Parsed:
        """Read the document of a need."""
        if need.kind is NeedKind.SUMS:
            return Parsed(specs=(self._keyed(_needed_for(need), need),))
        if need.context is not None:
            return self._parsed(need.location, need.context)
        found = parse_need(self.sources.read(need.location, need.max_bytes), need)
        if isinstance(need.location, LocalPath):
            self._vouch_for(found)
        if need.location.travels_openly:
            found = _over_http(found)
        return replace(found, specs=tuple(self._keyed(spec, need) for spec in found.specs))

    def _keyed(self, spec: Spec, need: Need) -> Spec:
        """An image with the words that stand after its descriptor."""
        keys = need.keys
        files = self._naming(spec, keys.sums_files) if keys.in_any_file else keys.sums_files
        keyed = self._with_sums(with_keys(spec, keys), keys.sums, files)
        if keys.kept_as:
            keyed = _keeping_digest(keyed, keys.kept_as)
        if need.over_http and (keys.sums or keys.sums_files):
            return _weakened(keyed, keyed.expected.digests)
        return keyed

    def _naming(self, spec: Spec, files: Sequence[Location]) -> list[Location]:
        """Those of several checksum files that name an image; ImageListError when none does."""
        found = [
            file
            for file in files
            if digests.is_named_in(self._sums_file(file), _file_name(file), _names(spec))
        ]
        if not found:
            raise ImageListError(
                f"no checksum file names {_names(spec)[0]}",
                kind=ErrorKind.BAD_DIGEST,
                hint=f"looked at {', '.join(map(_file_name, files))}",
            )
        return found

    # --- the one image of `import` ---

    def read_request(self, request: ImportRequest) -> Spec:
        """The one image that ``import`` is to bring; raises GlancingError."""
        self.sources.vouch([self.marketplace, *request.sums_files])
        spec = self._named(request)
        if request.name:
            spec = replace(spec, name=request.name)
        return self._with_sums(spec, request.sums, request.sums_files)

    def _with_sums(self, spec: Spec, sums: tuple[Digest, ...], files: Sequence[Location]) -> Spec:
        """The image with the digests of the operator, and a word about those that gave way."""
        listed = [(place, self._listed(place, spec)) for place in files]
        found = tuple(digest for _, digests_there in listed for digest in digests_there)
        expected, notes = digests.override(spec.expected, sums=sums, sums_files=found)
        for note in notes:
            self.events.warning("digest.overridden", name=spec.name, reason=note)
        openly = {each for place, there in listed if self._may_change(place) for each in there}
        safely = {each for place, there in listed if not self._may_change(place) for each in there}
        over_http = (expected.over_http | openly) - safely - set(sums)
        over_http &= set(expected.digests)
        return replace(spec, expected=replace(expected, over_http=frozenset(over_http)))

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
        specs = self._followed(found).specs
        if len(specs) != 1:
            raise ImageListError(
                f"{found.descriptor} stands for several images", hint="sync brings all of them"
            )
        return specs[0]

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
        data = self._sums_file(location)
        return digests.parse_sums_file(data, _file_name(location), _names(spec))

    def _sums_file(self, location: Location) -> bytes:
        try:
            return self._sums.read(location, self._read_sums)
        except DownloadError as error:
            if isinstance(location, LocalPath):
                raise _unreadable(location, error) from error
            raise

    def _read_sums(self, location: Location) -> bytes:
        return self._documents.read_sums(location, self.sources)

    def _may_change(self, sums_file: Location) -> bool:
        """Whether anybody on the way can change a checksum file without being noticed."""
        return sums_file.travels_openly and not self._documents.has_keyring

    @property
    def _documents(self) -> SignedDocuments:
        return self.signed or SignedDocuments(self.events)


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


def _agree(one: Spec, other: Spec) -> bool:
    """Whether two entries are read from the same places, and no digests contradict each other."""
    known = {digest.algorithm: digest for digest in one.expected.digests}
    return one.sources == other.sources and all(
        known.get(digest.algorithm, digest) == digest for digest in other.expected.digests
    )


def _needed_for(need: Need) -> Spec:
    if need.spec is None:
        raise ValueError("digests are needed for an image")
    return need.spec


def _keeping_digest(spec: Spec, key: str) -> Spec:
    """The image with a property that holds the digest of its published file."""
    best = digests.strongest(spec.expected.published)
    found = {key: best.value} if best else {}
    return replace(spec, properties=MappingProxyType({**spec.properties, **found}))


def _over_http(found: Parsed) -> Parsed:
    """What a document says that came unsigned over plain HTTP: its digests prove little."""
    specs = (_weakened(spec, spec.expected.digests) for spec in found.specs)
    needs = (replace(need, over_http=True, spec=_all_weak(need.spec)) for need in found.needs)
    return replace(found, specs=tuple(specs), needs=tuple(needs))


def _all_weak(spec: Spec | None) -> Spec | None:
    return _weakened(spec, spec.expected.digests) if spec else None


def _weakened(spec: Spec, weak: Iterable[Digest]) -> Spec:
    return replace(spec, expected=replace(spec.expected, over_http=frozenset(weak)))


def _unreadable(location: Location, error: GlancingError) -> ConfigError:
    if isinstance(error, SignatureError):
        what = f"{location} is not taken: {error.message}"
        return ConfigError(what, kind=error.kind, hint=error.hint)
    what = f"{location} cannot be read: {error.message}"
    return ConfigError(what, kind=ErrorKind.BAD_LIST, hint=error.hint)


def _names(spec: Spec) -> list[str]:
    """The names under which sums files may list an image: those of its sources."""
    return [_file_name(source) for source in spec.sources]


def _file_name(location: Location) -> str:
    if isinstance(location, LocalPath):
        return location.path.name
    return PurePosixPath(location.parts.path).name
