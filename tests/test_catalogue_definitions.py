"""What becomes of definitions when the documents that they need are read.

Fault 33: what came unsigned over plain HTTP proves little, whichever document said it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from glancing.catalogue import Catalogue
from glancing.model import LocalPath, Location, Outcome, Spec, Url, Validators
from tests.fakes import FakeClock, FakeSource, FakeSources, ListEvents
from tests.imagelist_documents import xml
from tests.test_job import IMAGE, LIST, NEW, OLD, World

SUMS = Url("https://example.org/SHA256SUMS")
SHA256 = {data: hashlib.sha256(data).hexdigest() for data in (OLD, NEW)}
METADATA = Url("https://example.org/metadata.xml")


def definitions(version: str) -> bytes:
    return f"images:\n- name: web\n  versions:\n  - {{{version}}}\n".encode()


def latest() -> bytes:
    return definitions(f"version: latest, url: '{IMAGE.full}', checksums_url: '{SUMS.full}'")


def read(location: Location, sources: FakeSources) -> Spec:
    catalogue = Catalogue(sources, ListEvents(), FakeClock(), folder=Path("/lists"))
    wanted = catalogue.read_lists([location])
    assert not wanted.failures
    return wanted.specs[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_digest_of_latest_is_kept_in_a_property(scheme: str) -> None:
    location = Url(f"{scheme}://lists.example.org/images.yml")
    sums = f"{SHA256[OLD]}  debian.img\n".encode()
    spec = read(location, FakeSources({location: latest(), SUMS: sums}))
    assert spec.properties["upstream_checksum"] == SHA256[OLD]
    (digest,) = spec.expected.published
    assert digest.value == SHA256[OLD]
    assert spec.expected.over_http == ({digest} if scheme == "http" else set())


def test_a_digest_of_a_definition_stays_weak_beside_metadata() -> None:
    location = Url("http://lists.example.org/images.yml")
    said = f"version: 1, source: '{METADATA.full}', checksum: '{'b' * 96}'"
    spec = read(location, FakeSources({location: definitions(said), METADATA: xml()}))
    assert {digest.value for digest in spec.expected.over_http} == {"b" * 96}
    assert (spec.name, spec.identity) == ("web 1", "web/1") and len(spec.expected.digests) > 1


def test_latest_bears_the_day_of_its_file(tmp_path: Path) -> None:
    """A second run leaves it alone, and one that finds another digest replaces it."""
    world = World(tmp_path)
    days = {OLD: "Sat, 24 Jan 2026 10:00:00 GMT", NEW: "Sun, 25 Jan 2026 10:00:00 GMT"}
    world.sources.put(LIST, latest())
    for data, outcome, day in (
        (OLD, Outcome.UPLOADED, "24"),
        (OLD, Outcome.UNCHANGED, "24"),
        (NEW, Outcome.REPLACED, "25"),
    ):
        world.sources.put(IMAGE, FakeSource(data, Validators(last_modified=days[data])))
        world.sources.put(SUMS, f"{SHA256[data]} *debian.img\n".encode())
        (row,) = world.sync().images
        stored = world.store.get(str(row.image_id))
        assert row.outcome is outcome and stored is not None
        assert stored.properties["internal_version"] == f"202601{day}"
        assert stored.properties["image_build_date"] == f"2026-01-{day}"


@pytest.mark.parametrize(
    ("other", "kept"),
    [
        pytest.param(OLD, 1, id="the same digest"),
        pytest.param(NEW, 2, id="another digest"),
        pytest.param(None, 1, id="none"),
    ],
)
def test_entries_of_two_lists_that_contradict_each_other_both_reach_the_plan(
    other: bytes | None, kept: int
) -> None:
    """Fault 31: which of them is right is not the order of the lists to say."""
    lists = [LocalPath(Path(f"/lists/{name}")) for name in "ab"]
    line = f"{IMAGE.full} sums="
    second = f"{line}{SHA256[other]}" if other else IMAGE.full
    sources = FakeSources({lists[0]: f"{line}{SHA256[OLD]}".encode(), lists[1]: second.encode()})
    catalogue = Catalogue(sources, ListEvents(), FakeClock(), folder=Path("/lists"))
    assert len(catalogue.read_lists(lists).specs) == kept
