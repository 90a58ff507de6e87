"""Random histories of publishers, administrators, accidents and runs; see ``fuzz.machine``.

Promises P1 to P4 and P9, and faults 29, 44, 46, 49, 51 and 52, in whatever order they come.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from glancing.model import Options
from tests.fuzz.line import Accident
from tests.fuzz.machine import Machine

SUITE = settings(
    max_examples=2000,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def test_whatever_happens_the_promises_hold() -> None:
    run_state_machine_as_test(Machine, settings=SUITE)


def test_an_image_in_use_whose_name_is_that_of_a_backup_stays_in_use() -> None:
    """Promise P2; the machine found it."""
    machine = Machine()
    machine.settle()
    machine.import_one(index=0, options=Options(jobs=1), accident=None, name="alpha_old")
    machine.teardown()


@pytest.mark.parametrize("position", range(10))
def test_a_lost_answer_never_costs_an_image_that_is_published(position: int) -> None:
    """Fault 43, promises P2 and P4; the machine found it."""
    machine = Machine()
    machine.sync_with_accident(Options(jobs=1), Accident("lost answer", position))
    machine.teardown()
