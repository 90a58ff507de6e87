"""Downloads against servers that lie, stall and break; see ``tests/servers``."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from glancing.download import PIECE_BYTES, HttpSettings, HttpSources, HttpStream
from glancing.errors import DownloadError, ErrorKind, GlancingError, InterruptedRunError
from glancing.model import RetryPolicy, Url, Validators
from tests.servers import Action, Authority, BadServer, Break, ImageServer, Request, Served, head

DATA = hashlib.shake_256(b"image").digest(1000)
BIG = hashlib.shake_256(b"big").digest(3_000_000)
QUICK = HttpSettings(
    connect_timeout_s=5,
    stall_s=5,
    retry=RetryPolicy(attempts=3, first_wait_s=0.001, longest_wait_s=0.01),
)
IMPATIENT = HttpSettings(stall_s=0.2, floor_bytes=100, retry=QUICK.retry)
STRONG: dict[str, Any] = {"etag": '"1"', "accept_ranges": "bytes"}


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()


class SetClock(SystemClock):
    """Goes on by ``step_s`` each time it is looked at."""

    def __init__(self, now: datetime | None = None, step_s: float = 0) -> None:
        self._now = now or datetime.now(UTC)
        self._step_s = step_s
        self._passed_s = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        self.pass_s(self._step_s)
        return self._passed_s

    def pass_s(self, seconds: float) -> None:
        self._passed_s += seconds


class Recorder:
    """Events as (name, fields)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def debug(self, event: str, **fields: Any) -> None:
        self.seen.append((event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.seen.append((event, fields))

    warning = error = info

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.seen if name == event]


@pytest.fixture(autouse=True)
def no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine that runs the tests has set for its own downloads."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def events() -> Recorder:
    return Recorder()


@pytest.fixture
def sources(events: Recorder) -> Iterator[HttpSources]:
    made = make(events)
    yield made
    made.close()


def make(
    events: Recorder | None = None, settings: HttpSettings = QUICK, **rest: Any
) -> HttpSources:
    rest.setdefault("clock", SystemClock())
    made = HttpSources(events=events or Recorder(), settings=settings, **rest)
    made.vouch([Url("http://127.0.0.1/")])  # a test is the operator of its own servers
    return made


def download(sources: HttpSources, url: str) -> bytes:
    with sources.open(Url(url)) as stream:
        return b"".join(stream)


def failure(sources: HttpSources, url: str) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        download(sources, url)
    return caught.value


def ranges(server: BadServer) -> list[str | None]:
    return [request.headers.get("range") for request in server.requests]


def whole(data: bytes = DATA, **headers: str | int) -> list[Action]:
    return [head(200, content_length=len(data), **headers), data]


def cut(at: int = 500, **headers: str | int) -> list[Action]:
    return [head(200, content_length=len(DATA), **headers), DATA[:at]]


def part(start: int, data: bytes = DATA, **headers: str | int) -> list[Action]:
    rest = data[start:]
    content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
    return [head(206, content_length=len(rest), content_range=content_range, **headers), rest]


# --- bytes as they are ----------------------------------------------------------------------------


def test_a_file_arrives_as_it_is(sources: HttpSources) -> None:
    with (
        ImageServer({"/image": BIG}) as server,
        sources.open(Url(server.url())) as stream,
    ):
        assert stream.size_bytes == len(BIG) and stream.end_is_proven
        assert stream.validators == Validators(etag='"1"', size_bytes=len(BIG))
        pieces = list(stream)
    assert b"".join(pieces) == BIG and max(map(len, pieces)) <= PIECE_BYTES
    sent = server.requests[0].headers
    assert sent["accept-encoding"] == "identity" and sent["user-agent"].startswith("glancing/")


def test_chunks_prove_the_end(sources: HttpSources) -> None:
    with (
        ImageServer({"/image": Served(BIG, chunked=True)}) as server,
        sources.open(Url(server.url())) as stream,
    ):
        assert stream.size_bytes is None and stream.end_is_proven
        assert b"".join(stream) == BIG


@pytest.mark.parametrize("headers", [{}, {"content_length": -1}, {"content_length": "x"}])
def test_without_framing_the_end_proves_nothing(
    sources: HttpSources, headers: dict[str, Any]
) -> None:
    """Faults 2 and 4: a cut and an end look the same."""
    with (
        BadServer([head(200, **headers), DATA[:500]]) as server,
        sources.open(Url(server.url())) as stream,
    ):
        assert stream.size_bytes is None and not stream.end_is_proven
        assert b"".join(stream) == DATA[:500]


def test_a_length_that_is_too_small_ends_the_body(sources: HttpSources) -> None:
    """Fault 4: only a digest or a declared size can tell."""
    with BadServer([head(200, content_length=400), DATA]) as server:
        assert download(sources, server.url()) == DATA[:400]


def test_two_lengths_are_refused(sources: HttpSources) -> None:
    """Fault 4."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello"
    with BadServer([raw]) as server:
        assert "two lengths" in failure(sources, server.url()).message
    assert len(server.requests) == 1


def test_chunks_overrule_a_length(sources: HttpSources) -> None:
    """Fault 4."""
    raw = head(200, content_length=3, transfer_encoding="chunked") + b"5\r\nhello\r\n0\r\n\r\n"
    with BadServer([raw]) as server, sources.open(Url(server.url())) as stream:
        assert stream.size_bytes is None and b"".join(stream) == b"hello"


@pytest.mark.parametrize("label", ["gzip", "x-gzip", "GZip"])
def test_a_gz_labelled_as_encoded_is_the_gz(sources: HttpSources, label: str) -> None:
    """Fault 11: never inflated, the digest is of the .gz."""
    packed = gzip.compress(DATA)
    body = [head(200, content_length=len(packed), content_encoding=label), packed[:1], packed[1:]]
    with BadServer(body) as server:
        assert download(sources, server.url()) == packed


@pytest.mark.parametrize("label", ["gzip", "br", "gzip, gzip", "deflate"])
def test_other_encodings_are_refused(sources: HttpSources, label: str) -> None:
    """Fault 11."""
    with BadServer(whole(content_encoding=label)) as server:
        error = failure(sources, server.url())
    assert not error.transient and len(server.requests) == 1


# --- resuming -------------------------------------------------------------------------------------


def test_a_cut_is_resumed_once_where_it_was(sources: HttpSources, events: Recorder) -> None:
    """Fault 1."""
    with ImageServer({"/image": Served(DATA, cut_after=500)}) as server:
        assert download(sources, server.url()) == DATA
    assert ranges(server) == [None, "bytes=500-"]
    assert server.requests[1].headers["if-range"] == '"1"'
    assert [fields["offset_bytes"] for fields in events.named("download.resumed")] == [500]


def test_a_cut_between_chunks_is_resumed(sources: HttpSources) -> None:
    """Fault 3."""
    chunk = b"1f4\r\n" + DATA[:500] + b"\r\n"
    first = [head(200, transfer_encoding="chunked", **STRONG), chunk]
    with BadServer(first, part(500, **STRONG)) as server:
        assert download(sources, server.url()) == DATA
    assert ranges(server) == [None, "bytes=500-"]


def test_a_reset_is_resumed(sources: HttpSources) -> None:
    received = threading.Event()
    first = [*cut(**STRONG), received, Break.RESET]
    with (
        BadServer(first, part(500, **STRONG)) as server,
        sources.open(Url(server.url())) as stream,
    ):
        pieces = iter(stream)
        start = next(pieces)
        received.set()
        assert start + b"".join(pieces) == DATA


def test_old_dates_validate_a_resume_and_young_ones_do_not(sources: HttpSources) -> None:
    """RFC 9110, section 8.8.2.2."""
    date = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for age_s, expected in ((60, "bytes=500-"), (59, None)):
        modified = format_datetime(date - timedelta(seconds=age_s), usegmt=True)
        headers: dict[str, Any] = {
            "last_modified": modified,
            "date": format_datetime(date, usegmt=True),
            "accept_ranges": "bytes",
        }
        rest = part(500, **headers) if expected else whole(**headers)
        with BadServer(cut(**headers), rest) as server:
            assert download(sources, server.url()) == DATA
        assert ranges(server) == [None, expected]
        assert server.requests[1].headers.get("if-range") == (modified if expected else None)


@pytest.mark.parametrize(
    "headers", [{}, {"etag": 'W/"1"', "accept_ranges": "bytes"}, {"etag": '"1"'}]
)
def test_without_safe_ranges_the_source_is_read_again_and_compared(
    sources: HttpSources, headers: dict[str, Any]
) -> None:
    """Faults 5 and 7: no validator, a weak one, no ranges."""
    with BadServer(cut(**headers), cut(700, **headers), whole(**headers)) as server:
        assert download(sources, server.url()) == DATA
    assert ranges(server) == [None, None, None]


def test_a_source_that_reads_differently_is_not_mixed(sources: HttpSources) -> None:
    """Faults 5 and 7: the digest over what was handed out tells."""
    with BadServer(cut(), whole(DATA[::-1])) as server:
        error = failure(sources, server.url())
    assert "changed" in error.message and error.transient and len(server.requests) == 2


def test_a_server_that_ignores_ranges_is_read_again(sources: HttpSources) -> None:
    """Fault 5: the same strong ETag says that all bytes are the same."""
    with BadServer(cut(**STRONG), cut(600, **STRONG), whole(**STRONG)) as server:
        assert download(sources, server.url()) == DATA
    assert ranges(server) == [None, "bytes=500-", None]


def test_a_new_etag_ends_the_attempt(sources: HttpSources) -> None:
    """Fault 7: never a mix of two versions, even of one length."""
    other = whole(DATA[::-1], etag='"2"', accept_ranges="bytes")
    with BadServer(cut(**STRONG), other) as server:
        error = failure(sources, server.url())
    assert error.transient and error.kind is ErrorKind.CHANGED and len(server.requests) == 2


@pytest.mark.parametrize(
    "content_range", ["bytes 0-499/1000", "bytes 500-998/999", "bytes 5000-5999/6000", ""]
)
def test_another_part_than_asked_for_is_not_used(sources: HttpSources, content_range: str) -> None:
    """Fault 6."""
    wrong = [head(206, content_length=500, content_range=content_range, **STRONG), DATA[:500]]
    with BadServer(cut(**STRONG), wrong, whole(**STRONG)) as server:
        assert download(sources, server.url()) == DATA
    assert ranges(server) == [None, "bytes=500-", None]


def test_a_part_that_stops_early_is_gone_on_from(sources: HttpSources) -> None:
    """A server may send less than the range asked for (RFC 9110, section 15.3.7)."""
    short = [head(206, content_length=200, content_range="bytes 500-699/1000"), DATA[500:700]]
    with BadServer(cut(**STRONG), short, part(700, **STRONG)) as server:
        assert download(sources, server.url()) == DATA
    assert ranges(server) == [None, "bytes=500-", "bytes=700-"]


def test_a_part_with_another_etag_is_not_used(sources: HttpSources) -> None:
    wrong = part(500, DATA[::-1], etag='"2"')
    with BadServer(cut(**STRONG), wrong, whole(**STRONG)) as server:
        assert download(sources, server.url()) == DATA


def test_no_range_left_is_the_end_when_all_had_arrived(sources: HttpSources) -> None:
    """Fault 8: chunks all here, only their end was cut."""
    first = [head(200, transfer_encoding="chunked", **STRONG), b"3e8\r\n" + DATA]
    nothing = [head(416, content_length=0, content_range="bytes */1000")]
    with BadServer(first, nothing) as server:
        assert download(sources, server.url()) == DATA
    assert len(server.requests) == 2


def test_no_range_left_before_the_end_is_no_end(sources: HttpSources) -> None:
    """Fault 8."""
    nothing = [head(416, content_length=0, content_range="bytes */400")]
    with BadServer(cut(**STRONG), nothing, whole(**STRONG)) as server:
        assert download(sources, server.url()) == DATA


def test_attempts_without_progress_are_bounded(sources: HttpSources) -> None:
    empty = [head(206, content_length=500, content_range="bytes 500-999/1000", **STRONG)]
    with BadServer(cut(**STRONG), empty) as server:
        error = failure(sources, server.url())
    assert error.kind is ErrorKind.INCOMPLETE and not error.transient
    assert len(server.requests) == QUICK.retry.attempts


def test_progress_earns_new_attempts_up_to_a_bound() -> None:
    def answer(request: Request) -> list[Action]:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        rest = part(start, **STRONG) if start else whole(**STRONG)
        return [rest[0], DATA[start : start + 100]]

    settings = HttpSettings(retry=QUICK.retry, progress_bytes=100, most_resumes=20)
    with BadServer(answer) as server:
        assert download(make(settings=settings), server.url()) == DATA
    assert len(server.requests) == 10
    bounded = HttpSettings(retry=QUICK.retry, progress_bytes=100, most_resumes=5)
    with BadServer(answer) as server:
        failure(make(settings=bounded), server.url())
    assert len(server.requests) == 6


def test_a_stall_after_a_full_record_is_no_end() -> None:
    """What was gathered is handed out, and the error behind it is not forgotten."""
    opened = threading.Event()
    first: list[Action] = [head(200, **STRONG), opened, BIG[:16384], threading.Event()]
    with (
        BadServer(first, part(16384, BIG, **STRONG)) as server,
        make(settings=IMPATIENT).open(Url(server.url())) as stream,
    ):
        opened.set()
        assert b"".join(stream) == BIG
    assert ranges(server) == [None, "bytes=16384-"]


# --- stalls, stopping -----------------------------------------------------------------------------


def test_silence_is_a_stall_and_is_resumed() -> None:
    """Fault 10."""
    never = threading.Event()
    with BadServer([*cut(**STRONG), never], part(500, **STRONG)) as server:
        assert download(make(settings=IMPATIENT), server.url()) == DATA
    assert ranges(server) == [None, "bytes=500-"]


def test_drops_now_and_then_are_a_stall_too() -> None:
    """Fault 10: each byte comes within the time-out, all together are too few."""
    policy = RetryPolicy(attempts=1)
    settings = HttpSettings(stall_s=60, floor_bytes=10, retry=policy)
    sources = make(settings=settings, clock=SetClock(step_s=40))  # each receive takes 40 s
    first_read = threading.Event()
    drip: list[Action] = [head(200, content_length=1000), b"a", first_read, b"b", threading.Event()]
    with BadServer(drip) as server, sources.open(Url(server.url())) as stream:
        pieces = iter(stream)
        assert next(pieces) == b"a"
        first_read.set()
        with pytest.raises(DownloadError, match="only 2 bytes in 80 s") as caught:
            next(pieces)
    assert caught.value.kind is ErrorKind.STALLED and len(server.requests) == 1


def test_a_slow_consumer_is_no_stall() -> None:
    """Only waiting for the source counts."""
    clock = SetClock()
    settings = HttpSettings(stall_s=60, floor_bytes=2 * len(BIG))
    with ImageServer({"/image": BIG}) as server:
        sources = make(settings=settings, clock=clock)
        with sources.open(Url(server.url())) as stream:
            received = b""
            for piece in stream:
                received += piece
                clock.pass_s(1000)
    assert received == BIG


def test_a_server_that_never_answers_is_a_stall() -> None:
    never = threading.Event()
    with BadServer([never]) as server:
        error = failure(make(settings=IMPATIENT), server.url())
    assert error.kind is ErrorKind.STALLED and not error.transient
    assert len(server.requests) == IMPATIENT.retry.attempts


@contextmanager
def blocked(sources: HttpSources, url: str) -> Iterator[tuple[HttpStream, list[GlancingError]]]:
    """A stream that another thread reads, blocked after its first piece."""
    caught: list[GlancingError] = []
    first = threading.Event()

    def read(stream: HttpStream) -> None:
        try:
            for _ in stream:
                first.set()
        except GlancingError as error:
            caught.append(error)

    with sources.open(Url(url)) as stream:
        thread = threading.Thread(target=read, args=(stream,))
        thread.start()
        assert first.wait(10)
        yield stream, caught
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("framing", [{"content_length": 1000}, {}])
def test_close_ends_a_read_that_blocks(framing: dict[str, Any]) -> None:
    settings = HttpSettings(stall_s=600)
    with (
        BadServer([head(200, **framing), DATA[:500], threading.Event()]) as server,
        blocked(make(settings=settings), server.url()) as (stream, caught),
    ):
        stream.close()
        stream.close()
    assert [type(error) for error in caught] == [InterruptedRunError]


def test_close_ends_a_tls_read_that_blocks(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    script = [*cut(), threading.Event()]
    with (
        BadServer(script, tls=authority.server()) as server,
        blocked(make(settings=HttpSettings(stall_s=600)), server.url()) as (stream, caught),
    ):
        stream.close()
    assert [type(error) for error in caught] == [InterruptedRunError]


def test_the_stop_event_ends_a_stream_at_its_next_piece() -> None:
    stop = threading.Event()
    with (
        ImageServer({"/image": BIG}) as server,
        make(stop=stop).open(Url(server.url())) as stream,
    ):
        pieces = iter(stream)
        next(pieces)
        stop.set()
        with pytest.raises(InterruptedRunError):
            next(pieces)


def test_the_stop_event_ends_a_wait() -> None:
    stop = threading.Event()

    class Stopping(Recorder):
        def warning(self, event: str, **fields: Any) -> None:
            super().info(event, **fields)
            stop.set()

    settings = HttpSettings(retry=RetryPolicy(longest_wait_s=3600))
    with (
        BadServer([head(503, retry_after=3600, content_length=0)]) as server,
        pytest.raises(InterruptedRunError),
    ):
        download(make(Stopping(), settings, stop=stop), server.url())
    assert len(server.requests) == 1


def test_a_stream_is_read_only_once(sources: HttpSources) -> None:
    with ImageServer({"/image": DATA}) as server, sources.open(Url(server.url())) as stream:
        list(stream)
        with pytest.raises(RuntimeError):
            list(stream)


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "attempts"),
    [
        (404, ErrorKind.NOT_FOUND, 1),
        (410, ErrorKind.NOT_FOUND, 1),
        (401, ErrorKind.HTTP_STATUS, 1),
        (403, ErrorKind.HTTP_STATUS, 1),
        (418, ErrorKind.HTTP_STATUS, 1),
        (204, ErrorKind.HTTP_STATUS, 1),
        (304, ErrorKind.HTTP_STATUS, 1),
        (501, ErrorKind.HTTP_STATUS, 1),
        (408, ErrorKind.HTTP_STATUS, 3),
        (429, ErrorKind.HTTP_STATUS, 3),
        (500, ErrorKind.HTTP_STATUS, 3),
        (503, ErrorKind.HTTP_STATUS, 3),
    ],
)
def test_statuses(sources: HttpSources, status: int, kind: ErrorKind, attempts: int) -> None:
    with BadServer([head(status, content_length=0)]) as server:
        error = failure(sources, server.url())
    assert error.kind is kind and str(status) in error.message and not error.transient
    assert len(server.requests) == attempts


def test_an_error_that_passes_is_no_failure(sources: HttpSources, events: Recorder) -> None:
    with BadServer([head(500, content_length=0)], whole()) as server:
        assert download(sources, server.url("/image?token=canary")) == DATA
    (told,) = events.named("download.retried")
    assert told["attempt"] == 1 and "500" in told["reason"] and told["url"] == server.url()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked", "waited_s"),
    [("0", 0), ("7", 7), ("86400", 60), ("Thu, 01 Jan 2026 00:00:20 GMT", 20), ("soon", None)],
)
def test_retry_after_is_heeded(status: int, asked: str, waited_s: float | None) -> None:
    """Fault 18."""
    stop = threading.Event()

    class Stopping(Recorder):
        def warning(self, event: str, **fields: Any) -> None:
            super().info(event, **fields)
            stop.set()

    events = Stopping()
    sources = make(
        events, HttpSettings(), stop=stop, clock=SetClock(datetime(2026, 1, 1, tzinfo=UTC))
    )
    with (
        BadServer([head(status, retry_after=asked, content_length=0)]) as server,
        pytest.raises(InterruptedRunError),
    ):
        download(sources, server.url())
    (told,) = events.named("download.retried")
    assert told["wait_s"] == waited_s if waited_s is not None else told["wait_s"] <= 0.5


# --- redirects and credentials --------------------------------------------------------------------


def redirect(location: str) -> list[Action]:
    return [head(302, location=location, content_length=0)]


def test_redirects_are_followed(sources: HttpSources) -> None:
    with BadServer(redirect("/second?x=1"), redirect("third"), whole()) as server:
        assert download(sources, server.url()) == DATA
    assert [request.path for request in server.requests] == ["/image", "/second?x=1", "/third"]


def test_the_body_of_a_redirect_is_not_read(sources: HttpSources) -> None:
    def endless(_: Request) -> Iterator[Action]:
        yield head(302, location="/second")
        while True:
            yield bytes(65536)

    with BadServer(endless, whole()) as server:
        assert download(sources, server.url()) == DATA


def test_a_redirect_in_a_circle_is_refused(sources: HttpSources) -> None:
    """Fault 12."""
    with BadServer(redirect("/second?token=canary"), redirect("/image")) as server:
        error = failure(sources, server.url())
    assert "circle" in error.message and "/image -> " in error.message
    assert "canary" not in error.message and not error.transient and len(server.requests) == 2


def test_five_redirects_are_followed_and_six_are_not(sources: HttpSources) -> None:
    """Fault 12."""
    hops = [redirect(f"/{number}") for number in range(6)]
    with BadServer(*hops[:5], whole()) as server:
        assert download(sources, server.url()) == DATA
    with BadServer(*hops, whole()) as server:
        assert "more than 5" in failure(sources, server.url()).message
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:,x",
        "gopher:x",
        "http://",
        "http://[",
        "",
        "#x",
    ],
)
def test_redirects_to_what_is_not_http_are_refused(sources: HttpSources, location: str) -> None:
    """Fault 14."""
    with BadServer(redirect(location)) as server:
        error = failure(sources, server.url())
    assert "redirects" in error.message and not error.transient and len(server.requests) == 1


def test_https_is_not_left_for_http(
    sources: HttpSources, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 13: no connection reaches the plain server."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with (
        BadServer(whole()) as plain,
        BadServer(redirect(plain.url()), tls=authority.server()) as secure,
    ):
        error = failure(sources, secure.url())
    assert "https to http" in error.message and plain.connections == 0


def test_user_info_goes_to_its_origin_only(
    sources: HttpSources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 16; a .netrc is not looked at either."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login netrc password netrc\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with BadServer(whole()) as trap:
        same, other = "/again", trap.url("/trap", user="their:own")
        with BadServer(redirect(same), redirect(other)) as server:
            assert download(sources, server.url(user="me:pass%3Aword")) == DATA
    sent = [request.headers.get("authorization") for request in server.requests]
    assert sent == ["Basic bWU6cGFzczp3b3Jk"] * 2  # me:pass:word
    assert "authorization" not in trap.requests[0].headers


def test_cookies_are_not_kept(sources: HttpSources) -> None:
    with BadServer(
        [head(302, location="/b", set_cookie="a=b", content_length=0)], whole()
    ) as server:
        download(sources, server.url())
    assert "cookie" not in server.requests[1].headers


# --- TLS and connections --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_usual_variables_name_the_trusted_certificates(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(authority.file))
    with ImageServer({"/image": DATA}, tls=authority.server()) as server:
        assert download(make(), server.url()) == DATA


@pytest.mark.parametrize(
    ("certificate", "trusted", "reason"),
    [
        (("DNS:elsewhere.example", 2), True, "not valid for"),
        (("IP:127.0.0.1", -1), True, "expired"),
        (("IP:127.0.0.1", 2), False, "issuer|self-signed"),
    ],
)
def test_certificates_that_do_not_hold_end_it_at_once(
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    certificate: tuple[str, int],
    trusted: bool,
    reason: str,
) -> None:
    """Fault 17."""
    names, days = certificate
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with (
        BadServer(whole(), tls=authority.server(names, days=days)) as server,
        pytest.raises(DownloadError, match=reason) as caught,
    ):
        download(make(), server.url())
    assert not caught.value.transient and server.connections == 1


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_refused_connection_is_tried_again(sources: HttpSources, events: Recorder) -> None:
    error = failure(sources, f"http://127.0.0.1:{unused_port()}/image")
    assert error.message.endswith("connection refused") and error.kind is ErrorKind.UNREACHABLE
    assert len(events.named("download.retried")) == QUICK.retry.attempts - 1


def test_an_unknown_host_is_tried_once_more(sources: HttpSources, events: Recorder) -> None:
    error = failure(sources, "http://nowhere.invalid/image")
    assert error.message == "http://nowhere.invalid/image: unknown host"
    assert error.kind is ErrorKind.UNREACHABLE and len(events.named("download.retried")) == 1


@pytest.mark.parametrize(
    "url", ["ftp://host/image", "file:///etc/passwd", "http:///x", "http://a:b/"]
)
def test_what_is_no_http_address_is_refused(sources: HttpSources, url: str) -> None:
    assert not failure(sources, url).transient


def test_a_proxy_of_the_environment_is_used(
    sources: HttpSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BadServer(whole()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.origin)
        assert download(sources, "http://mirror.invalid/image") == DATA
    assert proxy.requests[0].path == "http://mirror.invalid/image"


# --- probing and documents ------------------------------------------------------------------------


def test_a_probe_reads_no_body(sources: HttpSources) -> None:
    with ImageServer({"/image": BIG}) as server:
        assert sources.probe(Url(server.url())) == Validators(etag='"1"', size_bytes=len(BIG))
    assert [request.method for request in server.requests] == ["HEAD"]


@pytest.mark.parametrize("status", [204, 400, 403, 404, 405, 500, 501])
def test_a_probe_falls_back_to_get(sources: HttpSources, status: int) -> None:
    with BadServer([head(status, content_length=0)], cut(etag='"1"')) as server:
        assert sources.probe(Url(server.url())) == Validators(etag='"1"', size_bytes=1000)
    assert [request.method for request in server.requests] == ["HEAD", "GET"]


def test_a_probe_of_nothing_fails(sources: HttpSources) -> None:
    with ImageServer({}) as server, pytest.raises(DownloadError) as caught:
        sources.probe(Url(server.url()))
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_a_document_is_read_whole_and_resumed(sources: HttpSources) -> None:
    with ImageServer({"/list": Served(DATA, cut_after=10)}) as server:
        assert sources.read(Url(server.url("/list")), 1000) == DATA
    assert "application/xml" in server.requests[0].headers["accept"]


def test_a_document_that_changed_meanwhile_is_read_anew(sources: HttpSources) -> None:
    new = whole(DATA[::-1])
    with BadServer(cut(), new, new) as server:
        assert sources.read(Url(server.url()), 1000) == DATA[::-1]
    assert len(server.requests) == 3


def test_a_document_that_goes_on_breaking_is_given_up(sources: HttpSources) -> None:
    with (
        BadServer(cut(), [head(200, content_length=1000)]) as server,
        pytest.raises(DownloadError),
    ):
        sources.read(Url(server.url()), 1000)
    assert len(server.requests) == QUICK.retry.attempts


def test_a_document_beyond_the_cap_is_refused(sources: HttpSources) -> None:
    """P4: neither an announced nor an endless one is held in memory."""

    def endless(_: Request) -> Iterator[Action]:
        yield head(200)
        while True:
            yield bytes(65536)

    answers: tuple[Callable[[Request], Iterator[Action]] | list[Action], ...] = (endless, cut())
    for answer in answers:
        with BadServer(answer) as server, pytest.raises(DownloadError) as caught:
            sources.read(Url(server.url()), 999)
        assert caught.value.kind is ErrorKind.TOO_LARGE and len(server.requests) == 1


# --- secrets --------------------------------------------------------------------------------------

SECRET_PATHS = "/image?token=canary-query#canary-fragment"


@pytest.mark.parametrize(
    "script",
    [
        [head(404, content_length=0)],
        [head(500, content_length=0)],
        [head(302, location="/image?canary", content_length=0)],
        [head(302, location="file:///canary", content_length=0)],
        [head(302, location="http://canary:canary@[/canary", content_length=0)],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n"],
        [b"canary no HTTP at all\r\n\r\n"],
        [head(200, content_length=1000, content_encoding="canary")],
        [head(200, content_length=1000), b"short"],
        [head(200, transfer_encoding="chunked"), b"canary\r\n"],
        [Break.RESET],
        [threading.Event()],
    ],
)
def test_no_secret_is_in_any_error(script: list[Action]) -> None:
    """Fault 56, P6: neither in the error nor in its traceback, nor in events."""
    events = Recorder()
    with BadServer(script) as server:
        url = server.url(SECRET_PATHS, user="canary-user:canary-pass")
        error = failure(make(events, IMPATIENT), url)
    text = "".join(traceback.format_exception(error)) + str(events.seen)
    assert "canary" not in text


@pytest.mark.parametrize(
    "origin", ["http://canary:canary@nowhere.invalid", "http://canary:canary@127.0.0.1:1"]
)
def test_no_secret_is_in_the_error_of_a_connection(origin: str) -> None:
    """Fault 56, P6."""
    events = Recorder()
    error = failure(make(events), origin + SECRET_PATHS)
    text = "".join(traceback.format_exception(error)) + str(events.seen)
    assert "canary" not in text
