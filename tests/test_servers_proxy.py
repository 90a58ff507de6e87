"""The proxy that lets requests to a real Glance fail: each fault, with both framings of a body."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import requests

from tests import images
from tests.conftest import empty
from tests.program import wait_until
from tests.sandbox.uwsgi import free_ports
from tests.servers import (
    Answer,
    BadServer,
    Break,
    Call,
    Cut,
    CutReply,
    EditReply,
    Fault,
    FaultProxy,
    Flip,
    FlipReply,
    Lose,
    When,
    at,
    head,
    on,
    redirect,
    stall,
)
from tests.shelf import PATCH_TYPE, Image, Shelf

OCTETS = "application/octet-stream"
DATA = images.raw(2 * images.MIB)
FLIPPED = DATA[:70_000] + bytes((DATA[70_000] ^ 1,)) + DATA[70_001:]
FRAMINGS: Mapping[str, Callable[[bytes], bytes | Iterator[bytes]]] = {
    "sized": lambda data: data,
    "chunked": lambda data: (data[start : start + 60_000] for start in range(0, len(data), 60_000)),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A fault of an upload: the status that the client sees, and what Glance keeps."""

    fault: Fault | None
    status: int | None
    stored: bytes | None
    whole: bool = True


CASES: Mapping[str, Case] = {
    "none": Case(None, 204, DATA),
    "an early answer": Case(Answer(503), 503, None, whole=False),
    "a late answer": Case(Answer(401, when=When.LATE), 401, None),
    "another answer": Case(Answer(500, when=When.DONE), 500, DATA),
    "a lost answer": Case(Lose(), None, DATA),
    "cut before": Case(Cut(), None, None, whole=False),
    "cut in the middle": Case(Cut(70_000), None, None, whole=False),
    "cut after": Case(Cut(len(DATA) - 1, Break.CLOSE), None, None, whole=False),
    "a flipped bit": Case(Flip(70_000), 204, FLIPPED),
}


@dataclass(frozen=True, slots=True)
class Client:
    """Asks Glance through the proxy, with a token of the member's."""

    proxy: FaultProxy
    stock: Shelf
    token: str

    def make(self) -> Image:
        """A record without data; not by way of the proxy."""
        fields = {"name": "disk", "disk_format": "raw", "container_format": "bare"}
        url = f"{self.stock.sandbox.image_url}/v2/images"
        made: Image = self.stock.login.call("POST", url, json=fields).json()
        return made

    def put(self, image: Image, framing: str) -> requests.Response | None:
        return self.ask("PUT", image, "/file", data=FRAMINGS[framing](DATA), kind=OCTETS)

    def ask(
        self,
        method: str,
        image: Image,
        path: str = "",
        *,
        data: bytes | Iterator[bytes] = b"",
        kind: str = "application/json",
    ) -> requests.Response | None:
        """The answer, or None where there is none."""
        url = f"{self.proxy.origin}/v2/images/{image['id']}{path}"
        headers = {"X-Auth-Token": self.token, "Content-Type": kind}
        with requests.Session() as session:
            session.trust_env = False
            try:
                return session.request(
                    method, url, data=data, headers=headers, timeout=30, allow_redirects=False
                )
            except requests.RequestException:
                return None


@pytest.fixture(scope="module")
def client(stock: Shelf) -> Iterator[Client]:
    empty(stock)
    with FaultProxy(stock.sandbox.image_url) as proxy:
        stock.login.call("GET", f"{proxy.origin}/v2/images?limit=1")
        (seen,) = proxy.exchanges
        assert (seen.phase, seen.status) == ("list", 200)
        yield Client(proxy, stock, seen.headers["x-auth-token"])
    empty(stock)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("case", CASES)
def test_what_a_fault_does_to_an_upload(case: str, framing: str, client: Client) -> None:
    wanted, made = CASES[case], client.make()
    client.proxy.play(on("upload", wanted.fault))
    answer = client.put(made, framing)
    assert (None if answer is None else answer.status_code) == wanted.status
    (seen,) = client.proxy.exchanges
    assert (seen.index, seen.phase, seen.method) == (0, "upload", "PUT")
    assert seen.whole == wanted.whole and (seen.body_bytes == len(DATA) or not seen.whole)
    settle(client, made["id"])
    assert stored(client, made) == wanted.stored


def settle(client: Client, image_id: str) -> None:
    """Glance puts a record back in order a moment after its upload broke off."""
    wait_until(lambda: client.stock.get(image_id)["status"] != "saving", "the upload is over")


def stored(client: Client, made: Image) -> bytes | None:
    if client.stock.get(made["id"])["status"] != "active":
        return None
    url = f"{client.stock.sandbox.image_url}/v2/images/{made['id']}/file"
    return client.stock.login.call("GET", url).content


