"""The whole run, as operators think of it.

``sync`` makes Glance hold what image lists ask for, ``import`` does so for one image:

1. read the lists, and the metadata they point to (``catalogue``); nothing is touched before all of
   it was read
2. log in, read the inventory: all images of our own project (``glance``), and clear away what dead
   runs left (``survey``)
3. ask the sources of bare URLs whether they have changed (``download``)
4. decide, for every entry, from these facts alone (``plan``)
5. carry the decisions out, several at once (``publisher``): upload, replace, update, retire. A dry
   run reads and verifies what it would upload; a plan only asks the sources whether they answer
6. one row and one event per entry, and an exit code (``report``)

An entry that fails costs nothing but itself: ``Carrier.carry_out`` is the one place that catches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from glancing import plan, survey
from glancing.carrier import Carrier, Mode, interrupted_row, tell
from glancing.catalogue import Catalogue, ImportRequest, Wanted, failed_row
from glancing.crew import Crew
from glancing.errors import (
    ConfigError,
    DownloadError,
    ExitCode,
    GlancingError,
    RunInterrupted,
)
from glancing.intake import Receiver, Tools, from_mirrors
from glancing.model import (
    ImageResult,
    ImageStore,
    Location,
    Options,
    Origin,
    Spec,
    StoredImage,
    StoreFactory,
    Validators,
)
from glancing.publisher import Publisher
from glancing.report import RunResult, exit_code
from glancing.survey import Survey

_CLEANING_UP_S = 8.0  # Kubernetes kills 30 s after it asked; docker stop after 10 s
_ASKING = 8


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
        policy = plan.Policy(adopt=self.options.adopt, force=self.options.force)
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
        found = self._survey(store, specs)
        decisions, failures = self._decisions(specs, found.inventory, policy)
        reported = (stored.hash_algorithm for stored in found.inventory)
        algorithms = tuple(dict.fromkeys(("md5", "sha512", *filter(None, reported))))
        receiver = Receiver(self.tools, self.options, algorithms)
        publisher = None
        if store is not None:
            publisher = Publisher(store, found.inventory, receiver, self.run_id, found.filled)
        carrier = Carrier(self.mode, receiver, publisher, failures, found.busy)
        done, interrupted = self._act(carrier, [d for d in decisions if self._is_asked_for(d.spec)])
        # An interrupted run may still be at what it would remove; the next one finds it again.
        if publisher and not interrupted and publisher.remove_leftovers() and found.cleared:
            self.tools.workspace.forget_dead_runs()
        return done, interrupted

    def _survey(self, store: ImageStore | None, specs: Sequence[Spec]) -> Survey:
        if store is None:
            self.tools.events.warning("glance.not_consulted", reason="no cloud is configured")
            return Survey(inventory=())
        if self.mode is not Mode.APPLY:
            return survey.look(store, self.tools)
        asked = {(spec.identity, spec.name) for spec in specs if self._is_asked_for(spec)}
        return survey.clear(store, self.tools, asked)

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
                return from_mirrors(self.tools, spec, self.tools.sources.probe)
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

        Entries that can be read all stay: what they claim counts for the decisions. Every shard
        tells all failures, because what could not be read may have been its own.
        """
        only = self.options.only
        known = {word for spec in wanted.specs for word in _names_of(spec)}
        missing = set(only) - known - {row.descriptor for row in wanted.failures}
        if missing and not wanted.failures:
            raise ConfigError(f"no entry is called {', '.join(sorted(missing))}")
        asked = [row for row in wanted.failures if not only or missing or row.descriptor in only]
        return replace(wanted, failures=tuple(asked))

    def _is_asked_for(self, spec: Spec) -> bool:
        wanted = not self.options.only or not _names_of(spec).isdisjoint(self.options.only)
        return wanted and self.options.shard.has(spec.identity)

    def _act(
        self, carrier: Carrier, decisions: Sequence[plan.Decision]
    ) -> tuple[list[ImageResult], ExitCode | None]:
        """Carry decisions out, and when the run is interrupted, gather what became of them."""
        ordered = sorted(decisions, key=plan.waits)
        first = sum(not plan.waits(decision) for decision in ordered)
        rows: dict[int, ImageResult] = {}
        crew, begin = None, 0
        try:
            for begin, end in ((0, first), (first, len(ordered))):
                crew = Crew(carrier.carry_out, ordered[begin:end], workers=self.options.jobs)
                for index, row in crew.results():
                    rows[begin + index] = row
        except RunInterrupted as interruption:
            self.tools.events.warning("run.interrupted", exit_code=int(interruption.exit_code))
            late = crew.results_within(_CLEANING_UP_S) if crew else ()
            rows.update((begin + index, row) for index, row in late)
            undone = [d for index, d in enumerate(ordered) if index not in rows]
            given_up = [interrupted_row(decision) for decision in undone]
            return [*rows.values(), *given_up], interruption.exit_code
        return list(rows.values()), None


def _names_of(spec: Spec) -> set[str]:
    """What ``--only`` may call an entry."""
    return {spec.name, spec.identity, spec.descriptor}
