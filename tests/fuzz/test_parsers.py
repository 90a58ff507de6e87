"""Whatever bytes strangers publish, the readers of them end in a result or in a GlancingError.

Faults 19 to 22, 24, 25, 28, 30, 34 to 36 and 38, by variants of the corpus.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS, corpus, judge


@pytest.mark.parametrize("name", TARGETS)
def test_a_document_of_the_corpus_is_taken(name: str) -> None:
    assert any(judge(name, data) for data in corpus(name))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_variant_ends_in_a_result_or_an_error_of_ours(name: str, data: st.DataObject) -> None:
    documents = st.sampled_from(corpus(name))
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    judge(name, mutate(data.draw(documents), data.draw(documents), chance))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.binary(max_size=300))
def test_so_do_any_bytes(name: str, data: bytes) -> None:
    judge(name, data)
