"""A Glance and a Keystone that fail, in front of the real ones; the real program runs into them.

One run replaces many images at once, each of which meets a fault of its own, and one further run
finds all of them in order. Faults 39, 41, 42, 43 and 46 are rows of that table.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha512

import pytest

from tests import images
from tests.conftest import empty
from tests.marketplace import Marketplace
from tests.program import Program, Run
from tests.servers import (
    Answer,
    Cut,
    Exchange,
    Fault,
    FaultProxy,
    Flip,
    Lose,
    When,
    redirect,
)
from tests.servers.faults import Reply
from tests.shelf import Image, Shelf

OLD, NEW = images.raw(12 * 1024), images.raw(12 * 1024)[:-1] + b"\x02"
TRAP = "http://127.0.0.1:1/trap"


@dataclass(frozen=True, slots=True)
class Case:
    """Which requests of one image meet which faults, and what becomes of it.

    The n-th request of a phase meets the n-th fault, and ``then`` all further ones of ``phase``.
    ``kind`` is None where the image is replaced all the same; ``puts`` is how often its bytes are
    sent.
    """

    phase: str
    faults: tuple[Fault | None, ...] = ()
    then: Fault | None = None
    kind: str | None = None
    puts: int = 1
    before: tuple[str, Fault] | None = None

    def fault(self, exchange: Exchange, turn: int) -> Fault | None:
        if self.before and exchange.phase == self.before[0]:
            return self.before[1]
        if exchange.phase != self.phase:
            return None
        return self.faults[turn] if turn < len(self.faults) else self.then


def once(phase: str, fault: Fault, *, puts: int = 1) -> Case:
    return Case(phase, (fault,), puts=puts)


def always(phase: str, fault: Fault, kind: str, *, puts: int = 1) -> Case:
    return Case(phase, then=fault, kind=kind, puts=puts)


PASSING = (401, 404, 408, 409, 410, 429, 500, 502, 503, 504)
LASTING = {400: "store", 403: "forbidden", 413: "quota-exceeded", 415: "rejected-format"}
CASES: Mapping[str, Case] = {
    "good": Case("none"),
    **{f"put-{status}": once("upload", Answer(status), puts=2) for status in PASSING},
    **{
        f"put-{status}-late": once("upload", Answer(status, when=When.LATE), puts=2)
        for status in (401, 409, 503)
    },
    "put-503-done": once("upload", Answer(503, when=When.DONE), puts=2),
    "put-401-ever": always("upload", Answer(401), "login-refused", puts=3),
    "put-409-ever": always("upload", Answer(409), "store", puts=3),
    "put-503-ever": always("upload", Answer(503, when=When.LATE), "store", puts=3),
    **{f"put-{status}": always("upload", Answer(status), kind) for status, kind in LASTING.items()},
    "put-413-late": always("upload", Answer(413, when=When.LATE), "quota-exceeded"),
    "put-507": always("upload", Answer(507), "store"),
    "put-307": always("upload", redirect(TRAP), "store"),
    "put-307-late": always("upload", redirect(TRAP, When.LATE), "store"),
    "put-cut": once("upload", Cut(5000), puts=2),
    "put-cut-first": once("upload", Cut(), puts=2),
    "put-cut-last": once("upload", Cut(len(NEW) - 1), puts=2),
    "put-cut-ever": always("upload", Cut(5000), "cloud-unreachable", puts=3),
    "put-lost": once("upload", Lose(), puts=2),
    "put-flipped": once("upload", Flip(5000), puts=2),
    "put-flipped-ever": always("upload", Flip(5000), "stored-wrong", puts=3),
    "create-503": once("create", Answer(503)),
    "create-503-done": once("create", Answer(503, when=When.DONE)),
    "create-lost": once("create", Lose()),
    "create-cut": once("create", Cut()),
    "create-403": always("create", Answer(403), "forbidden", puts=0),
    "create-413": always("create", Answer(413), "quota-exceeded", puts=0),
    "create-307": always("create", redirect(TRAP), "store", puts=0),
    "create-503-ever": always("create", Answer(503), "store", puts=0),
    "confirm-503": once("confirm", Answer(503)),
    "confirm-lost": once("confirm", Lose()),
    "confirm-404": once("confirm", Answer(404), puts=2),
    "confirm-307": always("confirm", redirect(TRAP), "store"),
    "publish-503": once("publish", Answer(503)),
    "publish-504-done": once("publish", Answer(504, when=When.DONE)),
    "publish-lost": once("publish", Lose()),
    "publish-cut": once("publish", Cut()),
    "publish-403": always("publish", Answer(403), "forbidden"),
    "publish-307": always("publish", redirect(TRAP), "store"),
    "publish-503-ever": always("publish", Answer(503), "store"),
    "retire-503": once("retire", Answer(503)),
    "retire-504-done": once("retire", Answer(504, when=When.DONE)),
    "retire-lost": once("retire", Lose()),
    "retire-403": always("retire", Answer(403), "forbidden"),
    "retire-307": always("retire", redirect(TRAP), "store"),
    "delete-503": Case(
        "delete", (Answer(503),), kind="rejected-format", before=("upload", Answer(415))
    ),
    "delete-lost": Case(
        "delete", (Lose(),), kind="rejected-format", before=("upload", Answer(415))
    ),
}


class Table:
    """The script of a run over many images: each request meets what the case of its image says."""

    def __init__(self, cases: Mapping[str, Case], stored: list[Image]) -> None:
        self._cases = cases
        self._lock = threading.Lock()
        self._names = {image["id"]: image["name"] for image in stored}
        self._turns: Counter[tuple[str, str]] = Counter()
        self.seen: dict[str, list[Exchange]] = {}

    def __call__(self, exchange: Exchange) -> Fault | None:
        with self._lock:
            if exchange.phase == "create":
                made = json.loads(exchange.document)
                self._names[made["id"]] = made["glancing_name"]
            name = self._names.get(image_of(exchange), "")
            turn = self._turns[name, exchange.phase]
            self._turns[name, exchange.phase] += 1
            self.seen.setdefault(name, []).append(exchange)
        return self._cases[name].fault(exchange, turn) if name else None


def image_of(exchange: Exchange) -> str:
    """The id of the image that a request is about."""
    if exchange.phase == "create":
        return str(json.loads(exchange.document)["id"])
    return exchange.path.removeprefix("/v2/images/").partition("/")[0]


class Later(Fault):
    """Glance's clock is hours ahead, so that what a run left behind is known to be abandoned."""

    def reply(self, reply: Reply) -> Reply:
        date = format_datetime(datetime.now(UTC) + timedelta(hours=5), usegmt=True)
        return replace(reply, headers={**reply.headers, "date": date})


