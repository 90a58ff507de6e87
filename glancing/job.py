"""The whole run, as operators think of it.

``sync`` and ``plan`` make Glance hold what image lists ask for, ``import`` does so for one image:

1. read the lists, and the metadata they point to (``catalogue``); nothing is touched before all of
   it was read
2. log in, and read the inventory: all images of our own project (``glance``)
3. ask the sources of bare URLs whether they have changed (``download``)
4. decide, for every entry, from these facts alone (``plan``)
5. carry the decisions out, several at once (``publisher``): upload, replace, update, retire. A dry
   run reads and verifies what it would upload; ``plan`` only asks the sources whether they answer
6. one row per entry, one event per row, and an exit code (``report``)

An entry that fails costs nothing but itself: ``_carry_out`` is the one place that catches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from glancing import plan
from glancing.catalogue import Catalogue, ImportRequest, Wanted, failed_row
from glancing.errors import (
    ConfigError,
    GlancingError,
)
from glancing.model import (
    Location,
    Options,
    StoreFactory,
)
from glancing.publisher import Tools
from glancing.report import RunResult, exit_code

_CLEANING_UP_S = 8.0
_PROBES = 8


class Mode(Enum):
    """How far a run goes."""

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
        """Make Glance hold the images of all lists; ConfigError and CloudError end the run."""
        return self._run(
            lambda: self.catalogue.read_lists(lists), plan.Policy(adopt=self.options.adopt)
        )

    def import_one(self, request: ImportRequest) -> RunResult:
        """Make Glance hold one image under its name."""
        return self._run(lambda: self._wanted(request), plan.Policy(by_name=True))

    # --- steps 1 to 6 ---

    def _run(self, read: Callable[[], Wanted], policy: plan.Policy) -> RunResult:
        started_s = self.tools.clock.monotonic_s()
        wanted = read()
        rows = [self._told(row) for row in wanted.failures]
        rows += self._act(self._decided(wanted.specs, policy))
        rows.sort(key=lambda row: row.origin)
        return RunResult(
            run_id=self.run_id,
            command=self.command,
            images=tuple(rows),
            seconds=self.tools.clock.monotonic_s() - started_s,
            exit_code=exit_code(rows),
        )

    def _wanted(self, request: ImportRequest) -> Wanted:
        try:
            return Wanted(specs=(self.catalogue.read_request(request),))
        except ConfigError:
            raise
        except GlancingError as error:
            return Wanted(failures=(failed_row(request.descriptor, Origin(), error),))
