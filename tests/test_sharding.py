"""Every image belongs to exactly one shard, and a further shard moves only its own share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancing.sharding import Shard, owner

IDENTITIES = [f"https://example.org/image-{number}.qcow2" for number in range(200)]


@given(st.text(), st.integers(1, 40))
def test_an_image_belongs_to_exactly_one_shard(identity: str, count: int) -> None:
    assert sum(Shard(index, count).has(identity) for index in range(count)) == 1


def test_two_shards_share_a_list_fairly() -> None:
    first = sum(Shard(0, 2).has(identity) for identity in IDENTITIES)
    assert 75 <= first <= 125


def test_a_third_shard_takes_about_a_third_and_moves_nothing_else() -> None:
    before = [owner(identity, 2) for identity in IDENTITIES]
    after = [owner(identity, 3) for identity in IDENTITIES]
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {2} and 45 <= len(moved) <= 90


@pytest.mark.parametrize("text", ["", "1", "1/1", "2/2", "-1/2", "0/0", "a/b", "0/2/3", "0.5/2"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(ValueError, match="I/N"):
        Shard.parse(text)


def test_a_shard_is_counted_from_zero() -> None:
    assert Shard.parse("0/4") == Shard(0, 4) and Shard.parse(" 3/4 ") == Shard(3, 4)
