"""``glancing sync``: what lists may contain, what replacements keep, and how little is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import images
from tests.marketplace import Marketplace, image_id, metadata
from tests.program import Program
from tests.sandbox import Sandbox
from tests.servers import Served
from tests.shelf import Shelf

MIB = 1024 * 1024


def disk(number: int) -> bytes:
    """An image that no other number gives."""
    return images.raw(600 * 1024 + 512 * number)


def large(number: int) -> bytes:
    """An image beyond what is held back of an upload, so that its first bytes go out."""
    return images.raw(600 * 1024) + images.noise(9 * MIB, number)


@pytest.fixture
def market() -> Iterator[Marketplace]:
    with Marketplace({}) as market:
        yield market


@pytest.fixture
def sync(glancing: Program, market: Marketplace) -> Program:
    """The program with the marketplace set."""
    return replace(glancing, environ={**glancing.environ, "GLANCING_URL": market.base})


def write_list(program: Program, *lines: str, name: str = "vmlist") -> Path:
    path = program.cwd / name
    path.write_text("\n".join(lines))
    return path


def listings(sandbox: Sandbox, since: int) -> int:
    """How many times images were listed since a number of requests."""
    requests = sandbox.glance_requests()[since:]
    return sum(r.method == "GET" and r.path.startswith("/v2/images?") for r in requests)


# --- lists ----------------------------------------------------------------------------------------


def test_what_a_list_may_contain(sync: Program, shelf: Shelf, market: Marketplace) -> None:
    first, dashed = market.publish("first", disk(1)), market.publish("-dashed", disk(2))
    market.files["/images/some%20url.raw"] = disk(3)
    folder = sync.cwd / "lists"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "file.raw").write_bytes(disk(4))
    described = metadata(disk(5), "file5.raw", {"dcterms:title": "described"})
    (folder / "entry.xml").write_bytes(described)
    (folder / "file5.raw").write_bytes(disk(5))
    lines = [
        "# a comment",
        first,
        "",
        f"  {dashed}\t",
        market.url("/images/some%20url.raw"),
        "below/file.raw",
        first,
        "two words",
        "entry.xml",
        "   # another comment",
        "ftp://images.example.org/x.img",
    ]
    (folder / "vmlist").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    run = sync.run("sync", "-l", "lists/vmlist")
    assert run.exit_code == 1
    assert run.outcomes == {
        "first": "uploaded",
        "-dashed": "uploaded",
        "some url": "uploaded",
        "file": "uploaded",
        "described": "uploaded",
        "ftp://images.example.org/x.img": "failed",
    }
    assert [row["line"] for row in run.rows] == [2, 4, 5, 6, 9, 11]
    assert {row["list"] for row in run.rows} == {"lists/vmlist"}
    assert [event["line"] for event in run.named("list.duplicate_skipped")] == [7]
    assert [event["line"] for event in run.named("list.line_skipped")] == [8]
    assert "white space" in run.named("list.line_skipped")[0]["reason"]
    assert shelf.names() == ["-dashed", "described", "file", "first", "some url"]
    assert [shelf.data(name) for name in ("first", "-dashed", "some url", "file", "described")] == [
        disk(number) for number in range(1, 6)
    ]
    image = shelf.named("-dashed")
    assert (image["mpid"], image["version"], image["tags"]) == (dashed, "1", ["glancing"])
    again = sync.run("sync", "-l", "lists/vmlist")
    assert again.exit_code == 1 and set(again.outcomes.values()) == {"unchanged", "failed"}


@pytest.mark.parametrize("how", ["flags", "variable"])
def test_several_lists(sync: Program, shelf: Shelf, market: Marketplace, how: str) -> None:
    one, two = market.publish("one", disk(1)), market.publish("two", disk(2))
    market.files["/remote-list"] = f"{one}\n{two}\n".encode()
    lists = [str(write_list(sync, one)), market.url("/remote-list")]
    if how == "flags":
        run = sync.run("sync", "-l", lists[0], "--vmlist", lists[1])
    else:
        run = sync.run("sync", GLANCING_VMLIST="\n ".join(lists))
    assert run.exit_code == 0
    assert [(row["name"], row["list"], row["line"]) for row in run.rows] == [
        ("one", lists[0], 1),
        ("two", lists[1], 2),
    ]
    assert len(run.named("list.duplicate_skipped")) == 1
    assert shelf.names() == ["one", "two"]


def test_only_some_entries(sync: Program, shelf: Shelf, market: Marketplace) -> None:
    ids = [market.publish(name, disk(n)) for n, name in enumerate(["one", "two", "three"])]
    path = write_list(sync, *ids)
    run = sync.run("sync", "-l", path, "--only", ids[2], "--only", "one")
    assert (run.exit_code, run.outcomes) == (0, {"one": "uploaded", "three": "uploaded"})
    assert shelf.names() == ["one", "three"]
    run = sync.run("sync", "-l", path, "--only", "four")
    assert run.exit_code == 2 and "four" in run.result["error"]["message"]


def test_a_fetched_list_names_no_local_files(
    sync: Program, shelf: Shelf, market: Marketplace
) -> None:
    """Fault 15: nothing that is fetched can name a file of this machine."""
    (sync.cwd / "secret.raw").write_bytes(disk(1))
    (sync.cwd / "secret.xml").write_bytes(metadata(disk(1), market.url("/image"), {}))
    market.files["/vmlist"] = f"{sync.cwd}/secret.raw\nsecret.xml\nfile:///etc/hosts\n".encode()
    run = sync.run("sync", "-l", market.url("/vmlist"))
    assert run.exit_code == 1 and [row["outcome"] for row in run.rows] == ["failed"] * 3
    assert all(
        "local" in row["error"]["message"] or "file" in row["descriptor"] for row in run.rows
    )
    assert shelf.all() == []


@pytest.mark.parametrize(
    ("lists", "kind"),
    [
        (["absent"], "bad-list"),
        (["good", "absent"], "bad-list"),
        (["binary", "good"], "bad-list"),
        (["page", "good"], "bad-list"),
        (["."], "bad-list"),
        (["{server}/absent"], "bad-list"),
        (["{server}/absent", "{server}/page"], "bad-list"),
        (["ftp://images.example.org/list"], "usage"),
    ],
)
def test_a_list_that_cannot_be_read_ends_the_run_before_anything(
    sync: Program, shelf: Shelf, market: Marketplace, lists: list[str], kind: str
) -> None:
    page = b"<html>It works!</html>"
    market.files["/page"] = page
    write_list(sync, market.publish("one", disk(1)), name="good")
    (sync.cwd / "binary").write_bytes(b"\xff\xfea\0b\0")
    (sync.cwd / "page").write_bytes(page)
    asked = len(shelf.sandbox.glance_requests())
    words = [word for name in lists for word in ("-l", name.format(server=market.origin))]
    run = sync.run("sync", *words)
    assert run.exit_code == 2 and run.result["error"]["kind"] == kind, run.output
    named = lists[-1] if len(lists) == 1 else next(name for name in lists if name != "good")
    if "{server}" not in named or len(lists) == 1:
        assert named.format(server=market.origin) in run.output or kind == "usage"
    assert shelf.sandbox.glance_requests()[asked:] == []


def test_a_list_without_entries_is_a_warning(sync: Program, shelf: Shelf) -> None:
    run = sync.run("sync", "-l", write_list(sync, "# nothing yet", ""))
    assert (run.exit_code, run.rows) == (0, [])
    assert [event["level"] for event in run.named("list.empty")] == ["warning"]
    assert shelf.all() == []


def test_an_unreachable_list_is_one_failed_row(
    sync: Program, shelf: Shelf, market: Marketplace
) -> None:
    path = write_list(sync, market.publish("one", disk(1)))
    run = sync.run("sync", "-l", market.url("/absent"), "-l", path)
    assert run.exit_code == 1
    assert run.outcomes == {market.url("/absent"): "failed", "one": "uploaded"}
    assert run.rows[0]["error"]["kind"] == "not-found"
    assert shelf.names() == ["one"]


# --- replacing ------------------------------------------------------------------------------------


def test_backups_are_hidden_and_earlier_ones_get_a_date(
    sync: Program, shelf: Shelf, market: Marketplace
) -> None:
    (sync.cwd / "backups").mkdir()
    for number, version in enumerate(("9", "10", "20160411")):
        market.publish("disk", disk(number), version)
        path = write_list(sync, image_id("disk"))
        assert sync.run("sync", "-l", path, "-b", "backups").exit_code == 0
    current, latest, earlier = sorted(shelf.all(), key=lambda image: len(image["name"]))
    assert [current["name"], latest["name"]] == ["disk", "disk_old"]
    assert earlier["name"].startswith("disk_old_2")
    assert [image["version"] for image in (current, latest, earlier)] == ["20160411", "10", "9"]
    assert [image["os_hidden"] for image in (current, latest, earlier)] == [False, True, True]
    assert {image["status"] for image in (current, latest, earlier)} == {"active"}
    assert (latest["glancing_state"], earlier["glancing_state"]) == ("backup", "backup")
    copies = {path.name: path.read_bytes() for path in (sync.cwd / "backups").iterdir()}
    assert copies == {
        f"disk_{latest['id']}.raw": disk(1),
        f"disk_{earlier['id']}.raw": disk(0),
    }


def test_what_a_replacement_inherits(sync: Program, shelf: Shelf, market: Marketplace) -> None:
    path = write_list(sync, market.publish("disk", disk(1)), market.publish("mine", disk(2)))
    assert sync.run("sync", "-l", path).exit_code == 0
    disk_, mine = shelf.named("disk"), shelf.named("mine")
    stranger = "0123456789abcdef0123456789abcdef"
    shelf.share(disk_, stranger)
    chosen = {"min_disk": 3, "min_ram": 256, "tags": ["glancing", "gold"], "hw_disk_bus": "scsi"}
    shelf.change(disk_, **chosen)
    shelf.change(mine, visibility="private", protected=True)
    market.publish("disk", disk(3), "2")
    market.publish("mine", disk(4), "2")
    run = sync.run("sync", "-l", path)
    assert run.outcomes == {"disk": "replaced", "mine": "replaced"}
    new = shelf.named("disk")
    assert (new["min_disk"], new["min_ram"], new["hw_disk_bus"]) == (3, 256, "scsi")
    assert sorted(new["tags"]) == ["glancing", "gold"] and new["visibility"] == "shared"
    assert shelf.members("disk") == [stranger] and run.named("image.shared")
    assert (shelf.named("mine")["visibility"], shelf.named("mine")["protected"]) == (
        "private",
        True,
    )
    assert shelf.named("mine_old")["id"] == mine["id"]


def test_an_image_of_the_same_bytes_is_adopted_when_asked(
    sync: Program, shelf: Shelf, market: Marketplace
) -> None:
    made = shelf.put("made by hand", disk(1))
    path = write_list(sync, market.publish("disk", disk(1)))
    refused = sync.run("sync", "-l", path)
    assert refused.exit_code == 1 and refused.row["error"]["kind"] == "ambiguous"
    assert "--adopt" in refused.row["error"]["hint"] and made["id"] in refused.row["reason"]
    assert shelf.all() == [made]
    adopted = sync.run("sync", "-l", path, "--adopt")
    assert adopted.exit_code == 0 and adopted.row["outcome"] == "updated"
    (image,) = shelf.all()
    assert (image["id"], image["name"], image["mpid"]) == (made["id"], "disk", image_id("disk"))


# --- addresses without digests --------------------------------------------------------------------


def test_an_address_is_read_again_only_when_its_validators_changed(
    sync: Program, shelf: Shelf, market: Marketplace
) -> None:
    """Found equal at the tail: the upload is broken off and nothing of it stays."""
    market.files["/disk.raw"] = Served(large(1), etag='"1"')
    path = write_list(sync, market.url("/disk.raw"))

    def run_and_count() -> tuple[str, int, list[tuple[str, int]]]:
        market.requests.clear()
        asked = len(shelf.sandbox.glance_requests())
        run = sync.run("sync", "-l", path)
        assert run.exit_code == 0, run.output
        sent = shelf.sandbox.glance_requests()[asked:]
        puts = [(r.method, r.status) for r in sent if r.method == "PUT" and r.status < 300]
        gets = sum(request.method == "GET" for request in market.requests)
        return run.row["outcome"], gets, puts

    assert run_and_count() == ("uploaded", 1, [("PUT", 204)])
    made = shelf.named("disk")
    assert run_and_count() == ("unchanged", 0, [])
    market.files["/disk.raw"] = Served(large(1), etag='"2"')
    assert run_and_count() == ("unchanged", 1, [])
    assert [image["id"] for image in shelf.all()] == [made["id"]]
    assert run_and_count() == ("unchanged", 0, [])  # the new validators were kept
    market.files["/disk.raw"] = Served(large(2), etag='"3"')
    assert run_and_count() == ("replaced", 1, [("PUT", 204)])
    assert shelf.data("disk") == large(2) and shelf.named("disk_old")["id"] == made["id"]


# --- how much is asked of Glance ------------------------------------------------------------------


def test_the_number_of_listings_does_not_grow_with_the_list(
    sync: Program, shelf: Shelf, market: Marketplace
) -> None:
    ids = [market.publish(f"disk{number}", disk(number)) for number in range(30)]
    counts = []
    for entries in (ids[:2], ids, ids):
        asked = len(shelf.sandbox.glance_requests())
        run = sync.run("sync", "-l", write_list(sync, *entries), "--jobs", "4")
        assert run.exit_code == 0, run.output
        counts.append(listings(shelf.sandbox, asked))
    assert counts == [2, 2, 2]
    assert shelf.names() == sorted(f"disk{number}" for number in range(30))


def test_a_run_without_changes_asks_for_nothing_but_the_listings(
    sync: Program, shelf: Shelf, market: Marketplace
) -> None:
    path = write_list(sync, *(market.publish(f"disk{n}", disk(n)) for n in range(3)))
    assert sync.run("sync", "-l", path).exit_code == 0
    asked = len(shelf.sandbox.glance_requests())
    assert set(sync.run("sync", "-l", path).outcomes.values()) == {"unchanged"}
    requests = shelf.sandbox.glance_requests()[asked:]
    assert {request.method for request in requests} == {"GET"}
    assert not [request for request in requests if request.path.startswith("/v2/images/")]
