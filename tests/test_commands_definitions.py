"""``glancing sync`` with definitions of openstack-image-manager, against a real Glance."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from uuid import uuid4

import pytest

from tests import images
from tests.program import Program
from tests.shelf import Shelf

ONE, TWO, THREE = (images.raw(64 * 1024 + 512 * number) for number in range(3))
DISK = images.qcow2(size_bytes=(2 << 30) + 512)


def define(glancing: Program, *versions: str, **fields: str) -> None:
    """The one definition of the list; each version is a flow map without its braces."""
    said = {"name": "Debian 12", "multi": "true", "format": "raw", **fields}
    lines = ["images:", "  - login: debian", *(f"    {k}: {v}" for k, v in said.items())]
    lines += ["    versions:", *(f"      - {{{version}}}" for version in versions)]
    (glancing.cwd / "images.yml").write_text("\n".join(lines) + "\n")


def version(glancing: Program, number: str, data: bytes, more: str = "") -> str:
    """A version whose bytes lie beside the list."""
    path = glancing.cwd / f"{number}.img"
    path.write_bytes(data)
    said = f"version: '{number}', url: '{path.as_uri()}', build_date: 2026-01-02"
    digest = f"checksum: 'sha256:{sha256(data).hexdigest()}'"
    return ", ".join(filter(None, (said, digest, more)))


def sync(glancing: Program, command: str = "sync") -> Mapping[str, str]:
    return glancing.run(command, "-l", "images.yml").outcomes


def test_an_image_is_as_its_definition_has_it(glancing: Program, shelf: Shelf) -> None:
    """A second run changes nothing; what the definition says anew is set without an upload."""
    meta = "{os_distro: debian, os_version: '12', hw_vif_multiqueue_enabled: true}"
    entry = version(glancing, "20260124", DISK, "visibility: community")
    about = {"format": "qcow2", "min_disk": "1", "min_ram": "512", "visibility": "private"}
    define(glancing, entry, meta=meta, tags="[stable]", **about)
    assert sync(glancing) == {"Debian 12": "uploaded"}
    image = shelf.named("Debian 12")
    assert {key: image[key] for key in ("visibility", "min_disk", "min_ram", "os_hidden")} == {
        "visibility": "community",
        "min_disk": 3,
        "min_ram": 512,
        "os_hidden": False,
    }
    assert sorted(image["tags"]) == ["glancing", "os:debian", "stable"]
    assert {key: image[key] for key in ("os_version", "image_original_user", "image_source")} == {
        "os_version": "12",
        "image_original_user": "debian",
        "image_source": "file:20260124.img",
    }
    assert (image["hw_vif_multiqueue_enabled"], image["image_build_date"]) == ("True", "2026-01-02")
    assert sync(glancing) == {"Debian 12": "unchanged"}
    changed = {**about, "min_disk": "9", "min_ram": "64"}
    entry = entry.replace("community", "shared, hidden: true")
    define(glancing, entry, meta=meta.replace("true", "false"), tags="[new]", **changed)
    assert sync(glancing, "plan") == {"Debian 12": "planned"}
    assert sync(glancing) == {"Debian 12": "updated"}
    now = shelf.get(image["id"])
    assert (now["min_disk"], now["min_ram"], now["visibility"]) == (9, 64, "shared")
    assert now["os_hidden"] and now["hw_vif_multiqueue_enabled"] == "False"
    assert sync(glancing) == {"Debian 12": "unchanged"}


def test_the_newest_version_takes_over_the_plain_name(glancing: Program, shelf: Shelf) -> None:
    """The one before is renamed, not replaced: it keeps its id, and there is no backup of it."""
    first = version(glancing, "9", ONE)
    define(glancing, first)
    assert sync(glancing) == {"Debian 12": "uploaded"}
    before = shelf.named("Debian 12")
    define(glancing, version(glancing, "10", TWO), first)
    assert set(sync(glancing, "plan").values()) == {"planned"}
    assert sync(glancing) == {"Debian 12": "uploaded", "Debian 12 (9)": "updated"}
    assert shelf.named("Debian 12 (9)")["id"] == before["id"]
    assert shelf.data("Debian 12") == TWO and shelf.names() == ["Debian 12", "Debian 12 (9)"]
    assert set(sync(glancing).values()) == {"unchanged"}


@pytest.mark.parametrize(
    ("more", "outcome"),
    [("", "busy"), ("id: x", "refused"), ("checksums_url: 'file:///absent'", "busy")],
)
def test_a_version_keeps_its_name_until_the_newest_is_there(
    glancing: Program, shelf: Shelf, more: str, outcome: str
) -> None:
    """Fault 29, and an entry that cannot be read: at no time is there no image of the name."""
    first = version(glancing, "1", ONE)
    define(glancing, first)
    sync(glancing)
    second = version(glancing, "2", TWO, more)
    (glancing.cwd / "2.img").write_bytes(THREE)
    define(glancing, first, second)
    assert sync(glancing) == {
        "Debian 12 (1)": outcome,
        "Debian 12/2" if more.startswith("id") else "Debian 12": "failed",
    }
    assert shelf.names() == ["Debian 12"] and shelf.data("Debian 12") == ONE


def test_versions_of_one_name_each_get_their_own(glancing: Program, shelf: Shelf) -> None:
    entries = [version(glancing, number, data) for number, data in (("1", ONE), ("2", TWO))]
    define(glancing, *entries, multi="false", separator="'-'")
    assert sync(glancing) == {"Debian 12-1": "uploaded", "Debian 12-2": "uploaded"}
    assert shelf.named("Debian 12-2")["os_version"] == "2"


def test_latest_is_replaced_when_its_checksum_file_says_so(glancing: Program, shelf: Shelf) -> None:
    sums = glancing.cwd / "SHA256SUMS"
    for data, outcome in ((ONE, "uploaded"), (ONE, "unchanged"), (TWO, "replaced")):
        entry = version(glancing, "latest", data, f"checksums_url: '{sums.as_uri()}'")
        sums.write_text(f"{sha256(data).hexdigest()}  latest.img\n")
        define(glancing, entry)
        assert sync(glancing) == {"Debian 12": outcome}
        image = shelf.named("Debian 12")
        assert image["upstream_checksum"] == sha256(data).hexdigest()
        assert (image["internal_version"], "version" in image) == ("latest", False)
    assert shelf.data("Debian 12_old") == ONE


def test_an_image_that_is_to_be_deactivated_is(glancing: Program, shelf: Shelf) -> None:
    entry = version(glancing, "1", ONE)
    define(glancing, entry)
    sync(glancing)
    define(glancing, entry, status="deactivated")
    assert sync(glancing) == {"Debian 12": "updated"}
    assert sync(glancing) == {"Debian 12": "unchanged"}
    assert shelf.named("Debian 12")["status"] == "deactivated"
    define(glancing, version(glancing, "1", TWO), name="Other", status="deactivated")
    assert sync(glancing) == {"Other": "uploaded"}
    assert shelf.named("Other")["status"] == "deactivated"


def test_a_visibility_that_is_forbidden_costs_no_image(glancing: Program, shelf: Shelf) -> None:
    """Fault 42: what the project may not do is found before the old image is touched."""
    define(glancing, version(glancing, "1", ONE))
    sync(glancing)
    define(glancing, version(glancing, "2", TWO), visibility="public")
    run = glancing.run("sync", "-l", "images.yml")
    assert (run.exit_code, run.row["error"]["kind"]) == (1, "forbidden")
    assert shelf.names() == ["Debian 12"] and shelf.data("Debian 12") == ONE


def test_what_is_wrong_in_a_file_is_told_with_its_place(glancing: Program, shelf: Shelf) -> None:
    define(glancing, version(glancing, "1", ONE, "colour: red"), "version: '2'")
    run = glancing.run("sync", "-l", "images.yml")
    assert run.row_of("Debian 12/2")["line"] == 8 and run.exit_code == 1
    (warning,) = run.named("list.key_unknown")
    assert (warning["list"], warning["line"]) == ("images.yml", 7)
    assert "the key colour is not known" in warning["reason"]
    assert shelf.names() == ["Debian 12 (1)"]


def test_an_id_of_its_own_is_given_once(glancing: Program, shelf: Shelf) -> None:
    """Fault 42: what fails before or after the upload does not spend it; a deletion does."""
    image_id = str(uuid4())
    entry = version(glancing, "1", ONE, f"id: {image_id}")
    define(glancing, entry.replace(sha256(ONE).hexdigest(), "b" * 64))
    assert glancing.run("sync", "-l", "images.yml").row["error"]["kind"] == "wrong-digest"
    define(glancing, entry, visibility="public")
    assert glancing.run("sync", "-l", "images.yml").row["error"]["kind"] == "forbidden"
    assert [each["id"] for each in shelf.incoming()] == [image_id]
    shelf.sandbox.set_image(image_id, age_s=70)  # else the next run waits until it is that old
    define(glancing, entry)
    assert sync(glancing) == {"Debian 12": "uploaded"} and not shelf.incoming()
    assert shelf.named("Debian 12")["id"] == image_id and shelf.data("Debian 12") == ONE
    assert sync(glancing) == {"Debian 12": "unchanged"}
    shelf.delete(shelf.named("Debian 12"))
    run = glancing.run("sync", "-l", "images.yml")
    assert (run.exit_code, run.row["error"]["kind"]) == (1, "id-spent") and shelf.all() == []
