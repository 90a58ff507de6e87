"""The decision table from end to end: what ``plan`` says, what ``sync`` does, what Glance has.

One scene holds a case for each row. ``plan`` and ``sync -d`` see it first and change nothing; then
``sync`` carries out what they said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests import images
from tests.conftest import empty
from tests.marketplace import Marketplace, image_id
from tests.program import Program, Run
from tests.sandbox import Request
from tests.shelf import Image, Shelf


def disk(number: int) -> bytes:
    return images.raw(600 * 1024 + 512 * number)


@dataclass(frozen=True, slots=True)
class Case:
    """What becomes of one entry, and the names that its images bear afterwards, by version."""

    decision: str
    outcome: str
    images: Mapping[str, str | None]
    kind: str | None = None
    says: str = ""


CASES: Mapping[str, Case] = {
    "fresh": Case("upload", "uploaded", {"fresh": "1"}),
    "same": Case("skip", "unchanged", {"same": "1"}),
    "renamed": Case("update", "updated", {"renamed now": "1"}, says="name"),
    "reversioned": Case("update", "updated", {"reversioned": "2"}, says="version"),
    "newer": Case("replace", "replaced", {"newer": "10", "newer_old": "9"}, says="newer than 9"),
    "older": Case("refuse", "refused", {"older": "20160512"}, "downgrade", "20160411 is older"),
    "corrupt": Case(
        "refuse", "refused", {"corrupt": "1"}, "corrupted", "version 1 has other bytes"
    ),
    "resting": Case("skip", "unchanged", {"resting": "1"}, says="deactivated"),
    "stopped": Case("refuse", "refused", {"stopped": "1"}, "deactivated", "is deactivated"),
    "seed": Case("replace", "replaced", {"seed": "2", "seed_old": "1", "seed_old_*": "0"}),
    "seedsame": Case("update", "updated", {"seedsame": "1"}),
    "namesake": Case("replace", "replaced", {"namesake": "1", "namesake_old": None}),
    "bytes": Case("refuse", "refused", {"bytes of another": None}, "ambiguous", "same bytes"),
    "double": Case("refuse", "refused", {"double": None}, "ambiguous", "bears the name"),
    "wish": Case("refuse", "refused", {"wish": "1", "borne": None}, "name-taken", "in Glance"),
    "twin": Case("upload", "uploaded", {"twin": "1"}),
    "twin2": Case("refuse", "refused", {}, "name-taken", "name taken"),
    "absent": Case("refuse", "failed", {}, "not-found", "404"),
    "gone": Case("upload", "failed", {}, "not-found"),
}
STORED_TWICE = {"double"}


def set_stage(market: Marketplace) -> None:
    """What the marketplace has at the time of the first run."""
    for name, number, version in (
        ("same", 1, "1"),
        ("renamed", 2, "1"),
        ("reversioned", 3, "1"),
        ("newer", 4, "9"),
        ("older", 5, "20160512"),
        ("corrupt", 6, "1"),
        ("resting", 7, "1"),
        ("stopped", 8, "1"),
        ("wish", 9, "1"),
    ):
        market.publish(name, disk(number), version)


def change_stage(market: Marketplace, shelf: Shelf) -> None:
    """What it has, and what others have done to Glance, by the time of the second one."""
    market.publish("renamed", disk(2), title="renamed now")
    market.publish("reversioned", disk(3), "2")
    market.publish("newer", disk(14), "10")
    market.publish("older", disk(15), "20160411")
    market.publish("corrupt", disk(16))
    market.publish("stopped", disk(18), "2")
    market.publish("wish", disk(9), title="borne")
    for name in ("resting", "stopped"):
        shelf.deactivate(shelf.named(name))
    shelf.put("borne", disk(30))
    shelf.put("seed", disk(31), mpid=image_id("seed"), version="1")
    shelf.put("seed_old", disk(32), mpid=image_id("seed"), version="0")
    shelf.put("seedsame", disk(33), mpid=image_id("seedsame"), version="1")
    shelf.put("namesake", disk(34))
    shelf.put("bytes of another", disk(35))
    for number in (36, 37):
        shelf.put("double", disk(number))
    market.publish("fresh", disk(40))
    market.publish("seed", disk(41), "2")
    market.publish("seedsame", disk(33))
    market.publish("namesake", disk(44))
    market.publish("bytes", disk(35))
    market.publish("double", disk(46))
    market.publish("twin", disk(47))
    market.publish("twin2", disk(48), title="twin")
    market.publish("gone", disk(49))
    del market.files["/images/gone-1.img"]


@dataclass(frozen=True, slots=True)
class Played:
    """The three runs, what was sent to Glance by each, and what it had before and after."""

    plan: Run
    dry: Run
    run: Run
    requests: Mapping[str, list[Request]]
    before: list[Image]
    unchanged: list[Image]
    after: list[Image]


@pytest.fixture(scope="module")
def played(stock: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    empty(stock)
    folder = tmp_path_factory.mktemp("decisions")
    with Marketplace({}) as market:
        member = stock.sandbox.member
        program = Program(folder, {**member.environ(), "GLANCING_URL": market.base})
        set_stage(market)
        first = program.run("sync", "-l", listed(folder, market))
        assert first.exit_code == 0, first.output
        change_stage(market, stock)
        yield play(program, stock, listed(folder, market, "absent"))


def listed(folder: Path, market: Marketplace, *more: str) -> Path:
    offered = [path.rpartition("/")[2] for path in market.files if "/metadata/" in path]
    path = folder / "vmlist"
    path.write_text("\n".join([*offered, *map(image_id, more)]))
    return path


def play(program: Program, shelf: Shelf, vmlist: Path) -> Played:
    requests: dict[str, list[Request]] = {}

    def watched(*words: str) -> Run:
        asked = len(shelf.sandbox.glance_requests())
        run = program.run(*words, "-l", vmlist)
        requests[" ".join(words)] = shelf.sandbox.glance_requests()[asked:]
        return run

    before = shelf.all()
    plan, dry = watched("plan"), watched("sync", "-d")
    unchanged = shelf.all()
    run = watched("sync")
    return Played(plan, dry, run, requests, before, unchanged, shelf.all())


def of_case(stored: list[Image], case: Case) -> list[Image]:
    """The images that a case is about; a name that ends in * stands for all that begin so."""
    stems = [name.removesuffix("*") for name in case.images if name.endswith("*")]
    return [
        image
        for image in stored
        if image["name"] in case.images or any(image["name"].startswith(stem) for stem in stems)
    ]


@pytest.mark.parametrize("name", CASES)
def test_what_is_done(name: str, played: Played) -> None:
    case, row = CASES[name], played.run.row_of(image_id(name))
    assert (row["decision"], row["outcome"]) == (case.decision, case.outcome), row
    assert (row["error"] or {"kind": None})["kind"] == case.kind
    assert case.says in row["reason"]
    if case.kind not in (None, "not-found"):
        assert row["error"]["hint"]
    stored = of_case(played.after, case)
    versions = sorted(image.get("version", "") for image in stored)
    wanted = sorted(version or "" for version in case.images.values())
    assert versions == (wanted * 2 if name in STORED_TWICE else wanted)
    for image in stored:
        backup = "_old" in image["name"]
        assert image["os_hidden"] == backup
        assert image["status"] == ("deactivated" if name in ("resting", "stopped") else "active")
        assert not backup or image["glancing_state"] == "backup"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.kind])
def test_what_is_refused_stays_as_it_was(name: str, played: Played) -> None:
    case = CASES[name]
    assert of_case(played.after, case) == of_case(played.before, case)


@pytest.mark.parametrize("name", CASES)
def test_a_plan_says_what_is_done(name: str, played: Played) -> None:
    case, done = CASES[name], played.run.row_of(image_id(name))
    changes = case.outcome in ("uploaded", "replaced", "updated")
    for rows in (played.plan, played.dry):
        row = rows.row_of(image_id(name))
        assert (row["decision"], row["reason"]) == (done["decision"], done["reason"])
        assert row["outcome"] == ("planned" if changes else done["outcome"])
        assert row["error"] == done["error"]


def test_a_dry_run_has_read_and_verified_what_it_would_upload(played: Played) -> None:
    for name, case in CASES.items():
        row, done = played.dry.row_of(image_id(name)), played.run.row_of(image_id(name))
        if case.outcome in ("uploaded", "replaced"):
            assert row["integrity"] == "transport" and row["matched"]
            assert (row["digests"], row["size_bytes"]) == (done["digests"], done["size_bytes"])


@pytest.mark.parametrize("command", ["plan", "sync -d"])
def test_neither_a_plan_nor_a_dry_run_changes_anything(command: str, played: Played) -> None:
    assert {request.method for request in played.requests[command]} == {"GET"}
    assert played.unchanged == played.before


def test_they_exit_alike(played: Played) -> None:
    assert [played.plan.exit_code, played.dry.exit_code, played.run.exit_code] == [1, 1, 1]


def test_nothing_is_left_over(played: Played) -> None:
    wanted = [name for case in CASES.values() for name in case.images] + ["double"]
    stored = [image["name"] for image in played.after]
    assert len(stored) == len(wanted), stored
    assert {image["status"] for image in played.after} == {"active", "deactivated"}


def test_a_plan_exits_as_sync_would_for_all_of_it(
    glancing: Program, shelf: Shelf, tmp_path: Path
) -> None:
    """Exit codes 0, 1 and 2, each for a list of its own, before and after it was carried out."""
    with Marketplace({}) as market:
        program = replace(glancing, environ={**glancing.environ, "GLANCING_URL": market.base})
        (tmp_path / "good").write_text(market.publish("one", disk(1)))
        (tmp_path / "bad").write_text(image_id("absent"))
        for name, code in (("good", 0), ("bad", 1), ("absent", 2)):
            codes = [program.run(word, "-l", name).exit_code for word in ("plan", "sync", "plan")]
            assert codes == [code] * 3
    assert shelf.names() == ["one"]
