"""A Glance and a Keystone that fail, in front of the real ones; the real program runs into them.

One run replaces many images at once, each of which meets a fault of its own, and one further run
finds all of them in order. Faults 39, 41, 42, 43, 45, 46 and 48
are rows of that table.
"""

from __future__ import annotations

import gzip
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
from tests.conftest import delete_images, empty
from tests.marketplace import Marketplace
from tests.program import Program, Run
from tests.sandbox import Sandbox
from tests.sandbox.identity import Login
from tests.servers import (
    Answer,
    Call,
    Cut,
    CutReply,
    EditReply,
    Exchange,
    Fault,
    FaultProxy,
    Flip,
    FlipReply,
    Lose,
    When,
    at,
    on,
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
    "put-503-done": once("upload", Answer(503, when=When.DONE)),
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
    "put-lost": once("upload", Lose()),
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
    "delete-403": Case(
        "delete", then=Answer(403), kind="rejected-format", before=("upload", Answer(415))
    ),
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
    sizes = {e.headers["x-openstack-image-size"] for e in seen if e.phase == "upload"}
    assert sizes <= {str(len(NEW))}


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
    assert left == ["delete-403.incoming"]
    (told,) = faulted.run.named("image.incoming_left")
    assert "403" in told["reason"]


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


# --- one image at a time --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scene:
    """A Glance that has an old image, and a file with the new one."""

    program: Program
    proxy: FaultProxy
    shelf: Shelf

    def replace(self, *words: str, **variables: str) -> Run:
        """Make the new image the one of the name."""
        return self.program.run(
            *("import", "disk.raw", "-n", "disk", *words),
            OS_IMAGE_ENDPOINT_OVERRIDE=self.proxy.origin,
            **variables,
        )

    def has_converged(self) -> bool:
        """Whether the new image is there, the old one is its backup, and nothing else is."""
        images = {image["name"]: image for image in self.shelf.all()}
        return (
            self.shelf.names() == ["disk", "disk_old"]
            and images["disk"]["os_hash_value"] == sha512(NEW).hexdigest()
            and images["disk_old"]["os_hash_value"] == sha512(OLD).hexdigest()
            and images["disk_old"]["os_hidden"]
            and not images["disk"]["os_hidden"]
        )

    def shown(self) -> list[str]:
        """The digests of what a user finds under the name."""
        found = (image for image in self.shelf.all() if image["name"] == "disk")
        return [image["os_hash_value"] for image in found if image["status"] == "active"]

    def settle(self) -> Run:
        """One further run, after hours, without faults; it has to put everything in order."""
        self.proxy.play(lambda _: Later())
        run = self.replace()
        assert run.exit_code == 0 and self.has_converged(), run.output
        return run


@pytest.fixture
def scene(glancing: Program, shelf: Shelf) -> Iterator[Scene]:
    (glancing.cwd / "disk.raw").write_bytes(NEW)
    marks = {"glancing_identity": "disk", "glancing_name": "disk", "glancing_state": "current"}
    shelf.put("disk", OLD, tags=["glancing"], **marks)
    with FaultProxy(shelf.sandbox.image_url) as proxy:
        yield Scene(glancing, proxy, shelf)


BODIES: Mapping[str, tuple[str, ...]] = {
    "sized": ("disk.raw",),
    "chunked": ("disk.raw.gz",),
    "spooled": ("disk.raw.gz", "--spool"),
}


@pytest.mark.parametrize("when", [When.EARLY, When.LATE])
@pytest.mark.parametrize("body", BODIES)
def test_a_body_is_sent_once_whatever_the_answer(body: str, when: When, scene: Scene) -> None:
    """Fault 39: a body that is sent again after a 401 becomes an active image of another size."""
    (scene.program.cwd / "disk.raw.gz").write_bytes(gzip.compress(NEW))
    scene.proxy.play(on("upload", Answer(401, when=when)))
    run = scene.program.run(
        *("import", *BODIES[body], "-n", "disk"), OS_IMAGE_ENDPOINT_OVERRIDE=scene.proxy.origin
    )
    assert run.exit_code == 0 and run.row["outcome"] == "replaced", run.output
    puts = scene.proxy.of("upload")
    assert len(puts) == len({put.path for put in puts}) == 2
    assert ("transfer-encoding" in puts[0].headers) == (body == "chunked")
    assert scene.has_converged()


class Expiry:
    """A Keystone whose tokens last for seconds, and a Glance that refuses those that ran out.

    What Keystone says of a token is changed on its way; what Glance answers to one that ``expire``
    was called after is 401. ``honest`` tells whether the client hears of the short life.
    """

    def __init__(self, *, honest: bool) -> None:
        self._honest = honest
        self._known: set[str] = set()
        self._expired: frozenset[str] = frozenset()

    def expire(self) -> None:
        """Let all tokens that were seen so far run out."""
        self._expired = frozenset(self._known)

    def keystone(self, exchange: Exchange) -> Fault | None:
        return EditReply(self._shorten) if exchange.phase == "login" and self._honest else None

    def _shorten(self, content: bytes) -> bytes:
        answer = json.loads(content)
        soon = datetime.now(UTC) + timedelta(seconds=5)
        answer["token"]["expires_at"] = soon.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return json.dumps(answer).encode()

    def note(self, exchange: Exchange) -> None:
        """Get to know the token of a request."""
        self._known.add(exchange.headers.get("x-auth-token", ""))

    def is_spent(self, exchange: Exchange) -> bool:
        """Whether the token of a request has run out."""
        return exchange.headers.get("x-auth-token") in self._expired


MOMENTS = [
    *((False, moment) for moment in ("create", "upload", "confirm", "publish", "retire")),
    *((True, moment) for moment in ("upload", "publish")),
]


@pytest.mark.parametrize(("honest", "moment"), MOMENTS)
def test_a_token_that_runs_out_is_renewed(honest: bool, moment: str, scene: Scene) -> None:
    """Fault 40: before each request, and where the client's clock is behind, after the 401."""
    expiry = Expiry(honest=honest)

    def glance(exchange: Exchange) -> Fault | None:
        now = exchange.phase == moment and exchange.turn == 0
        if now and honest:
            expiry.expire()  # all but the one that was made for this request
        expiry.note(exchange)
        if now and not honest:
            expiry.expire()
        return Answer(401, when=When.LATE) if expiry.is_spent(exchange) else None

    scene.proxy.play(glance)
    with FaultProxy(scene.shelf.sandbox.auth_url, expiry.keystone) as keystone:
        run = scene.replace(OS_AUTH_URL=f"{keystone.origin}/v3")
        logins = len(keystone.of("login"))
    assert run.exit_code == 0 and scene.has_converged(), run.output
    puts = scene.proxy.of("upload")
    assert (
        len(puts)
        == len({put.path for put in puts})
        == (2 if not honest and moment == "upload" else 1)
    )
    assert logins > 4 if honest else logins == 2


REQUESTS = range(9)


@pytest.mark.parametrize("index", REQUESTS)
def test_any_answer_may_be_lost(index: int, scene: Scene) -> None:
    """Fault 43: what was asked for may have been done, and is not done twice."""
    scene.proxy.play(at(index, Lose()))
    run = scene.replace()
    assert run.exit_code == 0 and scene.has_converged(), run.output
    assert len(scene.proxy.exchanges) > len(REQUESTS) + 1
    uploads = [put.path for put in scene.proxy.of("upload")]
    assert len(uploads) == len(set(uploads)) <= 2


@pytest.mark.parametrize("fault", [Answer(403), CutReply(20), redirect(TRAP)])
def test_nothing_is_decided_on_half_an_inventory(fault: Fault, scene: Scene) -> None:
    """Faults 41 and 42: the second of the two listings fails."""
    scene.proxy.play(on("list", None, then=fault))
    run = scene.replace()
    assert run.exit_code == 3 and run.rows == [], run.output
    assert {exchange.method for exchange in scene.proxy.exchanges} == {"GET"}
    assert scene.shown() == [sha512(OLD).hexdigest()]


# --- a Glance that is killed ----------------------------------------------------------------------

KILLS: Mapping[str, tuple[str, When]] = {
    "after the record": ("create", When.DONE),
    "within the data": ("upload", When.LATE),
    "after the data": ("upload", When.DONE),
    "before it is published": ("publish", When.EARLY),
    "before the old one is retired": ("retire", When.EARLY),
}


@pytest.mark.parametrize("case", KILLS)
def test_glance_is_killed_and_comes_back(case: str, scene: Scene) -> None:
    """Fault 44: the run goes on where it can; if not, one further run puts things in order."""
    phase, when = KILLS[case]
    sandbox = scene.shelf.sandbox

    def restart() -> None:
        sandbox.stop_glance(kill=True)
        sandbox.start_glance()

    kill = Call(restart, when, 5000, go_on=when is not When.DONE)
    scene.proxy.play(on(phase, kill))
    run = scene.replace()
    assert run.row["outcome"] == ("failed" if run.exit_code else "replaced"), run.output
    assert set(scene.shown()) <= {sha512(OLD).hexdigest(), sha512(NEW).hexdigest()}
    assert scene.shown()
    if run.exit_code or not scene.has_converged():
        scene.settle()


# --- backups --------------------------------------------------------------------------------------

COPIES: Mapping[str, Fault] = {
    "cut": CutReply(5000),
    "unavailable": Answer(503),
    "without data": Answer(204),
    "a wrong byte": FlipReply(5000),
    "a redirect": redirect(TRAP),
}


@pytest.mark.parametrize("case", COPIES)
def test_a_copy_that_is_not_the_old_image_is_none(case: str, scene: Scene) -> None:
    """Fault 47: without a verified copy nothing is replaced."""
    folder = scene.program.cwd / "backups"
    folder.mkdir()
    scene.proxy.play(on("download", then=COPIES[case]))
    run = scene.replace("-b", "backups")
    assert run.exit_code == 1 and run.row["error"]["kind"] == "backup-failed", run.output
    assert list(folder.iterdir()) == []
    assert scene.shown() == [sha512(OLD).hexdigest()] and scene.shelf.incoming() == []
    assert len(scene.proxy.of("upload")) <= 3


def test_a_copy_is_tried_again(scene: Scene) -> None:
    """Fault 47: what passes costs no more than another attempt."""
    (scene.program.cwd / "backups").mkdir()
    scene.proxy.play(on("download", CutReply(5000)))
    run = scene.replace("-b", "backups")
    assert run.exit_code == 0 and scene.has_converged(), run.output
    (copy,) = (scene.program.cwd / "backups").iterdir()
    assert copy.read_bytes() == OLD and run.row["backup_path"].endswith(copy.name)


# --- images that are not ours to touch ------------------------------------------------------------


def test_a_protected_image_is_replaced_and_stays_protected(scene: Scene) -> None:
    """Fault 48: a protected image may be renamed and not deleted, and nobody wants to."""
    scene.shelf.change(scene.shelf.named("disk"), protected=True)
    run = scene.replace()
    assert run.exit_code == 0 and scene.has_converged(), run.output
    assert scene.shelf.named("disk")["protected"] and scene.shelf.named("disk_old")["protected"]


@pytest.fixture
def stranger(sandbox: Sandbox) -> Iterator[Login]:
    delete_images(sandbox, sandbox.other)
    with Login(sandbox.other) as login:
        yield login
    delete_images(sandbox, sandbox.other)


def test_images_of_others_with_the_same_name_are_nothing_to_us(
    scene: Scene, stranger: Login
) -> None:
    """Fault 49: community and shared images of the name, and a hidden one with our marks."""
    url = f"{scene.shelf.sandbox.image_url}/v2/images"
    marks = {"tags": ["glancing"], "glancing_identity": "disk", "glancing_state": "incoming"}
    kinds = ({"visibility": "community"}, {"visibility": "shared"}, {"os_hidden": True, **marks})
    theirs = []
    for fields in kinds:
        formats = {"name": "disk", "disk_format": "raw", "container_format": "bare"}
        made = stranger.call("POST", url, json={**formats, **fields}).json()
        octets = {"Content-Type": "application/octet-stream"}
        stranger.call("PUT", f"{url}/{made['id']}/file", data=NEW, headers=octets)
        theirs.append(made["id"])
    stranger.call("POST", f"{url}/{theirs[1]}/members", json={"member": scene.shelf.project_id})
    before = [stranger.call("GET", f"{url}/{image_id}").json() for image_id in theirs]
    scene.proxy.play(lambda _: Later())
    run = scene.replace()
    assert run.exit_code == 0 and scene.has_converged(), run.output
    assert [stranger.call("GET", f"{url}/{image_id}").json() for image_id in theirs] == before
