"""Sources that fail or lie: each costs its own image, and no other.

All of them stand in one list, between images that are good, and are read in one run.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count

import pytest

from tests import images
from tests.conftest import empty
from tests.marketplace import Marketplace, image_id, metadata
from tests.program import Program, Run
from tests.servers import Action, BadServer, Break, Request, head
from tests.shelf import Shelf

MIB = 1024 * 1024
IMAGE = images.raw()
HALF = len(IMAGE) // 2
WHOLE = (head(200, content_length=len(IMAGE)), IMAGE)
CUT = (head(200, content_length=len(IMAGE)), IMAGE[:HALF])
RESUMABLE = {"etag": '"1"', "accept_ranges": "bytes"}
CUT_RESUMABLE = (head(200, content_length=len(IMAGE), **RESUMABLE), IMAGE[:HALF])
WHOLE_RESUMABLE = (head(200, content_length=len(IMAGE), **RESUMABLE), IMAGE)
REST = (
    head(
        206,
        content_length=len(IMAGE) - HALF,
        content_range=f"bytes {HALF}-{len(IMAGE) - 1}/{len(IMAGE)}",
        **RESUMABLE,
    ),
    IMAGE[HALF:],
)
WRONG_PART = (
    head(206, content_length=10, content_range=f"bytes 0-9/{len(IMAGE)}", **RESUMABLE),
    IMAGE[:10],
)
PAGE = b"<!DOCTYPE html><html><body>Moved</body></html>"

Script = tuple[tuple[Action, ...], ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """What the server answers, one after the other, and what becomes of the image.

    ``kind`` is None where the image gets in all the same. ``asked`` is how often the server is to
    be asked, 0 where that does not matter. ``bare`` images have neither digest nor size.
    """

    script: Script
    kind: str | None = None
    asked: int = 0
    bare: bool = False
    says: str = ""


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


FAULTS: Mapping[str, Fault] = {
    "good": Fault((WHOLE,), asked=1),
    "not found": Fault(((head(404, content_length=0),),), "not-found", 1, says="404"),
    "forbidden": Fault(((head(403, content_length=0),),), "http-status", 1, says="403"),
    "failing": Fault(((head(500, content_length=0),),), "http-status", 4, says="500"),
    "failing, then good": Fault(((head(500, content_length=0),), WHOLE), asked=2),
    "busy, then good": Fault(((head(503, content_length=0, retry_after=1),), WHOLE), asked=2),
    "no answer, then good": Fault(((Break.RESET,), WHOLE), asked=2),
    "no answer": Fault(((Break.CLOSE,),), "unreachable", 4),
    "cut": Fault((CUT,), "incomplete", 4),
    "cut, then good": Fault((CUT, WHOLE), asked=2),
    "reset": Fault(((*CUT, Break.RESET),), "incomplete", 4),
    "cut, then the rest": Fault((CUT_RESUMABLE, REST), asked=2),
    "ignores Range": Fault((CUT_RESUMABLE, WHOLE_RESUMABLE), asked=2),
    "another part": Fault((CUT_RESUMABLE, WRONG_PART, WHOLE_RESUMABLE), asked=3),
    "cut without a length": Fault(((head(200), IMAGE[:HALF]),), "wrong-size", 1),
    "without a length": Fault(((head(200), IMAGE),), asked=1),
    "length too small": Fault(
        ((head(200, content_length=HALF), IMAGE),), "wrong-size", 1, says=str(len(IMAGE))
    ),
    "length too large": Fault(
        ((head(200, content_length=len(IMAGE) + 1), IMAGE),), "wrong-size", 1
    ),
    "more than there should be": Fault(((head(200), IMAGE, IMAGE),), "wrong-size", 1),
    "other bytes": Fault(
        ((head(200, content_length=len(IMAGE)), flipped(IMAGE)),), "wrong-digest", 1, says="md5"
    ),
    "a page": Fault(((head(200, content_length=len(PAGE)), PAGE),), "unsafe-format", 1, bare=True),
    "nothing": Fault(((head(200, content_length=0),),), "empty", 1, bare=True),
    "nothing to prove the end": Fault(
        ((head(200), IMAGE),), "unverifiable", 1, bare=True, says="--no-checksum"
    ),
    "encoded": Fault(
        ((head(200, content_length=len(IMAGE), content_encoding="br"), IMAGE),), "http-status", 1
    ),
    "to itself": Fault(((head(302, location="to-itself"),),), "forbidden-address", 1),
    "to another scheme": Fault(
        ((head(302, location="ftp://images.example.org/x"),),), "forbidden-address", 1
    ),
    "elsewhere, good": Fault(((head(302, location="good"),),), asked=1),
}


def slug(case: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in case)


class FaultServer(BadServer):
    """Gives the n-th request for a path the n-th answer of its script, and then its last."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        super().__init__(self._scripted)
        self._scripts = scripts
        self._turns: Counter[str] = Counter()
        self._turn_lock = threading.Lock()

    def __enter__(self) -> FaultServer:
        super().__enter__()
        return self

    def _scripted(self, request: Request) -> Iterable[Action]:
        with self._turn_lock:
            turn = self._turns[request.path]
            self._turns[request.path] += 1
        script = self._scripts[request.path]
        return script[min(turn, len(script) - 1)]

    def asked(self, path: str) -> int:
        """How often a path was asked for."""
        return self._turns[path]


