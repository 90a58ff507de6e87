"""The decision table, row by row, and what holds for every plan whatever goes in."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glancing import marks
from glancing.model import (
    TAG,
    Attributes,
    Compression,
    Digest,
    Expected,
    ImageChange,
    Measured,
    Origin,
    Spec,
    StoredImage,
    Url,
    Validators,
)
from glancing.plan import (
    Bytes,
    Decision,
    Policy,
    Refuse,
    Replace,
    Skip,
    Update,
    Upload,
    compare_bytes,
    decide,
    unread,
)
from glancing.versions import version_key

BOTH = ("sha256", "sha512")
DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)
SYNC = Policy()
IMPORT = Policy(by_name=True)
ADOPT = Policy(adopt=True)


def digest(content: str, algorithm: str = "sha256") -> Digest:
    """The digest of an image that is called ``content``."""
    return Digest(algorithm, hashlib.new(algorithm, content.encode()).hexdigest())


def of_image(content: str | None, *algorithms: str) -> Expected:
    if content is None:
        return Expected()
    return Expected(image=tuple(digest(content, name) for name in algorithms or BOTH))


def spec(
    name: str = "web",
    content: str | None = "new",
    *,
    identity: str = "id-web",
    version: str | None = None,
    expected: Expected | None = None,
    mpid: str | None = None,
    properties: Mapping[str, str] = MappingProxyType({}),
    line: int = 1,
) -> Spec:
    return Spec(
        name=name,
        identity=identity,
        descriptor=f"entry-{line}",
        origin=Origin(0, line, "images.list"),
        sources=(Url("https://images.example.org/web.qcow2"),),
        expected=of_image(content) if expected is None else expected,
        version=version,
        mpid=mpid,
        properties=properties,
    )


def stored(
    id_: str = "s1",
    name: str = "web",
    content: str | None = "old",
    *,
    identity: str | None = "id-web",
    version: str | None = None,
    state: str | None = "current",
    status: str = "active",
    day: int = 0,
    **properties: str,
) -> StoredImage:
    """An image that an earlier run left behind; ``content`` None keeps no digest at all."""
    ours = {
        "glancing_identity": identity,
        "glancing_name": name,
        "glancing_source": "https://images.example.org/web.qcow2",
        "glancing_state": state,
        "glancing_image": marks.format_digests(digest(content, name) for name in BOTH)
        if content
        else None,
        "version": version,
        **properties,
    }
    return StoredImage(
        id=id_,
        name=name,
        status=status,
        size_bytes=10,
        checksum=digest(content, "md5").value if content else None,
        hash_algorithm="sha512" if content else None,
        hash_value=digest(content, "sha512").value if content else None,
        tags=frozenset({TAG}),
        properties=MappingProxyType({key: value for key, value in ours.items() if value}),
        created_at=DAY_0 + timedelta(days=day),
    )


def foreign(
    id_: str = "f1",
    name: str = "web",
    content: str | None = "old",
    version: str | None = None,
    **properties: str,
) -> StoredImage:
    """An image of our project that somebody else made."""
    bare = stored(id_, name, content, identity=None, state=None, version=version)
    given = {key: value for key, value in bare.properties.items() if key == "version"}
    return replace(bare, tags=frozenset(), properties=MappingProxyType({**given, **properties}))


def seeded(
    id_: str, name: str, content: str, mpid: str, version: str | None = None, *, day: int = 0
) -> StoredImage:
    """An image that the seed made."""
    return replace(
        foreign(id_, name, content, version, mpid=mpid), created_at=DAY_0 + timedelta(days=day)
    )


def words(decision: Decision) -> str:
    """A decision in short: what is done, to which image, what is retired."""
    match decision:
        case Upload():
            return f"upload{passing(decision)}"
        case Refuse():
            about = f" {decision.stored.id}" if decision.stored else ""
            return f"refuse {decision.kind}{about}"
        case _:
            surplus = "".join(f", retire {image.id}" for image in decision.retire)
            done = f"{type(decision).__name__.lower()} {decision.stored.id}"
            return f"{done}{surplus}{passing(decision)}"


def passing(decision: Upload | Skip | Update | Replace) -> str:
    """Which image gives its name up for this one, and after which entry this one does."""
    followers = () if isinstance(decision, Skip) else decision.making_way
    waits = decision.after if isinstance(decision, Update) else None
    return "".join(f", then {each.stored.id}" for each in followers) + (
        f" after {waits.descriptor}" if waits else ""
    )


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """What the lists want, what Glance has, and what is to be done for the entry at ``at``."""

    about: str
    wanted: tuple[Spec, ...] | Spec
    present: tuple[StoredImage, ...]
    expected: str
    policy: Policy = SYNC
    validators: Mapping[str, Validators] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    at: int = -1


SAME = Validators(etag='"1"', size_bytes=10)
CHANGED = Validators(etag='"2"', size_bytes=10)
KEPT = str(SAME)
WITHOUT = replace(
    stored(),
    properties=MappingProxyType({"glancing_identity": "id-web", "glancing_validators": ""}),
)


def listed(version: str, created: str, wanted: Spec | None = None, *, of: str = "list-1") -> Spec:
    """An entry of a copy of a list that has an identifier, a version and a date."""
    return replace(wanted or spec(), list_mark=f"{of} {version} {created}")


SEEN = "list-1 10 2026-01-02T00:00:00Z"

TABLE: Mapping[str, tuple[Case, ...]] = {
    "An entry of an older copy of a list than one that was seen is refused: downgrade": (
        Case(
            "an older date, and the version of the image is newer",
            listed("10", "2026-01-01T00:00:00Z", spec(version="2")),
            (stored(version="1", glancing_list=SEEN),),
            "refuse downgrade",
            says=("2026-01-01", "2026-01-02"),
        ),
        Case(
            "an older version of the same date",
            listed("9", "2026-01-02T00:00:00Z"),
            (stored(glancing_list=SEEN),),
            "refuse downgrade",
        ),
        Case(
            "an image that is not in Glance any more",
            listed("10", "2026-01-01T00:00:00Z", spec("gone", identity="id-gone")),
            (stored(glancing_list=SEEN),),
            "refuse downgrade",
        ),
        Case(
            "seen on a backup",
            listed("10", "2026-01-01T00:00:00Z"),
            (
                stored(glancing_list="list-1 8 2025-12-01T00:00:00Z"),
                stored("s2", "web_old", state="backup", glancing_list=SEEN),
            ),
            "refuse downgrade",
        ),
        Case(
            "the same copy",
            listed("10", "2026-01-02T01:00:00+01:00"),
            (stored(glancing_list=SEEN),),
            "replace s1",
        ),
        Case(
            "a newer date",
            listed("9", "2026-01-03T00:00:00Z"),
            (stored(glancing_list=SEEN),),
            "replace s1",
        ),
        Case(
            "another list",
            listed("1", "2020-01-01T00:00:00Z", of="list-2"),
            (stored(glancing_list=SEEN),),
            "replace s1",
        ),
        Case(
            "an image that somebody else made says nothing",
            listed("1", "2020-01-01T00:00:00Z"),
            (foreign("f1", "other", glancing_list=SEEN), stored()),
            "replace s1",
        ),
        Case(
            "a mark that is none",
            replace(spec(), list_mark="list-1"),
            (stored(glancing_list=SEEN),),
            "replace s1",
        ),
        Case(
            "the operator names the one image",
            listed("10", "2026-01-01T00:00:00Z"),
            (stored(glancing_list=SEEN),),
            "replace s1",
            policy=IMPORT,
        ),
    ),
    "A backup, an image being filled or a backup of the seed is never matched": (
        Case("a backup, by identity", spec(), (stored(state="backup"),), "upload"),
        Case("a backup, by digest", spec("db", "old"), (stored(state="backup"),), "upload"),
        Case(
            "a backup, by name",
            spec("web_old", identity="id-other"),
            (stored(name="web_old", state="backup"),),
            "upload",
        ),
        Case("an incoming one, by identity", spec(), (stored(state="incoming"),), "upload"),
        Case(
            "an incoming one, by name and digest",
            spec("web.incoming", "old", identity="id-other"),
            (stored(name="web.incoming", state="incoming"),),
            "upload",
        ),
        Case(
            "the seed's backup, by the mpid it shares with the current one",
            spec("web", "old", identity="M", mpid="M"),
            (seeded("s1", "web_old", "old", "M", day=9), seeded("s2", "web", "new", "M")),
            "replace s2",
        ),
        Case(
            "the seed's backup, by name",
            spec("web_old", "new", identity="id-other"),
            (seeded("s1", "web_old", "old", "M"), seeded("s2", "web", "old", "M")),
            "upload",
        ),
        Case(
            "the seed's backup, when the current one was taken over under another name",
            spec("db", "old", identity="M", mpid="M"),
            (
                seeded("s1", "web_old", "old", "M", day=9),
                stored("s2", "db", identity="M", mpid="M"),
            ),
            "skip s2",
        ),
        Case(
            "but an image that only ends in _old is an image",
            spec("web_old", "old", identity="M", mpid="M", version="1"),
            (seeded("s1", "web_old", "old", "M", "1"), seeded("s2", "web", "old", "N")),
            "update s1",
        ),
        Case(
            "and so is one that we made ourselves",
            spec("web_old", "old", identity="M", mpid="M"),
            (
                stored("s1", "web_old", identity="M", mpid="M", day=1),
                seeded("s2", "web", "old", "M"),
            ),
            "skip s1, retire s2",
        ),
        Case("a record without data is none either", spec(), (stored(status="queued"),), "upload"),
    ),
    "A name that an earlier entry of the run wants is refused, and both entries are named": (
        Case(
            "two images of one name",
            (spec(), spec(identity="id-2", line=2)),
            (),
            "refuse name-taken",
            says=("entry-1", "entry-2", "'web'", "images.list:1", "images.list:2"),
        ),
        Case(
            "also when the second is the one that Glance has",
            (spec(), spec(identity="id-2", line=2)),
            (stored(identity="id-2"),),
            "refuse name-taken",
        ),
        Case(
            "two entries that differ only in the query",
            (spec(), spec(line=2)),
            (),
            "refuse name-taken",
            says=("entry-1", "entry-2"),
        ),
        Case(
            "one image under two names",
            (spec(), spec("db", line=2)),
            (),
            "refuse ambiguous",
            says=("entry-1", "entry-2", "same image"),
        ),
        Case(
            "the name of one entry and the identity of another",
            (spec(), spec("db", identity="id-2", line=2), spec("db", line=3)),
            (),
            "refuse name-taken",
            says=("entry-3", "entry-2"),
        ),
    ),
    "Where several marked images claim the identity, the newest active good one is current and"
    " the others become backups": (
        Case(
            "the newest",
            spec(content="old"),
            (stored("s1", day=1), stored("s3", day=3), stored("s2", day=2)),
            "skip s3, retire s2, retire s1",
            says=("s1", "s2", "backup"),
        ),
        Case(
            "an active one rather than a newer deactivated one",
            spec(content="old"),
            (stored("s1"), stored("s2", status="deactivated", day=1)),
            "skip s1, retire s2",
        ),
        Case(
            "a good one rather than a newer one whose digests disagree",
            spec(content="old"),
            (stored("s1"), replace(stored("s2", day=1), hash_value="00", checksum="00")),
            "skip s1, retire s2",
        ),
        Case(
            "a good one rather than a newer one that is empty",
            spec(content="old"),
            (stored("s1"), replace(stored("s2", day=1), size_bytes=0)),
            "skip s1, retire s2",
        ),
        Case(
            "the current one is replaced",
            spec(content="new"),
            (stored("s1"), stored("s2", day=1)),
            "replace s2, retire s1",
        ),
        Case(
            "nothing is retired when the entry is refused",
            spec(content="new", version="1"),
            (stored("s1"), stored("s2", version="2", day=1)),
            "refuse downgrade s2",
        ),
        Case(
            "unmarked images claim nothing",
            spec(content="old"),
            (stored("s1"), foreign(glancing_identity="id-web")),
            "skip s1",
        ),
    ),
    "An image of the list that is to get a name which another stored image bears is refused: name"
    " taken in Glance": (
        Case(
            "an unmarked one",
            spec("db", "old"),
            (stored(), foreign(name="db")),
            "refuse name-taken f1",
            says=("f1", "'db'"),
        ),
        Case(
            "another entry's",
            spec("db", "old"),
            (stored(), stored("s2", "db", identity="id-2")),
            "refuse name-taken s2",
        ),
        Case(
            "before it is seen that the version is older",
            spec("db", "new", version="1"),
            (stored(version="2"), foreign(name="db")),
            "refuse name-taken f1",
        ),
        Case(
            "and before it is seen that it is deactivated",
            spec("db", "new"),
            (stored(status="deactivated"), foreign(name="db")),
            "refuse name-taken f1",
        ),
        Case(
            "but not when a surplus image bears it, which becomes a backup",
            spec("db", "old"),
            (stored("s2", day=1), stored("s1", "db")),
            "update s2, retire s1",
        ),
        Case(
            "and a backup that bears it is no obstacle",
            spec("web_old", "old"),
            (stored(), stored("s2", "web_old", state="backup")),
            "update s1",
        ),
        Case(
            "and one that has the name already keeps it",
            spec(content="old"),
            (stored(), foreign()),
            "skip s1",
        ),
    ),
    "A deactivated image is skipped when it has the bytes": (
        Case(
            "and no other becomes a backup beside one without our marks",
            spec("web", "old"),
            tuple(
                replace(seeded(*row, "old", "id-web"), status="deactivated")
                for row in (("s1", "web_old"), ("s2", "db"))
            ),
            "skip s1",
        ),
        Case(
            "and what is to be deactivated gets its other changes",
            replace(spec("web", "old", version="2"), attributes=Attributes(deactivated=True)),
            (stored(status="deactivated", version="1"),),
            "update s1",
        ),
        Case(
            "the same digest",
            spec(content="old"),
            (stored(status="deactivated"),),
            "skip s1",
            says=("deactivated",),
        ),
        Case(
            "also when the name is another",
            spec("db", "old"),
            (stored(status="deactivated"),),
            "skip s1",
        ),
        Case(
            "the same version, where no digest can be compared",
            spec(content=None, version="1"),
            (stored(status="deactivated", version="1"),),
            "skip s1",
        ),
        Case(
            "the same validators",
            spec(content=None),
            (stored(status="deactivated", glancing_validators=KEPT),),
            "skip s1",
            validators={"id-web": SAME},
        ),
    ),
    "A deactivated image is refused when it has other bytes": (
        Case("another digest", spec(), (stored(status="deactivated"),), "refuse deactivated s1"),
        Case(
            "a newer version",
            spec(version="2"),
            (stored(status="deactivated", version="1"),),
            "refuse deactivated s1",
        ),
        Case(
            "before it is seen that the version is older",
            spec(version="1"),
            (stored(status="deactivated", version="2"),),
            "refuse deactivated s1",
        ),
        Case(
            "nothing to compare",
            spec(content=None),
            (stored(status="deactivated"),),
            "refuse deactivated s1",
        ),
    ),
    "The same bytes with the same properties are skipped": (
        Case("no more than that", spec(content="old"), (stored(),), "skip s1"),
        Case(
            "with version and properties",
            spec(content="old", version="1", properties={"os_distro": "debian"}),
            (stored(version="1", os_distro="debian"),),
            "skip s1",
        ),
        Case(
            "what the list does not say stays",
            spec(content="old"),
            (stored(version="1", os_distro="debian"),),
            "skip s1",
        ),
        Case(
            "known from the digests that Glance computed",
            spec(expected=of_image("old", "sha512")),
            (stored(),),
            "skip s1",
        ),
    ),
    "The same bytes under another name, version or other properties are updated": (
        Case("another name", spec("db", "old"), (stored(),), "update s1", says=("name",)),
        Case(
            "a newer version",
            spec(content="old", version="2"),
            (stored(version="1"),),
            "update s1",
            says=("version",),
        ),
        Case(
            "an older version",
            spec(content="old", version="1"),
            (stored(version="2"),),
            "update s1",
        ),
        Case(
            "a property",
            spec(content="old", properties={"os_distro": "debian"}),
            (stored(os_distro="ubuntu"),),
            "update s1",
            says=("os_distro",),
        ),
        Case(
            "an image of the seed gets our marks",
            spec(content="old", identity="M", mpid="M"),
            (seeded("s1", "web", "old", "M"),),
            "update s1",
            says=("tags", "glancing_identity"),
        ),
    ),
    "Other bytes of a newer version, or where no version is stored, replace the image": (
        Case("newer", spec(version="10"), (stored(version="9"),), "replace s1", says=("10", "9")),
        Case("no version stored", spec(version="1"), (stored(),), "replace s1"),
        Case(
            "newer, and no digest to compare",
            spec(content=None, version="20160512"),
            (stored(version="20160411"),),
            "replace s1",
        ),
        Case(
            "no version stored, and no digest to compare",
            spec(content=None, version="1"),
            (stored(),),
            "replace s1",
            says=("bytes unknown",),
        ),
        Case("under another name", spec("db", version="2"), (stored(version="1"),), "replace s1"),
    ),
    "Other bytes of an older version are refused: downgrade": (
        Case(
            "other bytes",
            spec(version="9"),
            (stored(version="10"),),
            "refuse downgrade s1",
            says=("9", "10", "s1"),
        ),
        Case(
            "no digest to compare",
            spec(content=None, version="1.9"),
            (stored(version="1.10"),),
            "refuse downgrade s1",
        ),
    ),
    "Other bytes of the same version are refused: corrupted": (
        Case("as text", spec(version="1"), (stored(version="1"),), "refuse corrupted s1"),
        Case("as numbers", spec(version="1.0"), (stored(version="1.00"),), "refuse corrupted s1"),
    ),
    "The same version without a digest to compare is the same image": (
        Case("no digest", spec(content=None, version="1"), (stored(version="1"),), "skip s1"),
        Case(
            "no shared algorithm",
            spec(expected=of_image("new", "sha1"), version="1"),
            (stored(version="1"),),
            "skip s1",
        ),
        Case(
            "a digest of the published file against those of the image",
            spec(expected=Expected(published=(digest("new"),)), version="1"),
            (stored(version="1"),),
            "skip s1",
        ),
    ),
    "Where the list gives no version, another digest replaces the image": (
        Case("a version is stored", spec(), (stored(version="7"),), "replace s1"),
        Case("none is stored", spec(), (stored(),), "replace s1"),
    ),
    "A bare URL is skipped while its validators are those kept": (
        Case(
            "the same",
            spec(content=None),
            (stored(glancing_validators=KEPT),),
            "skip s1",
            validators={"id-web": SAME},
        ),
        Case(
            "the same, and another name",
            spec("db", None),
            (stored(glancing_validators=KEPT),),
            "update s1",
            validators={"id-web": SAME},
        ),
        Case(
            "a version is stored",
            spec(content=None),
            (stored(glancing_validators=KEPT, version="7"),),
            "skip s1",
            validators={"id-web": SAME},
        ),
    ),
    "A bare URL whose validators changed, or which has none, is a replacement, bytes unknown": (
        Case(
            "changed",
            spec(content=None),
            (stored(glancing_validators=KEPT),),
            "replace s1",
            validators={"id-web": CHANGED},
            says=("bytes unknown",),
        ),
        Case(
            "not asked for yet",
            spec(content=None),
            (stored(glancing_validators=KEPT),),
            "replace s1",
        ),
        Case(
            "none kept", spec(content=None), (stored(),), "replace s1", validators={"id-web": SAME}
        ),
        Case(
            "a length alone is none",
            spec(content=None),
            (stored(glancing_validators="length=10"),),
            "replace s1",
            validators={"id-web": Validators(size_bytes=10)},
        ),
        Case("none kept and none given", spec(content=None), (WITHOUT,), "replace s1"),
        Case(
            "those of another entry",
            spec(content=None),
            (stored(glancing_validators=KEPT),),
            "replace s1",
            validators={"id-other": SAME},
        ),
    ),
    "The same bytes in an unmarked image, or in one that no entry claims, are refused: ambiguous": (
        Case(
            "unmarked, of another name",
            spec(content="old"),
            (foreign(name="db"),),
            "refuse ambiguous f1",
            says=("f1", "db"),
        ),
        Case("unmarked, of the name", spec(content="old"), (foreign(),), "refuse ambiguous f1"),
        Case(
            "before it is seen that several bear the name",
            spec(content="old"),
            (foreign(content="x"), foreign("f2")),
            "refuse ambiguous f2",
        ),
        Case(
            "marked, of an identity that is in no list",
            spec(content="old"),
            (stored(identity="id-gone", name="db"),),
            "refuse ambiguous s1",
        ),
        Case(
            "before it is seen that the version is older",
            spec(content="old", version="1"),
            (foreign(version="2"),),
            "refuse ambiguous f1",
        ),
        Case(
            "but the bytes of an image that another entry claims are no obstacle",
            (spec("db", "old", identity="id-2"), spec(content="old", line=2)),
            (stored("s2", "db", identity="id-2"),),
            "upload",
        ),
        Case(
            "nor is one that a later entry claims",
            (spec(content="old"), spec("db", "old", identity="id-2", line=2)),
            (stored("s2", "db", identity="id-2"),),
            "upload",
            at=0,
        ),
    ),
    "--adopt takes the one image over that has the bytes": (
        Case("unmarked", spec(content="old"), (foreign(),), "update f1", ADOPT),
        Case("with its name", spec(content="old"), (foreign(name="db"),), "update f1", ADOPT),
        Case(
            "marked, of an identity that is in no list",
            spec(content="old"),
            (stored(identity="id-gone"),),
            "update s1",
            ADOPT,
        ),
        Case(
            "not one of several",
            spec(content="old"),
            (foreign(), foreign("f2", "db")),
            "refuse ambiguous f1",
            ADOPT,
            says=("f1", "f2"),
        ),
        Case(
            "not while another image bears the name",
            spec(content="old"),
            (foreign(name="db"), foreign("f2", content="x")),
            "refuse name-taken f2",
            ADOPT,
        ),
        Case(
            "and one entry only",
            (spec("a", "old", identity="id-a"), spec("b", "old", identity="id-b", line=2)),
            (foreign(),),
            "refuse ambiguous f1",
            ADOPT,
            says=("entry-1",),
        ),
        Case(
            "and not an image that another entry replaces",
            (spec(), spec("db", "old", identity="id-db", line=2)),
            (foreign(),),
            "refuse ambiguous f1",
            ADOPT,
        ),
    ),
    "Several stored images with the name, none with the identity, are refused: ambiguous": (
        Case(
            "unmarked",
            spec(),
            (foreign(), foreign("f2")),
            "refuse ambiguous f1",
            says=("f1", "f2"),
        ),
        Case(
            "before it is seen that a version is older",
            spec(version="1"),
            (foreign(version="2"), foreign("f2")),
            "refuse ambiguous f1",
        ),
        Case(
            "backups do not count", spec(), (foreign(), stored("s2", state="backup")), "replace f1"
        ),
    ),
    "A name borne by an image that another entry claims is refused: name taken in Glance": (
        Case(
            "an entry that was refused itself",
            (spec("db", "old", identity="id-2"), spec(line=2)),
            (stored("s2", "web", identity="id-2"), stored("s3", "db", identity="id-3")),
            "refuse name-taken s2",
        ),
        Case(
            "an entry that keeps the name",
            (spec("web", "old", identity="id-2"), spec("web", line=2)),
            (stored("s2", "web", identity="id-2"),),
            "refuse name-taken",
        ),
        Case(
            "an entry with other bytes, whose image becomes a backup",
            (spec("db", "other", identity="id-2"), spec(line=2)),
            (stored("s2", "web", identity="id-2"),),
            "refuse name-taken s2",
        ),
    ),
    "A name that another entry gives up in the same run passes on: first the new image": (
        *(
            Case(about, wanted, (stored("s2", "web", identity="id-2"),), expected, at=at)
            for about, wanted, at, expected in (
                (
                    "the heir, last",
                    (spec("db", "old", identity="id-2"), spec(line=2)),
                    1,
                    "upload, then s2",
                ),
                (
                    "and the former bearer",
                    (spec("db", "old", identity="id-2"), spec(line=2)),
                    0,
                    "update s2 after entry-2",
                ),
                (
                    "the heir, first",
                    (spec(), spec("db", "old", identity="id-2", line=2)),
                    0,
                    "upload, then s2",
                ),
            )
        ),
        Case(
            "an heir that Glance has under another name",
            (spec("db", "old", identity="id-2"), spec(content="new", line=2)),
            (stored("s2", "web", identity="id-2"), stored("s1", "new-web", "new")),
            "update s1, then s2",
        ),
        Case(
            "an heir that has it already, after a crash",
            (spec("db", "old", identity="id-2"), spec(content="new", line=2)),
            (stored("s2", "web", identity="id-2"), stored("s1", "web", "new")),
            "update s2",
            at=0,
        ),
        Case(
            "with what else claims the bearer's identity",
            (spec("db", "old", identity="id-2"), spec(line=2)),
            (stored("s2", identity="id-2", day=1), stored("s3", identity="id-2")),
            "upload, then s2",
        ),
        Case(
            "an heir that is refused leaves the bearer its name",
            (spec("db", "old", identity="id-2", version="2"), spec(content="f", line=2)),
            (stored("s2", identity="id-2", version="1"), foreign("f1", "else", "f")),
            "refuse name-taken s2",
            at=0,
            says=("keeps the name 'web' until id-web can have it",),
        ),
        Case(
            "an heir that could not be read leaves the bearer its name",
            (replace(spec("db", "old", identity="id-2"), successor="id-web"),),
            (stored("s2", identity="id-2"),),
            "refuse name-taken s2",
            says=("keeps the name 'web' until id-web can have it",),
        ),
    ),
    "The same name with other bytes of an older version is refused: downgrade": (
        Case("unmarked", spec(version="9"), (foreign(version="10"),), "refuse downgrade f1"),
        Case(
            "marked, of an identity that is in no list",
            spec(version="9"),
            (stored(identity="id-gone", version="10"),),
            "refuse downgrade s1",
        ),
    ),
    "The same name with other bytes of the same version is refused: corrupted": (
        Case("as text", spec(version="1"), (foreign(version="1"),), "refuse corrupted f1"),
    ),
    "The same name and version without a digest to compare is refused: ambiguous": (
        Case(
            "no digest",
            spec(content=None, version="1"),
            (foreign(version="1"),),
            "refuse ambiguous f1",
        ),
    ),
    "The same name with other bytes, newer or where one side has no version, is replaced": (
        Case("newer", spec(version="10"), (foreign(version="9"),), "replace f1"),
        Case("no version stored", spec(version="1"), (foreign(),), "replace f1"),
        Case("no version wanted", spec(), (foreign(version="9"),), "replace f1"),
        Case("no version at all", spec(), (foreign(),), "replace f1"),
        Case(
            "nothing to compare",
            spec(content=None),
            (foreign(),),
            "replace f1",
            says=("bytes unknown",),
        ),
        Case(
            "marked, of an identity that is in no list: a marketplace ID changes with the bytes",
            spec(identity="M2", mpid="M2", version="2"),
            (seeded("s1", "web", "old", "M1", "1"),),
            "replace s1",
        ),
    ),
    "Where Glance has nothing of the kind, the image is uploaded": (
        Case("nothing", spec(), (), "upload"),
        Case(
            "something else",
            spec(),
            (foreign(name="db"), stored("s2", "x", identity="y")),
            "upload",
        ),
        Case("for import too", spec(), (foreign(name="db"),), "upload", IMPORT),
    ),
    "For import the name is the identity: the same bytes are skipped": (
        Case("unmarked", spec(content="old"), (foreign(),), "skip f1", IMPORT),
        Case(
            "and what a run that died had not retired yet is retired",
            spec(content="new"),
            (stored("s1"), stored("s2", content="new", day=1)),
            "skip s2, retire s1",
            IMPORT,
        ),
        Case(
            "but nothing is for the sake of one that others made",
            spec(content="new"),
            (stored("s1"), foreign(content="new")),
            "skip f1",
            IMPORT,
        ),
        Case(
            "or that cannot be booted",
            spec(content="new"),
            (stored("s1"), stored("s2", content="new", status="deactivated")),
            "skip s2",
            IMPORT,
        ),
        Case(
            "of another identity, which stays",
            spec(content="old"),
            (stored(identity="id-of-the-list"),),
            "skip s1",
            IMPORT,
        ),
        Case(
            "the one of several that has them",
            spec(content="old"),
            (foreign(content="x"), foreign("f2"), foreign("f3", content="y")),
            "skip f2",
            IMPORT,
        ),
        Case(
            "also where they are in other images",
            spec(content="old"),
            (foreign(), foreign("f2", "db")),
            "skip f1",
            IMPORT,
        ),
        Case(
            "an own image gets what has changed",
            spec(content="old", version="2"),
            (stored(version="1"),),
            "update s1",
            IMPORT,
        ),
        Case(
            "an own one whose source has not changed",
            spec(content=None),
            (stored(glancing_validators=KEPT),),
            "skip s1",
            IMPORT,
            {"id-web": SAME},
        ),
    ),
    "For import the name is the identity: other bytes replace the image": (
        Case("unmarked", spec(), (foreign(),), "replace f1", IMPORT),
        Case("an older version", spec(version="1"), (foreign(version="2"),), "replace f1", IMPORT),
        Case("the same version", spec(version="1"), (stored(version="1"),), "replace s1", IMPORT),
        Case(
            "the newest of several",
            spec(),
            (stored(identity="a"), stored("s2", identity="b", day=1)),
            "replace s2, retire s1",
            IMPORT,
        ),
        Case(
            "validators of another source tell nothing",
            spec(content=None),
            (stored(identity="id-of-the-list", glancing_validators=KEPT),),
            "replace s1",
            IMPORT,
            {"id-web": SAME},
            says=("bytes unknown",),
        ),
        Case(
            "the same bytes under another name are no obstacle",
            spec(content="old"),
            (foreign(name="db"),),
            "upload",
            IMPORT,
        ),
    ),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{sentence}: {case.about}")
        for sentence, cases in TABLE.items()
        for case in cases
    ],
)
def test_the_first_row_that_matches_decides(case: Case) -> None:
    wanted = case.wanted if isinstance(case.wanted, tuple) else (case.wanted,)
    decisions = decide(wanted, case.present, policy=case.policy, validators=case.validators)
    assert words(decisions[case.at]) == case.expected
    for word in case.says:
        assert word in decisions[case.at].reason


# --- comparing ------------------------------------------------------------------------------------

SHA256, SHA512, MD5 = (digest("old", name) for name in ("sha256", "sha512", "md5"))
OTHER_256, OTHER_512, OTHER_MD5 = (digest("new", name) for name in ("sha256", "sha512", "md5"))
PACKED, OTHER_PACKED = digest("old.gz"), digest("new.gz")
PACKED_512 = digest("old.gz", "sha512")


def kept(
    *, published: tuple[Digest, ...] = (), image: tuple[Digest, ...] = (), computed: bool = True
) -> StoredImage:
    """A stored image with digests in its properties, and those that Glance computed."""
    bare = foreign(content="old" if computed else None)
    properties = {
        "glancing_published": marks.format_digests(published),
        "glancing_image": marks.format_digests(image),
    }
    return replace(bare, properties=MappingProxyType(properties))


@pytest.mark.parametrize(
    ("expected", "present", "known"),
    [
        pytest.param(*row, id=about)
        for about, *row in (
            ("nothing said", Expected(), kept(), Bytes.UNKNOWN),
            ("nothing known", Expected(image=(SHA256,)), kept(computed=False), Bytes.UNKNOWN),
            ("no shared algorithm", Expected(image=(SHA256,)), kept(), Bytes.UNKNOWN),
            ("image: computed", Expected(image=(SHA512,)), kept(), Bytes.SAME),
            ("image: computed, other", Expected(image=(OTHER_512,)), kept(), Bytes.DIFFERENT),
            ("image: kept", Expected(image=(SHA256,)), kept(image=(SHA256,)), Bytes.SAME),
            (
                "image: kept, other",
                Expected(image=(OTHER_256,)),
                kept(image=(SHA256,)),
                Bytes.DIFFERENT,
            ),
            (
                "image: what Glance computed overrules what was kept",
                Expected(image=(SHA512,)),
                kept(image=(OTHER_512,)),
                Bytes.SAME,
            ),
            (
                "image: one of two differs",
                Expected(image=(MD5, OTHER_512)),
                kept(),
                Bytes.DIFFERENT,
            ),
            (
                "image: one of two cannot be compared",
                Expected(image=(digest("new", "sha1"), SHA512)),
                kept(),
                Bytes.SAME,
            ),
            (
                "published: kept",
                Expected(published=(PACKED,)),
                kept(published=(PACKED,)),
                Bytes.SAME,
            ),
            (
                "published: kept, other",
                Expected(published=(OTHER_PACKED,)),
                kept(published=(PACKED,)),
                Bytes.DIFFERENT,
            ),
            ("published equals the image's", Expected(published=(SHA512,)), kept(), Bytes.SAME),
            (
                "published differs from the image's: proves nothing",
                Expected(published=(PACKED_512,)),
                kept(),
                Bytes.UNKNOWN,
            ),
            (
                "published partly equals the image's: proves nothing",
                Expected(published=(MD5, OTHER_512)),
                kept(),
                Bytes.UNKNOWN,
            ),
            (
                "published equals the image's, but is known to be compressed",
                Expected(published=(SHA512,), compression=Compression.GZIP),
                kept(),
                Bytes.UNKNOWN,
            ),
            (
                "not compressed: published is the image's",
                Expected(published=(OTHER_512,), compression=Compression.NONE),
                kept(),
                Bytes.DIFFERENT,
            ),
            (
                "not compressed any more: the image's counts",
                Expected(published=(SHA256,), compression=Compression.NONE),
                kept(published=(PACKED,), image=(SHA256,)),
                Bytes.SAME,
            ),
            (
                "the image is the same, the published file is another",
                Expected(published=(OTHER_PACKED,), image=(SHA512,)),
                kept(published=(PACKED,)),
                Bytes.DIFFERENT,
            ),
            ("either: the image's", Expected(either=(SHA512,)), kept(), Bytes.SAME),
            (
                "either: the published file's",
                Expected(either=(PACKED,)),
                kept(published=(PACKED,), image=(SHA256,)),
                Bytes.SAME,
            ),
            (
                "either: neither's",
                Expected(either=(OTHER_256,)),
                kept(published=(PACKED,), image=(SHA256,)),
                Bytes.DIFFERENT,
            ),
            (
                "either: not the published file's, the image's is unknown",
                Expected(either=(OTHER_256,)),
                kept(published=(PACKED,)),
                Bytes.UNKNOWN,
            ),
            (
                "either: not the image's, the published file's is unknown",
                Expected(either=(OTHER_512,)),
                kept(),
                Bytes.UNKNOWN,
            ),
            (
                "either: the weak one agrees, the strong one does not",
                Expected(either=(MD5, OTHER_512)),
                kept(),
                Bytes.UNKNOWN,
            ),
            (
                "either: not compressed",
                Expected(either=(OTHER_512,), compression=Compression.NONE),
                kept(),
                Bytes.DIFFERENT,
            ),
            (
                "either: unknown, while the published file differs from the image",
                Expected(published=(OTHER_MD5,), either=(digest("new", "sha1"),)),
                kept(published=(PACKED,)),
                Bytes.UNKNOWN,
            ),
            (
                "the image's agrees, either's does not",
                Expected(image=(SHA512,), either=(OTHER_256,)),
                kept(published=(PACKED,), image=(SHA256,)),
                Bytes.DIFFERENT,
            ),
        )
    ],
)
def test_bytes_are_compared_by_digests_of_one_side(
    expected: Expected, present: StoredImage, known: Bytes
) -> None:
    assert compare_bytes(spec(expected=expected), present) is known


@pytest.mark.parametrize(
    "ordered",
    [
        ("9", "10"),
        ("20160411", "20160512"),
        ("1.9", "1.10"),
        ("1", "1.1", "1.2", "2"),
        ("2.0.9", "2.0.10", "2.1"),
        ("7.2-1a", "7.2-1b", "7.2-2"),
        ("v1", "v2", "v10"),
        ("2024-01-31", "2024-02-01"),
        ("1.a", "1.1"),
        ("9" * 5000, "1" + "0" * 5000),
    ],
)
def test_versions_are_ordered_naturally(ordered: tuple[str, ...]) -> None:
    keys = [version_key(version) for version in ordered]
    assert all(older < newer for older, newer in pairwise(keys))


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "1-0"), ("01", "1"), ("0", "000"), ("1_2", "1.2")]
)
def test_versions_that_differ_in_writing_only_are_equal(one: str, other: str) -> None:
    assert version_key(one) == version_key(other)


# --- several entries, several passes --------------------------------------------------------------


def test_validators_are_asked_for_where_nothing_else_can_tell() -> None:
    bare = [spec(f"n{i}", None, identity=f"id-{i}", line=i) for i in range(4)]
    known = spec("n4", "old", identity="id-4")
    present = [
        stored(f"s{i}", f"n{i}", identity=f"id-{i}", glancing_validators=KEPT, status=status)
        for i, status in enumerate(("active", "active", "deactivated", "deactivated", "active"))
    ]
    first = decide([*bare, known], present)
    assert unread(first) == tuple(bare)
    now = {"id-0": SAME, "id-1": CHANGED, "id-2": SAME, "id-3": CHANGED}
    second = decide([*bare, known], present, validators=now)
    assert [words(decision) for decision in second] == [
        "skip s0",
        "replace s1",
        "skip s2",
        "refuse deactivated s3",
        "skip s4",
    ]
    assert [decision.spec for decision in second] == [*bare, known]


def test_validators_are_not_asked_for_where_digest_or_version_tell() -> None:
    pairs = (
        (spec("a", identity="a"), stored("s1", "a", identity="a")),
        (spec("b", identity="b"), stored("s2", "b", identity="b", status="deactivated")),
        (spec("c", None, identity="c", version="2"), stored("s3", "c", identity="c", version="1")),
        (spec("d", None, identity="d", version="2"), stored("s4", "d", identity="d")),
        (spec("e", None, identity="e"), foreign("f1", "x")),
    )
    decisions = decide([one for one, _ in pairs], [image for _, image in pairs])
    assert [words(decision) for decision in decisions] == [
        "replace s1",
        "refuse deactivated s2",
        "replace s3",
        "replace s4",
        "upload",
    ]
    assert unread(decisions) == ()


def test_a_refused_entry_without_digests_does_not_become_a_question_for_its_source() -> None:
    assert unread(decide([spec(content=None)], [foreign(), foreign("f2")])) == ()


def test_entries_that_differ_in_the_query_only_are_told_to_give_an_id() -> None:
    decisions = decide(
        [spec(), spec(line=2), spec(identity="id-2", line=3), spec("db", line=4)], []
    )
    hints = [decision.hint for decision in decisions if isinstance(decision, Refuse)]
    assert ["id=" in hint for hint in hints] == [True, False, True]


def test_entries_that_swap_their_names_are_both_refused() -> None:
    present = (stored("s1", "a", identity="id-1"), stored("s2", "b", identity="id-2"))
    wanted = (spec("b", "old", identity="id-1"), spec("a", "old", identity="id-2", line=2))
    decisions = decide(wanted, present)
    assert [words(d) for d in decisions] == ["refuse name-taken s2", "refuse name-taken s1"]


def test_names_that_move_up_are_given_out_in_turn() -> None:
    present = (
        stored("s1", "a", identity="id-1"),
        stored("s2", "b", identity="id-2"),
        stored("s3", "c", identity="id-3"),
    )
    wanted = (
        spec("d", "old", identity="id-3"),
        spec("b", "old", identity="id-1", line=2),
        spec("c", "old", identity="id-2", line=3),
        spec("a", "entry-4", identity="id-4", line=4),
    )
    assert [words(d) for d in decide(wanted[:3], present)] == [
        "update s3 after entry-2",
        "update s1, then s2, then s3",
        "update s2 after entry-2",
    ]
    first = decide(wanted, present)
    assert words(first[3]) == "upload, then s1, then s2, then s3"
    assert [words(d) for d in decide(wanted, simulate(first, present))] == [
        *("skip s3", "skip s1", "skip s2"),
        "skip new-3",
    ]


def test_a_chain_of_names_stays_as_it_is_when_its_first_link_is_refused() -> None:
    present = (
        *(stored("s1", "a", identity="id-1"), stored("s2", "b", identity="id-2")),
        foreign("f1", "else", "f"),
    )
    wanted = (
        spec("b", "old", identity="id-1"),
        spec("c", "old", identity="id-2", line=2),
        spec("a", "f", identity="id-3", line=3),
    )
    assert [words(d) for d in decide(wanted, present)] == [
        *("refuse name-taken s1", "refuse name-taken s2"),
        "refuse ambiguous f1",
    ]


def test_an_image_that_is_adopted_is_not_replaced_for_its_old_name_in_the_same_run() -> None:
    wanted = (spec("db", "old", identity="id-db"), spec("web", "new", line=2))
    decisions = decide(wanted, [foreign()], policy=ADOPT)
    assert [words(d) for d in decisions] == ["update f1", "refuse ambiguous f1"]


def test_a_list_of_thousands_is_decided_in_linear_time() -> None:
    wanted = [
        spec(f"name-{i}", f"content-{i}", identity=f"id-{i}", line=i + 1) for i in range(10_000)
    ]
    present = [
        stored(f"s{i}", f"name-{i}", f"content-{i}", identity=f"id-{i}") for i in range(5_000)
    ]
    present += [
        stored(f"b{i}", f"name-{i}_old", f"content-{i}", identity=f"id-{i}", state="backup")
        for i in range(5_000)
    ]
    present += [foreign(f"f{i}", f"foreign-{i}", f"foreign-{i}") for i in range(5_000)]
    decisions = decide(wanted, present)
    assert [type(decision) for decision in decisions] == [Skip] * 5_000 + [Upload] * 5_000


# --- what holds whatever goes in ------------------------------------------------------------------

NAMES = ("a", "b", "a_old", "a_old_old", "A\n")
IDENTITIES = ("i", "j", "k")
CONTENTS = ("x", "y", "z")
VERSIONS = (None, "1", "1.0", "2", "10", "a", "", "2024-01-01", "\u0663", "²")
ALGORITHMS = ("md5", "sha256", "sha512")


@st.composite
def expectations(draw: st.DrawFn, content: str) -> Expected:
    """What a list may say of an image that is published plain or as ``content.gz``."""
    packed = draw(st.booleans())
    compression = Compression.GZIP if packed else Compression.NONE
    file = f"{content}.gz" if packed else content

    def some(of: str) -> tuple[Digest, ...]:
        return tuple(digest(of, name) for name in ALGORITHMS if draw(st.booleans()))

    return Expected(
        published=some(file),
        image=some(content),
        either=some(draw(st.sampled_from((file, content)))),
        compression=draw(st.sampled_from((compression, None))),
    )


@st.composite
def entries(draw: st.DrawFn) -> list[Spec]:
    made = []
    for line in range(1, draw(st.integers(0, 5)) + 1):
        identity = draw(st.sampled_from(IDENTITIES))
        content = draw(st.sampled_from(CONTENTS))
        wanted = spec(
            draw(st.sampled_from(NAMES)),
            identity=identity,
            version=draw(st.sampled_from(VERSIONS)),
            expected=draw(expectations(content)),
            mpid=identity if draw(st.booleans()) else None,
            properties=draw(st.dictionaries(st.sampled_from(("p", "glancing_state")), st.text())),
            line=line,
        )
        made.append(replace(wanted, descriptor=content))
    return made


@st.composite
def inventories(draw: st.DrawFn) -> list[StoredImage]:
    made = []
    for number in range(draw(st.integers(0, 6))):
        name, content = draw(st.sampled_from(NAMES)), draw(st.sampled_from((*CONTENTS, None)))
        identity, version = draw(st.sampled_from(IDENTITIES)), draw(st.sampled_from(VERSIONS))
        image = draw(
            st.sampled_from(
                (
                    stored(f"s{number}", name, content, identity=identity, version=version),
                    foreign(f"s{number}", name, content, version),
                    seeded(f"s{number}", name, content or "x", identity, version),
                )
            )
        )
        state = draw(st.sampled_from((None, None, "current", "backup", "incoming", "odd")))
        properties = {**image.properties, **({"glancing_state": state} if state else {})}
        if draw(st.booleans()) and content:
            properties["glancing_published"] = str(digest(f"{content}.gz"))
            properties["glancing_validators"] = f"etag={content}"
        status = draw(st.sampled_from(("active", "active", "deactivated", "queued", "saving")))
        made.append(replace(image, status=status, properties=MappingProxyType(properties)))
    return made


policies = st.sampled_from((SYNC, ADOPT, IMPORT))


def validators_of(wanted: list[Spec]) -> dict[str, Validators]:
    """What the sources say now: a validator that stands for the content."""
    return {one.identity: Validators(etag=one.descriptor) for one in reversed(wanted)}


def simulate(
    decisions: tuple[Decision, ...], present: tuple[StoredImage, ...] | list[StoredImage]
) -> list[StoredImage]:
    """The inventory after the decisions were carried out."""
    images = {image.id: image for image in present}
    for number, decision in enumerate(decisions):
        if isinstance(decision, Upload | Replace):
            old = decision.stored if isinstance(decision, Replace) else None
            images[f"new-{number}"] = published(f"new-{number}", decision.spec, old)
        if isinstance(decision, Update):
            images[decision.stored.id] = changed(decision.stored, decision.change)
        retired = () if isinstance(decision, Upload | Refuse) else decision.retire
        for image in (*retired, *([decision.stored] if isinstance(decision, Replace) else [])):
            name = marks.backup_name(image.properties.get("glancing_name") or image.name)
            images[image.id] = changed(image, marks.retire_change(image, name))
    return list(images.values())


def published(id_: str, wanted: Spec, old: StoredImage | None) -> StoredImage:
    """The image that an upload leaves behind: its descriptor names its content."""
    content = wanted.descriptor
    packed = wanted.expected.compression is Compression.GZIP or any(
        d in wanted.expected.digests for d in (digest(f"{content}.gz", n) for n in ALGORITHMS)
    )
    file = f"{content}.gz" if packed else content
    measured = Measured(
        published=tuple(digest(file, name) for name in ALGORITHMS),
        image=tuple(digest(content, name) for name in ALGORITHMS),
        published_size_bytes=10,
        image_size_bytes=10,
        compression=Compression.GZIP if packed else Compression.NONE,
        disk_format="raw",
    )
    record = marks.incoming_image(wanted, "raw", old, "run", DAY_0)
    found = marks.measured_properties(measured, Validators(etag=content), "published", "run")
    filled = StoredImage(
        id=id_,
        name=record.name,
        status="active",
        size_bytes=10,
        checksum=digest(content, "md5").value,
        hash_algorithm="sha512",
        hash_value=digest(content, "sha512").value,
        tags=record.tags,
        properties=record.properties,
        created_at=DAY_0 + timedelta(days=100),
    )
    return changed(filled, marks.publish_change(wanted, old, found))


def changed(image: StoredImage, change: ImageChange) -> StoredImage:
    kept_ones = {k: v for k, v in image.properties.items() if k not in change.remove}
    return replace(
        image,
        name=change.name or image.name,
        tags=image.tags if change.tags is None else change.tags,
        hidden=image.hidden if change.hidden is None else change.hidden,
        properties=MappingProxyType({**kept_ones, **change.properties}),
    )


def touched(decision: Decision) -> list[StoredImage]:
    """The stored images that a decision changes."""
    match decision:
        case Upload() | Refuse():
            return []
        case Skip():
            return list(decision.retire)
        case Update() | Replace():
            return [decision.stored, *decision.retire]


@settings(max_examples=200, deadline=None)
@given(entries(), inventories(), policies, st.booleans())
def test_every_plan_is_sound(
    wanted: list[Spec], present: list[StoredImage], policy: Policy, asked: bool
) -> None:
    known = validators_of(wanted) if asked else {}
    decisions = decide(wanted, present, policy=policy, validators=known)
    assert [decision.spec for decision in decisions] == wanted
    acted_on = [image.id for decision in decisions for image in touched(decision)]
    assert len(acted_on) == len(set(acted_on)), "a stored image is touched by one decision"
    kept_names = [d.spec.name for d in decisions if not isinstance(d, Refuse)]
    assert len(kept_names) == len(set(kept_names)), "a name goes to one entry"
    for decision in decisions:
        assert decision.reason
        for image in touched(decision):
            assert image.status in ("active", "deactivated")
            assert image.state not in ("backup", "incoming")
            replaced = isinstance(decision, Replace) and image is decision.stored
            adopted = isinstance(decision, Update) and policy.adopt
            assert image.marked or replaced or adopted
        if isinstance(decision, Refuse):
            assert decision.hint


@settings(max_examples=200, deadline=None)
@given(entries(), inventories(), policies)
def test_what_was_done_once_is_not_done_again(
    wanted: list[Spec], present: list[StoredImage], policy: Policy
) -> None:
    known = validators_of(wanted)
    first = decide(wanted, present, policy=policy, validators=known)
    second = decide(wanted, simulate(first, present), policy=policy, validators=known)
    for before, after in zip(first, second, strict=True):
        if not isinstance(before, Refuse):
            assert isinstance(after, Skip), (before, after)
            assert not after.retire


@settings(max_examples=100, deadline=None)
@given(entries(), inventories(), policies, st.randoms(use_true_random=False))
def test_a_plan_does_not_hang_on_the_order_in_which_glance_lists(
    wanted: list[Spec], present: list[StoredImage], policy: Policy, shuffler: random.Random
) -> None:
    """Images of different age only: between two of the same second any may be current."""
    aged = [replace(image, created_at=DAY_0 + timedelta(days=n)) for n, image in enumerate(present)]
    shuffled = shuffler.sample(aged, len(aged))
    known = validators_of(wanted)
    plans = (decide(wanted, some, policy=policy, validators=known) for some in (aged, shuffled))
    kinds = [[_kind(decision) for decision in plan] for plan in plans]
    assert kinds[0] == kinds[1]


def _kind(decision: Decision) -> tuple[str, object]:
    return type(decision).__name__, getattr(decision, "kind", None)
