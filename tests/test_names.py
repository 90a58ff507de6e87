"""Distinguished names in slash form, which a signer and a list have to agree on."""

from __future__ import annotations

import pytest

from glancing.names import is_same_name, parse_name, slashed


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("/DC=ch/CN=A", "/DC=ch/CN=A", True),
        ("/dc=ch/cn=A", "/DC=ch/CN=A", True),
        ("/CN=A/Email=a@b", "/CN=A/emailAddress=a@b", True),
        ("/CN=host/a.example.org", "/CN=host/a.example.org", True),
        ("/O=A, Inc/1.2.3=x", "/O=A, Inc/1.2.3=x", True),
        ("/DC=ch/CN=A", "/CN=A/DC=ch", False),
        ("/DC=ch/CN=A", "/DC=ch/CN=a", False),
        ("/DC=ch/CN=A", "/DC=ch/CN=A ", False),
        ("/DC=ch/CN=A", "/DC=ch/CN=A/CN=B", False),
        ("/DC=ch/CN=A", "/DC=ch", False),
        ("", "", False),
        ("CN=A", "CN=A", False),
        ("x/CN=A", "x/CN=A", False),
    ],
)
def test_names_are_compared_part_by_part(one: str, other: str, same: bool) -> None:
    assert is_same_name(one, other) is same


def test_a_name_is_made_only_where_it_has_one_reading() -> None:
    assert slashed(["DC=ch", "CN=host/a"]) == "/DC=ch/CN=host/a"
    assert parse_name("/DC=ch/CN=host/a") == (("dc", "ch"), ("cn", "host/a"))
    assert slashed(["DC=ch", "CN=a/CN=b"]) is None
    assert slashed(["no type"]) is None
    assert slashed([]) is None