@dataclass(frozen=True, slots=True)
class Faulted:
    """What the run with the faults told, what was there after it, and the run after that."""

    run: Run
    table: Table
    between: list[Image]
    after: Run
    end: list[Image]


def sync(program: Program, market: Marketplace, proxy: FaultProxy) -> Run:
    return program.run(
        *("sync", "-l", "vmlist", "-u", market.base, "--jobs", "8"),
        OS_IMAGE_ENDPOINT_OVERRIDE=proxy.origin,
    )


@pytest.fixture(scope="module")
def faulted(stock: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulted]:
    empty(stock)
    program = Program(tmp_path_factory.mktemp("table"), stock.sandbox.member.environ())
    with Marketplace({}) as market, FaultProxy(stock.sandbox.image_url) as proxy:
        lines = [market.publish(name, OLD) for name in CASES]
        (program.cwd / "vmlist").write_text("\n".join(lines))
        first = sync(program, market, proxy)
        assert first.exit_code == 0
        for name in CASES:
            market.publish(name, NEW, "2")
        table = Table(CASES, stock.all())
        proxy.play(table)
        run = sync(program, market, proxy)
        between = stock.all()
        proxy.play(lambda _: Later())
        after = sync(program, market, proxy)

        yield Faulted(run, table, between, after, stock.all())


@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_the_image(name: str, faulted: Faulted) -> None:
    case = CASES[name]
    (row,) = (row for row in faulted.run.rows if row["name"] == name)
    told = (row["outcome"], row["error"] and row["error"]["kind"])
    assert told == ("failed" if case.kind else "replaced", case.kind), row
    seen = faulted.table.seen[name]
    puts = [exchange.path for exchange in seen if exchange.phase == "upload"]
    assert len(puts) == case.puts and len(set(puts)) == len(puts)


@pytest.mark.parametrize("name", CASES)
def test_at_no_moment_is_the_name_without_an_image(name: str, faulted: Faulted) -> None:
    borne = {"the old one"}
    for exchange in faulted.table.seen[name]:
        if exchange.phase == "publish" and exchange.status == 200:
            borne.add(image_of(exchange))
        if exchange.phase == "retire" and exchange.status == 200:
            borne.discard("the old one")
        if exchange.phase == "delete":
            borne.discard(image_of(exchange))
        assert borne
    published = {
        image_of(e) for e in faulted.table.seen[name] if e.phase == "publish" and e.status == 200
    }
    deleted = {image_of(e) for e in faulted.table.seen[name] if e.phase == "delete"}
    assert not published & deleted


@pytest.mark.parametrize("name", CASES)
def test_what_is_shown_under_the_name_was_verified(name: str, faulted: Faulted) -> None:
    shown = [image for image in faulted.between if image["name"] == name]
    assert shown and all(image["status"] == "active" for image in shown)
    good = {sha512(OLD).hexdigest(), sha512(NEW).hexdigest()}
    assert {image["os_hash_value"] for image in shown} <= good


def test_the_first_run_tells_of_failures_and_leaves_nothing(faulted: Faulted) -> None:
    assert faulted.run.exit_code == 1
    left = [image["name"] for image in faulted.between if image.get("glancing_state") == "incoming"]
    assert left == []


@pytest.mark.parametrize("name", CASES)
def test_one_further_run_is_enough(name: str, faulted: Faulted) -> None:
    assert faulted.after.exit_code == 0, faulted.after.output
    (image,) = (image for image in faulted.end if image["name"] == name)
    (backup,) = (image for image in faulted.end if image["name"] == f"{name}_old")
    assert image["os_hash_value"] == sha512(NEW).hexdigest() and not image["os_hidden"]
    assert backup["os_hash_value"] == sha512(OLD).hexdigest() and backup["os_hidden"]


def test_nothing_else_is_there_in_the_end(faulted: Faulted) -> None:
    names = sorted(image["name"] for image in faulted.end)
    assert names == sorted([*CASES, *(f"{name}_old" for name in CASES)])
    assert {image["status"] for image in faulted.end} == {"active"}
