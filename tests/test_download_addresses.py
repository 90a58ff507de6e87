"""Faults 15 and 16, and promises P7 and P8, on real sockets.

Traps are servers that nobody may reach; they listen on loopback under names that the operator did
not give.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from glancing.addresses import AddressRules, parse_network
from glancing.download import HttpSettings, HttpSources
from glancing.errors import DownloadError, ErrorKind, InterruptedRunError
from glancing.model import RetryPolicy, Url
from glancing.source_auth import Logins, parse_logins
from tests.servers import Authority, BadServer, Request, head
from tests.test_download import Recorder, SystemClock, no_outside_settings

__all__ = ["no_outside_settings"]  # a fixture for every test here


ONCE = RetryPolicy(attempts=1, first_wait_s=0.001, longest_wait_s=0.01)
LOOPBACK = AddressRules((parse_network("127.0.0.0/8"), parse_network("::1")))
DATA = b"bytes of an image"


def sources(stop: threading.Event | None = None, **settings: Any) -> HttpSources:
    limits = {"connect_timeout_s": 5, "stall_s": 5, "retry": ONCE, **settings}
    return HttpSources(
        events=Recorder(), clock=SystemClock(), settings=HttpSettings(**limits), stop=stop
    )


def served() -> list[bytes]:
    return [head(content_length=len(DATA)), DATA]


def redirect(target: str) -> list[bytes]:
    return [head(302, location=target, content_length=0)]


def parse_file(data: bytes) -> Logins:
    return parse_logins(data, Path())


def names(table: dict[str, list[list[str]]]) -> Callable[[str, int], Iterable[str]]:
    """A resolver that gives a name its next answer each time it is asked."""

    def look_up(host: str, port: int) -> list[str]:
        if host not in table:
            return [str(socket.getaddrinfo(host, port)[0][4][0])]
        answers = table[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    return look_up


@pytest.mark.parametrize(
    "target",
    [
        "http://localhost:{port}/",
        "http://127.0.0.2:{port}/",
        "http://127.1:{port}/x",
        "http://2130706433:{port}/",
        "http://0x7f000002:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[::1]:{port}/",
        "http://0:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1%25lo]:{port}/",
        "http://inside.example.org:{port}/",
        "http://both.example.org:{port}/",
    ],
)
def test_a_redirect_does_not_lead_inside(target: str) -> None:
    """Fault 15: a server on the outside points to the inside; nothing is sent there."""
    table = {
        "inside.example.org": [["10.0.0.1", "127.0.0.1"]],
        "both.example.org": [["::1", "169.254.169.254"]],
    }
    with BadServer(served()) as trap, BadServer(redirect(target.format(port=trap.port))) as front:
        http = sources(resolver=names(table))
        http.vouch([Url(front.url())])
        with pytest.raises(DownloadError) as caught, http.open(Url(front.url())):
            pass
        assert caught.value.kind is ErrorKind.FORBIDDEN_ADDRESS
        assert not caught.value.transient
        assert (trap.connections, trap.requests) == (0, [])


def test_what_remote_words_name_is_judged_without_a_redirect_as_well() -> None:
    """Fault 15: the address of a remote list or of metadata."""
    with BadServer(served()) as trap:
        for use in (http_open, http_probe, http_read):
            with pytest.raises(DownloadError) as caught:
                use(sources(), Url(trap.url()))
            assert caught.value.kind is ErrorKind.FORBIDDEN_ADDRESS
        assert trap.connections == 0


def http_open(http: HttpSources, url: Url) -> None:
    with http.open(url):
        pass


def http_probe(http: HttpSources, url: Url) -> None:
    http.probe(url)


def http_read(http: HttpSources, url: Url) -> None:
    http.read(url, 1000)


def test_a_name_that_changes_its_meaning_gains_nothing() -> None:
    """Fault 15: DNS rebinding, between two connections to one name."""
    table = {"mirror.example.org": [["127.0.0.1"], ["169.254.169.254"]]}
    with BadServer(served()) as server:
        http = sources(resolver=names(table), addresses=LOOPBACK)
        url = Url(f"http://mirror.example.org:{server.port}/image")
        assert http.read(url, 1000) == DATA
        with pytest.raises(DownloadError, match="link-local") as caught:
            http.read(url, 1000)
        assert caught.value.kind is ErrorKind.FORBIDDEN_ADDRESS
        assert server.connections == 1


def test_of_several_addresses_those_that_may_be_read_from_are_used() -> None:
    table = {"mirror.example.org": [["10.0.0.1", "127.0.0.1"]]}
    with BadServer(served()) as server:
        http = sources(resolver=names(table), addresses=LOOPBACK)
        assert http.read(Url(f"http://mirror.example.org:{server.port}/"), 1000) == DATA


@pytest.mark.parametrize("how", ["vouched", "allowed"])
def test_the_operators_word_opens_the_inside(how: str) -> None:
    """Fault 15: a private mirror, named by a local list or allowed as a network."""
    with BadServer(served()) as inner:
        target = f"http://localhost:{inner.port}/image"
        with BadServer(redirect(target)) as front:
            http = sources(addresses=LOOPBACK if how == "allowed" else AddressRules())
            named = [Url(front.url())] + ([Url(target)] if how == "vouched" else [])
            http.vouch(named)
            assert http.read(Url(front.url()), 1000) == DATA


@pytest.mark.parametrize("vouched", [True, False])
def test_a_proxy_is_the_operators_word(vouched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 15: names are the proxy's to look up, literal addresses are judged."""
    with BadServer(served()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.origin)
        monkeypatch.setenv("no_proxy", "")
        http = sources()
        assert http.read(Url("http://inside.example.org/image"), 1000) == DATA
        with pytest.raises(DownloadError) as caught:
            http.read(Url("http://10.0.0.1/image"), 1000)
        assert caught.value.kind is ErrorKind.FORBIDDEN_ADDRESS
        if vouched:
            http.vouch([Url("http://10.0.0.1/")])
            assert http.read(Url("http://10.0.0.1/image"), 1000) == DATA
        assert [request.path for request in proxy.requests] == (
            ["http://inside.example.org/image"] + ["http://10.0.0.1/image"] * vouched
        )