@dataclass(frozen=True, slots=True)
class Faulted:
    run: Run
    server: FaultServer


@pytest.fixture(scope="module")
def faulted(stock: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulted]:
    empty(stock)
    folder = tmp_path_factory.mktemp("faults")
    program = Program(folder, stock.sandbox.member.environ())
    scripts = {f"/{slug(case)}": fault.script for case, fault in FAULTS.items()}
    with FaultServer(scripts) as server, Marketplace({}) as market:
        lines = [line(case, server, market) for case in FAULTS]
        (folder / "vmlist").write_text("\n".join(lines))
        run = program.run("sync", "-l", "vmlist", "-u", market.base, "--jobs", "8")
        yield Faulted(run, server)


def line(case: str, server: BadServer, market: Marketplace) -> str:
    """The entry of a case: an ID with metadata at the marketplace, or a bare address."""
    location = server.url(f"/{slug(case)}")
    if FAULTS[case].bare:
        return location
    identifier = image_id(slug(case))
    document = metadata(IMAGE, location, {"dcterms:identifier": identifier, "dcterms:title": case})
    market.files[f"/marketplace/metadata/{identifier}"] = document
    return identifier


@pytest.mark.parametrize("case", FAULTS)
def test_what_becomes_of_it(case: str, faulted: Faulted, stock: Shelf) -> None:
    fault = FAULTS[case]
    name = slug(case) if fault.bare else case
    (row,) = (row for row in faulted.run.rows if row["name"] == name)
    stored = [image for image in stock.all() if image["name"] == name]
    if fault.kind is None:
        assert row["outcome"] == "uploaded", row
        assert stock.data(name) == IMAGE and row["integrity"] == "transport"
    else:
        assert (row["outcome"], row["error"]["kind"]) == ("failed", fault.kind), row
        assert fault.says in f"{row['error']['message']} {row['error']['hint']}"
        assert stored == []
    if fault.asked:
        asked = faulted.server.asked(f"/{slug(case)}")
        assert asked == fault.asked or slug(case) == "good"


def test_the_run_tells_of_failures_and_leaves_nothing(faulted: Faulted, stock: Shelf) -> None:
    assert faulted.run.exit_code == 1
    good = [case for case, fault in FAULTS.items() if fault.kind is None]
    assert stock.names() == sorted(good)
    assert stock.incoming() == []


# --- a source that stalls -------------------------------------------------------------------------


STALL_S = float(os.environ.get("TEST_STALL_S", "5"))  # uWSGI drops a body that pauses for 4 s


def stalling(data: bytes, request: Request, turn: int) -> Iterator[Action]:
    """A quarter of the rest, twice after a pause, and a cut; the fourth answer is whole."""
    start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    part = {"content_range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
    yield head(206 if start else 200, content_length=len(data) - start, **RESUMABLE, **part)
    if turn == 3:
        yield data[start:]
        return
    quarter = data[start : start + len(data) // 4]
    yield quarter[: len(quarter) // 2]
    if turn < 2:
        go_on = threading.Event()
        timer = threading.Timer(STALL_S, go_on.set)
        timer.start()
        yield go_on
        timer.join()
    yield quarter[len(quarter) // 2 :]


def test_a_source_that_stalls_and_is_cut_still_ends_in_one_upload(
    glancing: Program, shelf: Shelf
) -> None:
    """Faults 1 and 10: two pauses, three cuts, and the reserve drips meanwhile."""
    data = IMAGE + images.noise(32 * MIB)
    asked = len(shelf.sandbox.glance_requests())
    turns = count()
    with BadServer(lambda request: stalling(data, request, next(turns))) as server:
        run = glancing.run("import", server.url("/disk.raw"))
        assert [request.headers.get("if-range") for request in server.requests] == [
            None,
            *['"1"'] * 3,
        ]
    assert run.exit_code == 0 and run.seconds > 2 * STALL_S
    assert shelf.data("disk") == data
    puts = [r.status for r in shelf.sandbox.glance_requests()[asked:] if r.method == "PUT"]
    assert puts == [204]


# --- upload broken off, old image kept ------------------------------------------------------------


def test_bytes_that_turn_out_wrong_at_the_end_leave_what_was_there(
    glancing: Program, shelf: Shelf
) -> None:
    """The image is larger than what is held back, so most of it has been sent by then."""
    old, new = images.raw(), IMAGE + images.noise(16 * MIB, 2)
    with Marketplace({}) as market:
        program = replace(glancing, environ={**glancing.environ, "GLANCING_URL": market.base})
        (program.cwd / "vmlist").write_text(market.publish("disk", old))
        assert program.run("sync", "-l", "vmlist").exit_code == 0
        before = shelf.all()
        market.publish("disk", new, "2", published=new[:-1] + flipped(new[-1:]))
        asked = len(shelf.sandbox.glance_requests())
        run = program.run("sync", "-l", "vmlist")
    assert run.exit_code == 1 and run.row["error"]["kind"] == "wrong-digest"
    assert shelf.all() == before and shelf.data("disk") == old
    sent = shelf.sandbox.glance_requests()[asked:]
    changes = [r.method for r in sent if r.method != "GET" and r.status < 300]
    assert changes == ["POST", "DELETE"]
