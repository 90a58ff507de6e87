"""What is written on images in Glance, and what is read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from glancing import marks
from glancing.model import (
    TAG,
    Attributes,
    Compression,
    Digest,
    Measured,
    Origin,
    Spec,
    StoredImage,
    Url,
    Validators,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SPEC = Spec(
    name="web",
    identity="id-web",
    descriptor="web",
    origin=Origin(0, 1, "images.list"),
    sources=(Url("https://user:secret@images.example.org/web.qcow2?sig=secret#secret"),),
    version="2",
    mpid="M2",
    properties=MappingProxyType({"os_distro": "debian"}),
    list_mark="list 7",
)
OLD = StoredImage(
    "s1",
    "web",
    "active",
    visibility="community",
    protected=True,
    min_disk_gib=3,
    min_ram_mib=512,
    tags=frozenset({"production"}),
    properties=MappingProxyType(
        {
            "os_distro": "ubuntu",
            "hw_disk_bus": "scsi",
            "mpid": "M1",
            "version": "1",
            "glancing_identity": "id-web",
            "glancing_published": "sha256:00",
            "glancing_anything": "x",
            "os_glance_importing_to_stores": "x",
            "img_signature_hash_method": "x",
            "owner_specified.openstack.sha256": "x",
            "stores": "x",
            "base_image_ref": "x",
            "image_type": "snapshot",
        }
    ),
)
MEASURED = Measured(
    published=(Digest("sha256", "aa"), Digest("md5", "bb")),
    image=(Digest("sha512", "cc"),),
    published_size_bytes=1,
    image_size_bytes=2,
    compression=Compression.GZIP,
    disk_format="qcow2",
)


@pytest.mark.parametrize(
    ("text", "digests"),
    [
        (None, ()),
        ("", ()),
        ("sha256:AA", (Digest("sha256", "aa"),)),
        ("sha256:aa, md5:bb", (Digest("sha256", "aa"), Digest("md5", "bb"))),
        ("crc32:aa,sha256:,aa,:,sha1:bb", (Digest("sha1", "bb"),)),
    ],
)
def test_a_digest_property_is_read_as_far_as_it_is_one(
    text: str | None, digests: tuple[Digest, ...]
) -> None:
    assert marks.parse_digests(text) == digests


def test_digests_are_read_as_they_were_written_whatever_their_order() -> None:
    written = marks.format_digests(MEASURED.published)
    assert written == "md5:bb,sha256:aa" == marks.format_digests(MEASURED.published[::-1])
    assert set(marks.parse_digests(written)) == set(MEASURED.published)


def test_the_wanted_properties_are_the_list_s_and_our_marks() -> None:
    assert marks.wanted_properties(SPEC) == {
        "os_distro": "debian",
        "glancing_identity": "id-web",
        "glancing_name": "web",
        "glancing_source": "https://images.example.org/web.qcow2",
        "glancing_list": "list 7",
        "mpid": "M2",
        "version": "2",
    }


def test_what_is_not_known_is_not_marked() -> None:
    bare = replace(SPEC, version=None, mpid=None, list_mark=None)
    assert not {"version", "mpid", "glancing_list"} & marks.wanted_properties(bare).keys()


@pytest.mark.parametrize("key", ["glancing_state", "glancing_published", "glancing_identity"])
def test_a_list_cannot_write_our_marks(key: str) -> None:
    hostile = replace(SPEC, properties=MappingProxyType({key: "forged"}))
    assert "forged" not in marks.wanted_properties(hostile).values()
    assert "forged" not in incoming(hostile).values()


def incoming(spec: Spec, old: StoredImage | None = None) -> Mapping[str, str]:
    return marks.incoming_image(spec, "qcow2", old, "a-run", NOW).properties


def test_the_record_to_fill_says_who_fills_it_and_until_when() -> None:
    record = marks.incoming_image(SPEC, "qcow2", None, "a-run", NOW)
    assert (record.name, record.disk_format) == ("web.incoming", "qcow2")
    assert record.tags == {TAG}
    assert record.properties == {
        **marks.wanted_properties(SPEC),
        "glancing_state": "incoming",
        "glancing_run": "a-run",
        "glancing_deadline": "2026-01-02T03:04:05+00:00",
    }


def test_a_replacement_takes_over_what_the_list_does_not_say() -> None:
    record = marks.incoming_image(SPEC, "qcow2", OLD, "a-run", NOW)
    assert (record.min_disk_gib, record.min_ram_mib) == (3, 512)
    assert record.tags == {"production", TAG}
    theirs = {k: v for k, v in record.properties.items() if not k.startswith("glancing_")}
    assert theirs == {
        "os_distro": "debian",
        "hw_disk_bus": "scsi",
        "mpid": "M2",
        "version": "2",
    }
    change = marks.publish_change(SPEC, OLD, {})
    assert (change.visibility, change.protected) == ("community", True)


def test_a_replacement_does_not_take_over_whose_version_it_is_not() -> None:
    properties = incoming(replace(SPEC, version=None, mpid=None), OLD)
    assert not {"version", "mpid"} & properties.keys()


def test_publishing_makes_it_visible_under_its_name_with_what_was_measured() -> None:
    validators = Validators(etag='"1"', last_modified="yesterday", size_bytes=10)
    found = marks.measured_properties(MEASURED, validators, "published", "a-run")
    change = marks.publish_change(SPEC, None, found)
    assert (change.name, change.hidden, change.visibility) == ("web", False, "shared")
    assert change.protected is None and change.remove == {"glancing_deadline"}
    assert change.properties == {
        "glancing_published": "md5:bb,sha256:aa",
        "glancing_image": "sha512:cc",
        "glancing_validators": 'etag="1"; last-modified=yesterday; length=10',
        "glancing_integrity": "published",
        "glancing_run": "a-run",
        "glancing_state": "current",
    }


def test_what_was_not_measured_is_not_marked() -> None:
    bare = replace(MEASURED, published=(), image=())
    found = marks.measured_properties(bare, Validators(size_bytes=3), "none", "a-run")
    assert found == {"glancing_integrity": "none", "glancing_run": "a-run"}


def test_a_retired_image_is_hidden_and_remembers_its_name() -> None:
    renamed = replace(OLD, properties=MappingProxyType({"glancing_name": "web"}), name="by hand")
    for stored in (OLD, renamed):
        change = marks.retire_change(stored, "web_old")
        assert (change.name, change.hidden, change.visibility) == ("web_old", True, None)
        assert change.properties == {"glancing_state": "backup", "glancing_name": "web"}


def test_an_image_that_has_everything_needs_no_change() -> None:
    properties = {**marks.wanted_properties(SPEC), "glancing_state": "current", "other": "x"}
    stored = replace(OLD, tags=frozenset({TAG}), properties=MappingProxyType(properties))
    assert marks.update_change(SPEC, stored) is None


def test_an_update_changes_what_differs_and_nothing_else() -> None:
    change = marks.update_change(replace(SPEC, name="db"), OLD)
    assert change is not None
    assert change.name == "db" and change.tags == frozenset({"production", TAG})
    assert (change.visibility, change.hidden, change.protected) == (None, None, None)
    assert change.remove == frozenset()
    assert change.properties == {
        "os_distro": "debian",
        "glancing_name": "db",
        "glancing_source": "https://images.example.org/web.qcow2",
        "glancing_list": "list 7",
        "glancing_state": "current",
        "mpid": "M2",
        "version": "2",
    }


ASKED = Attributes(
    visibility="private",
    protected=False,
    hidden=True,
    min_disk_gib=2,
    min_ram_mib=64,
    tags=frozenset({"os:debian"}),
)
GIB = 1024**3


def test_what_a_list_says_of_the_record_comes_before_what_is_taken_over() -> None:
    asked = replace(SPEC, attributes=ASKED)
    record = marks.incoming_image(asked, "qcow2", OLD, "a-run", NOW)
    assert (record.min_disk_gib, record.min_ram_mib) == (2, 64)
    assert record.tags == {"production", "os:debian", TAG}
    change = marks.publish_change(asked, OLD, {}, 1)
    assert (change.visibility, change.protected, change.hidden) == ("private", False, True)
    assert marks.publish_change(SPEC, OLD, {}, 9 * GIB).min_disk_gib is None


@pytest.mark.parametrize(
    ("disk_bytes", "min_disk_gib"), [(0, 2), (2 * GIB, 2), (2 * GIB + 1, 3), (9 * GIB, 9)]
)
def test_no_less_disk_is_asked_for_than_is_inside(disk_bytes: int, min_disk_gib: int) -> None:
    asked = replace(SPEC, attributes=ASKED)
    assert marks.publish_change(asked, None, {}, disk_bytes).min_disk_gib == min_disk_gib
    stored = replace(OLD, virtual_size_bytes=disk_bytes, min_disk_gib=100)
    change = marks.update_change(asked, stored)
    assert change is not None and change.min_disk_gib == min_disk_gib


@pytest.mark.parametrize(("stored_gib", "changed"), [(1, 2), (2, None), (7, None)])
def test_disk_is_not_lowered_where_glance_does_not_know_what_is_inside(
    stored_gib: int, changed: int | None
) -> None:
    change = marks.update_change(
        replace(SPEC, attributes=ASKED), replace(OLD, min_disk_gib=stored_gib)
    )
    assert change is not None and change.min_disk_gib == changed


def test_an_update_sets_what_a_list_says_of_the_record() -> None:
    change = marks.update_change(replace(SPEC, attributes=ASKED), OLD)
    assert change is not None
    assert (change.visibility, change.protected, change.hidden) == ("private", False, True)
    assert (change.min_ram_mib, change.min_disk_gib) == (64, None)
    assert change.tags == frozenset({"production", "os:debian", TAG})


@pytest.mark.parametrize(
    ("last_modified", "said", "found"),
    [
        (
            "Sat, 24 Jan 2026 10:00:00 GMT",
            {},
            {"internal_version": "20260124", "image_build_date": "2026-01-24"},
        ),
        (
            "Sat, 24 Jan 2026 10:00:00 GMT",
            {"image_build_date": "2026-01-01"},
            {"internal_version": "20260124"},
        ),
        (None, {}, {"internal_version": "latest"}),
        ("yesterday", {"internal_version": "7"}, {}),
    ],
)
def test_what_has_no_version_bears_the_day_of_its_file(
    last_modified: str | None, said: Mapping[str, str], found: Mapping[str, str]
) -> None:
    validators = Validators(last_modified=last_modified)
    dated = replace(SPEC, dated=True, properties=said)
    assert marks.dated_properties(dated, validators) == found
    assert marks.dated_properties(replace(dated, dated=False), validators) == {}


@pytest.mark.parametrize("name", ["web", "n" * 255])
def test_temporary_and_backup_names_fit_into_glance(name: str) -> None:
    made = (
        marks.temporary_name(name),
        marks.backup_name(name),
        marks.older_backup_name(name, NOW),
    )
    assert len({name, *made}) == 4
    assert all(len(one) <= 255 for one in made)
    assert made[1].endswith("_old") and made[2].endswith("_old_20260102T030405678901Z")