# --- logins ---------------------------------------------------------------------------------------


def authorised(request: Request) -> list[bytes]:
    return served() if "authorization" in request.headers else [head(401, content_length=0)]


def test_a_login_goes_to_its_origin_alone() -> None:
    """Fault 16: neither a redirect nor another port of the same host gets it."""
    with (
        BadServer(served()) as other,
        BadServer(redirect(f"http://127.0.0.1:{other.port}/image")) as front,
    ):
        logins = parse_file(f"http://127.0.0.1:{front.port}: {{bearer: TOKEN}}".encode())
        http = sources(addresses=LOOPBACK, logins=logins)
        assert http.read(Url(front.url()), 1000) == DATA
        assert front.requests[0].headers["authorization"] == "Bearer TOKEN"
        assert "authorization" not in other.requests[0].headers


@pytest.mark.parametrize(
    ("login", "header", "value"),
    [
        ("basic: {username: reader, password: pass}", "authorization", "Basic cmVhZGVyOnBhc3M="),
        ("bearer: TOKEN", "authorization", "Bearer TOKEN"),
        ("header: {name: X-Api-Key, value: KEY}", "x-api-key", "KEY"),
    ],
)
def test_kinds_of_logins(login: str, header: str, value: str) -> None:
    with BadServer(served()) as server:
        logins = parse_file(f"{server.origin}: {{{login}}}".encode())
        assert sources(addresses=LOOPBACK, logins=logins).read(Url(server.url()), 1000) == DATA
        assert server.requests[0].headers[header] == value


def test_a_bare_host_gets_no_login_unencrypted() -> None:
    with BadServer(served()) as server:
        logins = parse_file(f"127.0.0.1:{server.port}: {{bearer: TOKEN}}".encode())
        sources(addresses=LOOPBACK, logins=logins).read(Url(server.url()), 1000)
        assert "authorization" not in server.requests[0].headers


def test_a_client_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    context = authority.server()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    (key,) = tmp_path.glob("server*.key")
    with BadServer(served(), tls=context) as server:
        pair = f"{{certificate: {{file: {key.with_suffix('.pem')}, key: {key}}}}}"
        logins = parse_file(f"127.0.0.1:{server.port}: {pair}".encode())
        assert sources(addresses=LOOPBACK, logins=logins).read(Url(server.url()), 1000) == DATA
        with pytest.raises(DownloadError):
            sources(addresses=LOOPBACK).read(Url(server.url()), 1000)


@pytest.mark.parametrize("asked", [True, False])
def test_a_netrc_is_read_only_when_asked_for(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login reader password pass\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with BadServer(authorised) as server:
        http = sources(addresses=LOOPBACK, netrc=asked)
        if asked:
            assert http.read(Url(server.url()), 1000) == DATA
        else:
            with pytest.raises(DownloadError, match="401"):
                http.read(Url(server.url()), 1000)


# --- waiting --------------------------------------------------------------------------------------


@contextmanager
def dripping() -> Iterator[BadServer]:
    """A server whose headers never end, though never a second goes by without a byte."""
    pause = threading.Event()

    def drip(_request: Request) -> Iterable[Any]:
        yield b"HTTP/1.1 200 OK\r\nX-Slow: "
        while True:
            yield threading.Event() if pause.is_set() else b"."
            pause.wait(0.02)

    with BadServer(drip) as server:
        yield server
        pause.set()


def test_headers_that_come_byte_by_byte_are_given_up() -> None:
    """Fault 10 and P8: a timeout of single receives would never run out."""
    with dripping() as server, pytest.raises(DownloadError) as caught:
        sources(addresses=LOOPBACK, stall_s=0.5).read(Url(server.url()), 1000)
    assert caught.value.kind is ErrorKind.STALLED


@pytest.mark.parametrize("use", [http_open, http_probe, http_read])
def test_a_run_that_is_told_to_stop_does_not_wait_for_headers(
    use: Callable[[HttpSources, Url], None],
) -> None:
    """Fault 50: SIGTERM while a server is silent."""
    stop, asked = threading.Event(), threading.Event()

    def silent(_request: Request) -> Iterable[Any]:
        asked.set()
        yield threading.Event()

    def end() -> None:
        asked.wait(10)
        stop.set()

    with BadServer(silent) as server:
        ending = threading.Thread(target=end)
        ending.start()
        with pytest.raises(InterruptedRunError):
            use(sources(stop, addresses=LOOPBACK, stall_s=60), Url(server.url()))
        ending.join()
