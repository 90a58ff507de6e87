"""When a HEPiX list counts in ``sync``.

Fault 34: lists that have expired, are dated in the future, or whose age cannot be judged.
Fault 35: lists that nobody signed, or somebody else than their endorser.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from glancing.errors import ErrorKind, ImageListError, SignatureError
from glancing.imagelist import parse_list
from glancing.model import ListContext, Origin, Parsed, Signature, Trust, Url
from tests.imagelist_documents import HEPIX_IMAGE, HEPIX_LIST, hepix, signed

DN, CA = "/DC=org/DC=example/CN=Endorser", "/DC=org/DC=example/CN=Example CA"
OTHER = "/DC=org/DC=example/CN=Other"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIST = Url("http://lists.example.org/list")
DATES = {"dc:date:created": "2025-12-01T00:00:00Z", "dc:date:expires": "2026-02-01T00:00:00Z"}

GOOD = Signature(b"", DN, "sha256", CA)
ENDORSER = Trust(endorser_dn=DN, endorser_ca=CA)


def endorser(dn: str = DN, ca: str = CA) -> dict[str, Any]:
    return {"hv:endorser": {"hv:x509": {"hv:dn": dn, "hv:ca": ca}}}


def read(
    *images: Mapping[str, Any],
    signature: Signature | None = GOOD,
    trust: Trust = ENDORSER,
    now: datetime | None = NOW,
    **fields: Any,
) -> Parsed:
    data = hepix(*images, **{**DATES, **endorser(), **fields})
    context = ListContext(LIST, Origin(), LIST, signature=signature, trust=trust, now=now)
    return parse_list(data, context)


def test_a_list_of_its_endorser() -> None:
    found = read({"hv:size": "12506112"}, {"dc:identifier": "two", "dc:title": "Two"})
    assert [spec.name for spec in found.specs] == ["Small image", "Two"]
    assert found.signed and not found.problems


@pytest.mark.parametrize("headers", [b"Content-Type: text/plain\r\n\r\n"])
def test_what_was_signed_may_have_headers_of_its_own(headers: bytes) -> None:
    context = ListContext(LIST, Origin(), LIST, now=NOW, signature=Signature(b"", DN, "", CA))
    data = headers + hepix(**{**DATES, **endorser()})
    assert len(parse_list(data, context).specs) == 1


@pytest.mark.parametrize(
    ("trust", "fields"),
    [
        (Trust(), endorser(OTHER, CA)),
        (Trust(), endorser(DN, OTHER)),
        (Trust(), endorser("", "")),
        (Trust(), {"hv:endorser": {}}),
        (Trust(), {"hv:endorser": None}),
        (Trust(endorser_dn=OTHER), endorser()),
        (Trust(endorser_dn=DN, endorser_ca=OTHER), endorser()),
        (Trust(endorser_ca=OTHER), endorser()),
    ],
)
def test_lists_of_others(trust: Trust, fields: dict[str, Any]) -> None:
    with pytest.raises(SignatureError) as refusal:
        read(trust=trust, **fields)
    assert refusal.value.check == "endorser"
    assert refusal.value.signer == DN


def test_any_signer_counts_where_none_is_named_and_that_is_said() -> None:
    for trust in (Trust(), Trust(endorser_ca=CA)):
        [note] = read(trust=trust).problems
        assert note.event == "list.any_endorser_accepted"


def test_an_openpgp_signature_is_by_whom_the_keyring_names() -> None:
    by_key = Signature(b"", "fingerprint", "sha512")
    assert read(signature=by_key, trust=Trust()).signed
    with pytest.raises(SignatureError, match="not by the endorser"):
        read(signature=by_key)


def test_unsigned_lists_only_where_the_operator_says_so() -> None:
    with pytest.raises(SignatureError) as refusal:
        read(signature=None)
    assert (refusal.value.check, refusal.value.kind) == ("unsigned", ErrorKind.BAD_SIGNATURE)
    found = read(signature=None, trust=Trust(allow_unsigned=True))
    assert not found.signed
    assert [note.event for note in found.problems] == ["list.unsigned"]


def test_an_envelope_that_nobody_verified_is_no_signature() -> None:
    data = signed(hepix(**{**DATES, **endorser()}))
    context = ListContext(LIST, Origin(), LIST, now=NOW)
    with pytest.raises(SignatureError, match="not signed"):
        parse_list(data, context)
    allowed = replace(context, trust=Trust(allow_unsigned=True))
    assert [note.event for note in parse_list(data, allowed).problems] == ["list.unsigned"]


@pytest.mark.parametrize(
    ("reason", "fields", "now"),
    [
        ("has expired", {"dc:date:expires": "2025-12-31T23:54:00Z"}, NOW),
        ("in the future", {"dc:date:created": "2026-01-01T00:06:00Z"}, NOW),
        ("no dc:date:created", {"dc:date:created": ""}, NOW),
        ("no time", {"dc:date:created": "yesterday"}, NOW),
        ("the clock says", {}, datetime(1970, 1, 1, tzinfo=UTC)),
        ("the clock says", {}, None),
    ],
)
def test_lists_of_another_time(reason: str, fields: dict[str, Any], now: datetime | None) -> None:
    with pytest.raises(ImageListError, match=reason):
        read(now=now, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"dc:date:expires": "2025-12-31T23:56:00Z"},
        {"dc:date:created": "2026-01-01T00:04:00Z"},
        {"dc:date:created": "2026-01-01T02:00:00+02:00"},
        {"dc:date:expires": ""},
    ],
)
def test_clocks_may_differ_by_five_minutes(fields: dict[str, Any]) -> None:
    assert len(read(**fields).specs) == 1


def test_only_the_lists_that_were_asked_for() -> None:
    ours = HEPIX_LIST["dc:identifier"]
    assert read(trust=Trust(list_ids=("other", ours))).specs
    with pytest.raises(ImageListError) as refusal:
        read(trust=Trust(list_ids=("other",)))
    assert refusal.value.hint == "--list-id asks for other"


def test_an_expired_image_is_a_row_and_the_others_go_on() -> None:
    past = (NOW - timedelta(days=1)).isoformat()
    found = read({"dc:date:expires": past}, {"dc:identifier": "two"}, {"dc:date:expires": ""})
    assert [spec.identity for spec in found.specs] == ["two"]
    expired, twice = sorted(found.problems, key=lambda problem: "twice" in problem.message)
    assert "has expired on 2025-12-31" in expired.message
    assert expired.descriptor == HEPIX_IMAGE["dc:identifier"]
    assert "stands twice" in twice.message