@pytest.fixture
def kept(client: Client) -> Image:
    """An image with data."""
    made = client.make()
    client.proxy.play(on("upload"))
    assert client.put(made, "sized") is not None
    return made


DOWNLOADS: Mapping[str, tuple[Fault, bytes | None]] = {
    "as it is": (Fault(), DATA),
    "cut": (CutReply(70_000), None),
    "a flipped bit": (FlipReply(70_000), FLIPPED),
    "another status": (Answer(503), b""),
    "an edited answer": (EditReply(lambda data: data[:3]), DATA[:3]),
    "an answer after the fact": (Answer(200, content=b"x", when=When.DONE), b"x"),
}


def test_what_faults_do_to_a_download(client: Client, kept: Image) -> None:
    found = {}
    for case, (fault, _) in DOWNLOADS.items():
        client.proxy.play(at(0, fault))
        answer = client.ask("GET", kept, "/file")
        found[case] = None if answer is None else answer.content
    assert found == {case: data for case, (_, data) in DOWNLOADS.items()}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_calls_come_at_their_moment(framing: str, client: Client) -> None:
    made = client.make()
    moments: dict[str, tuple[int, int | None]] = {}

    def note(moment: str) -> Callable[[], None]:
        def look() -> None:
            seen = client.proxy.exchanges[0]
            moments[moment] = (seen.body_bytes, seen.status)

        return look

    for when in When:
        client.proxy.play(at(0, Call(note(when.value), when, 70_000)))
        client.put(made, framing)
        made = client.make()
    assert moments["early"] == (0, None)
    assert 70_000 <= moments["late"][0] < 200_000 and moments["late"][1] is None
    assert moments["done"] == (len(DATA), 204)


@pytest.mark.parametrize(
    ("when", "done"), [(When.EARLY, False), (When.LATE, False), (When.DONE, True)]
)
def test_a_call_may_end_a_request(when: When, done: bool, client: Client) -> None:
    made = client.make()
    client.proxy.play(at(0, Call(lambda: None, when, 70_000, go_on=False)))
    assert client.put(made, "chunked") is None
    settle(client, made["id"])
    assert (stored(client, made) == DATA) == done


def test_a_stalled_request_goes_on_after_the_event(client: Client, kept: Image) -> None:
    go_on = threading.Event()
    client.proxy.play(at(0, stall(go_on)))
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(client.ask, "GET", kept)
        wait_until(lambda: bool(client.proxy.exchanges), "the request has come")
        assert client.proxy.exchanges[0].status is None and not asked.done()
        go_on.set()
        answer = asked.result()
    assert answer is not None and answer.json()["id"] == kept["id"]


def test_a_redirect_names_the_trap(client: Client, kept: Image) -> None:
    with BadServer([head(200, content_length=0)]) as trap:
        client.proxy.play(on("confirm", redirect(trap.url("/trap"))))
        answer = client.ask("GET", kept)
        assert answer is not None
        assert (answer.status_code, answer.headers["location"]) == (307, trap.url("/trap"))
        assert client.ask("GET", kept) is not None and trap.connections == 0


PATCHES: Mapping[str, list[dict[str, object]]] = {
    "publish": [
        {"op": "replace", "path": "/name", "value": "new"},
        {"op": "replace", "path": "/os_hidden", "value": False},
        {"op": "add", "path": "/glancing_state", "value": "current"},
    ],
    "retire": [
        {"op": "replace", "path": "/name", "value": "new_old"},
        {"op": "replace", "path": "/os_hidden", "value": True},
        {"op": "add", "path": "/glancing_state", "value": "backup"},
    ],
    "update": [{"op": "add", "path": "/version", "value": "2"}],
}


def test_requests_are_named_by_their_phase(client: Client, kept: Image) -> None:
    client.proxy.play(lambda _: None)
    for operations in PATCHES.values():
        client.ask("PATCH", kept, data=json.dumps(operations).encode(), kind=PATCH_TYPE)
    for method, path in (("GET", ""), ("GET", "/file"), ("GET", "/members"), ("DELETE", "")):
        client.ask(method, kept, path)
    names = [*PATCHES, "confirm", "download", "members", "delete"]
    assert client.proxy.phases == names
    assert [seen.status for seen in client.proxy.exchanges[:5]] == [200] * 5
    assert [seen.turn for seen in client.proxy.exchanges] == [0] * len(names)


def test_a_service_that_is_not_there_looks_like_a_closed_connection() -> None:
    (port,) = free_ports(1)
    with FaultProxy(f"http://127.0.0.1:{port}") as proxy, pytest.raises(requests.ConnectionError):
        requests.get(proxy.origin, timeout=30, proxies={"http": ""})
