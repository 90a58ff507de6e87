"""Every fault, attack and promise has a test that names it; a full run writes the table of them."""

from __future__ import annotations

import pytest

from tests.faults import table


@pytest.mark.parametrize("number", table.TITLES)
def test_it_has_a_test(number: str) -> None:
    assert table.proofs()[number]


def test_only_what_passed_is_told() -> None:
    found = {"1": ["a::test_one", "b::test_two"], "2": []}
    shown = table.as_markdown(found, most=1)
    assert "`a::test_one`<br>and 1 more" in shown and "| 2 |" in shown


@pytest.mark.parametrize(
    ("docstring", "numbers"),
    [
        ("Fault 15: a redirect.", {"15"}),
        ("Faults 39, 41 to 43 and 46; P1 holds.", {"39", "41", "42", "43", "46", "P1"}),
        ("Faults 1 and 2.", {"1", "2"}),
        (
            "Promises P1 to P4 and P9, and faults 29, 44.",
            {"P1", "P2", "P3", "P4", "P9", "29", "44"},
        ),
        ("No default, 12 s.", set()),
        (None, set()),
    ],
)
def test_numbers_are_read_from_docstrings(docstring: str | None, numbers: set[str]) -> None:
    assert table.numbers_in(docstring) == numbers
