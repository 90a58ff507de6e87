"""Reads images and documents over HTTP and HTTPS: the only place that knows ``requests``.

Bytes are taken exactly as they are on the wire, because published digests are of those. A transfer
that breaks is resumed where it stopped, with a guard against mixing two versions of a file:

- With a strong validator (RFC 9110, section 8.8.1) and a server that takes ranges, only the rest is
  asked for, with ``Range`` and ``If-Range``.
- Otherwise the source is read again from its start, and what was handed out already is compared by
  a running digest. That digest is only computed for such sources, as it costs about a second of CPU
  per GiB.

Redirects are followed by hand: few, never from https to http, never to another scheme, never with
credentials. A source that sends nothing, or next to nothing, for a minute counts as stalled.

No error text contains user info, query or fragment of a URL. What ``requests`` and ``urllib3`` say
of a failure does contain them, so their texts are never repeated, and their exceptions are not
chained: the message names their class instead.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from threading import Event
from typing import Any, TypeVar
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth

from glancing import __version__
from glancing.errors import DownloadError, ErrorKind, GlancingError, InterruptedRunError
from glancing.model import MIB, Clock, Events, RetryPolicy, Url, Validators
from glancing.retry import Patience, call

T = TypeVar("T")

PIECE_BYTES = 256 * 1024
TLS_RECORD_BYTES = 16 * 1024  # the largest there is (RFC 8446, section 5.1)
GZIP_MAGIC = b"\x1f\x8b"
SCHEMES = ("http", "https")

# What may be different a little later (RFC 9110, sections 15.5.9 and 15.6; RFC 6585, section 4).
TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})

# Last-Modified is a strong validator only when it is clearly older than the answer
# (RFC 9110, section 8.8.2.2; the minute is that of RFC 7232).
STRONG_AFTER = timedelta(seconds=60)

ACCEPT_ANY = "*/*"
# Metadata services show people a web page, and programs the document when they ask for it.
ACCEPT_DOCUMENT = "application/xml, application/json, text/plain;q=0.9, text/*;q=0.8, */*;q=0.5"


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Limits of a download; times in seconds, sizes in bytes.

    A source is stalled when it sent nothing for ``stall_s``, or less than ``floor_bytes`` in
    ``stall_s`` of waiting for it. After ``progress_bytes`` of progress the failures so far are
    forgotten, but ``most_resumes`` bounds them in all.
    """

    connect_timeout_s: float = 15.0
    stall_s: float = 60.0
    floor_bytes: int = 64 * 1024
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    progress_bytes: int = MIB
    most_resumes: int = 50
    most_redirects: int = 5
    pool_size: int = 10
    user_agent: str = f"glancing/{__version__}"


class HttpSources:
    """Opens, probes and reads ``Url`` locations; safe to use from several threads.

    ``stop`` ends waits at once and open streams at their next piece, with InterruptedRunError.
    """

    def __init__(
        self,
        *,
        events: Events,
        clock: Clock,
        settings: HttpSettings | None = None,
        stop: Event | None = None,
    ) -> None:
        self._settings = settings or HttpSettings()
        self._events = events
        self._clock = clock
        self._stop = stop or Event()
        self._client = _Client(self._settings, clock, events)

    @contextmanager
    def open(self, location: Url) -> Iterator[HttpStream]:
        """The stream of one source, its headers already read; raises DownloadError."""
        with self._stream(location, ACCEPT_ANY) as stream:
            yield stream

    def probe(self, location: Url) -> Validators:
        """What the server says of a file without sending it (HEAD, else GET broken off).

        Only a GET can tell that a file cannot be had: many servers answer HEAD wrongly, and an
        address may be signed for one method.
        """
        return self._repeat(location, lambda: self._probe_once(location))

    def read(self, location: Url, max_bytes: int) -> bytes:
        """A whole document; raises DownloadError, TOO_LARGE when it is beyond ``max_bytes``."""
        return self._repeat(location, lambda: self._read_once(location, max_bytes))

    def close(self) -> None:
        """Give the idle connections back."""
        self._client.close()

    @contextmanager
    def _stream(self, location: Url, accept: str) -> Iterator[HttpStream]:
        stream = HttpStream(self._client, location, accept, self._stop)
        try:
            self._repeat(location, stream.start)
            yield stream
        finally:
            stream.release()

    def _read_once(self, location: Url, max_bytes: int) -> bytes:
        document = bytearray()
        with self._stream(location, ACCEPT_DOCUMENT) as stream:
            _refuse_large(location, stream.size_bytes or 0, max_bytes)
            for piece in stream:
                document += piece
                _refuse_large(location, len(document), max_bytes)
        return bytes(document)

    def _probe_once(self, location: Url) -> Validators:
        response = self._client.request("HEAD", location, {"Accept": ACCEPT_ANY})
        if response.status_code != HTTPStatus.OK:
            response.close()
            response = self._client.request("GET", location, {"Accept": ACCEPT_ANY})
        with response:
            _require_status(response, location, self._clock, {HTTPStatus.OK})
            return _validators(response)

    def _repeat(self, location: Url, function: Callable[[], T]) -> T:
        try:
            return call(
                self._settings.retry,
                function,
                stop=self._stop,
                on_retry=_retry_event(self._events, location),
                attempts_for=_attempts_for,
            )
        except DownloadError as error:
            error.transient = False  # all that patience allows has been done
            raise


class HttpStream:
    """The bytes of one URL as they are on the wire, resumed where the transfer broke.

    Made by ``HttpSources.open``. It can be iterated once, by one thread; ``close`` may be called
    from any.
    """

    def __init__(self, client: _Client, url: Url, accept: str, stop: Event) -> None:
        self._client = client
        self._url = url
        self._accept = accept
        self._stop = stop
        self._closed = Event()
        self._iterated = False
        self._body: _Body | None = None
        self._first = _Answer()
        self._framed = False
        self._position = 0
        self._ranges_work = False
        self._digest: hashlib._Hash | None = None

    @property
    def size_bytes(self) -> int | None:
        return self._first.validators.size_bytes

    @property
    def validators(self) -> Validators:
        return self._first.validators

    @property
    def end_is_proven(self) -> bool:
        """Whether a length or chunked framing (RFC 9112, section 6) would show a cut."""
        return self._framed

    def start(self) -> None:
        """Send the first request and read the headers of its answer; raises DownloadError."""
        self._body = self._ask({}, {HTTPStatus.OK})
        answer = _Answer.of(self._body.response)
        if self._iterated and answer.validators.size_bytes != self.size_bytes:
            raise self._changed()
        self._first = answer
        self._ranges_work = answer.resumable
        self._digest = None if self._ranges_work else hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        if self._iterated:
            raise RuntimeError("a source stream can be read only once")
        self._iterated = True
        patience = self._patience()
        while True:
            try:
                for piece in self._rest():
                    patience.gained(len(piece))
                    yield piece
                return
            except _ChangedError:
                raise
            except DownloadError as error:
                self._release_body()
                self._wait(patience, error)

    def close(self) -> None:
        """Break off: a read that blocks in another thread ends with InterruptedRunError."""
        self._closed.set()
        if self._body:
            self._body.shut_down()

    def release(self) -> None:
        """Break off and give the connection back."""
        self.close()
        self._release_body()

    def _rest(self) -> Iterator[bytes]:
        """What has not been handed out yet, from one answer of the server."""
        body = self._body or self._go_on()
        if body is None:
            return
        while piece := body.read(PIECE_BYTES):
            self._position += len(piece)
            if self._digest:
                self._digest.update(piece)
            yield piece
        if self.size_bytes is not None and self._position != self.size_bytes:
            raise self._incomplete(f"ended at byte {self._position} of {self.size_bytes}")

    def _go_on(self) -> _Body | None:
        """An answer that starts where the last one broke; None when nothing is left."""
        self._client.events.info(
            "download.resumed", url=self._url.public, offset_bytes=self._position
        )
        if not self._position:
            self.start()
            return self._body
        if self._ranges_work:
            return self._from_position()
        return self._skip(self._ask({}, {HTTPStatus.OK}))

    def _from_position(self) -> _Body | None:
        """Ask for the rest only (RFC 9110, sections 13.1.5 and 14.2)."""
        headers = {
            "Range": f"bytes={self._position}-",
            "If-Range": self._first.strong_validator or "",
        }
        body = self._ask(headers, {200, 206, 416})
        match body.response.status_code:
            case HTTPStatus.PARTIAL_CONTENT:
                self._check_range(body.response)
                return body
            case HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._require_all(body.response)
                return None
            case _:
                return self._skip(body)

    def _check_range(self, response: requests.Response) -> None:
        """Refuse a part that is not the one asked for (RFC 9110, section 14.4)."""
        wanted = f"bytes {self._position}-"
        given = response.headers.get("Content-Range", "")
        total = given.rpartition("/")[2]
        size = "*" if self.size_bytes is None else str(self.size_bytes)
        wrong = not given.startswith(wanted) or ("*" not in (size, total) and total != size)
        etag = response.headers.get("ETag", self._first.validators.etag)
        if wrong or etag != self._first.validators.etag:
            self._ranges_work = False  # the next attempt reads from the start
            raise self._incomplete("the server answered with another part than the one asked for")

    def _require_all(self, response: requests.Response) -> None:
        """416: all is well when everything had arrived (RFC 9110, section 15.5.17)."""
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        if str(self._position) in (str(self.size_bytes), total):
            return
        self._ranges_work = False
        raise self._incomplete("the server has no more bytes than those that arrived")

    def _skip(self, body: _Body) -> _Body:
        """Pass over what was handed out already; raises DownloadError when it has changed.

        A strong ETag that is still the same says that every byte is (RFC 9110, section 8.8.1).
        """
        self._ranges_work = False
        answer = _Answer.of(body.response)
        if answer.validators.size_bytes != self.size_bytes:
            raise self._changed()
        if self._digest is None:
            if not self._first.same_bytes_as(answer):
                raise self._changed()
            self._pass_over(body)
        elif self._pass_over(body) != self._digest.digest():
            raise self._changed()
        return body

    def _pass_over(self, body: _Body) -> bytes:
        """Read up to the current position; returns the digest of what was read."""
        digest, left = hashlib.sha256(), self._position
        while left and (piece := body.read(min(PIECE_BYTES, left))):
            left -= len(piece)
            digest.update(piece)
        if left:
            raise self._incomplete(f"ended before byte {self._position}, where it broke earlier")
        return digest.digest()

    def _ask(self, headers: Mapping[str, str], statuses: set[int]) -> _Body:
        self._raise_if_closed()
        headers = {"Accept": self._accept, **headers}
        response = self._client.request("GET", self._url, headers)
        try:
            _require_status(response, self._url, self._client.clock, statuses)
            self._body = _Body(response, self._url, self._client, self._raise_if_closed)
        except BaseException:
            response.close()
            raise
        self._framed = self._body.framed
        return self._body

    def _wait(self, patience: Patience, error: DownloadError) -> None:
        try:
            patience.failed(error)
        except DownloadError:
            error.transient = False  # all that patience allows has been done
            raise

    def _patience(self) -> Patience:
        settings = self._client.settings
        return Patience(
            settings.retry,
            enough_bytes=settings.progress_bytes,
            most_failures=settings.most_resumes,
            stop=self._stop,
            on_retry=_retry_event(self._client.events, self._url),
            attempts_for=_attempts_for,
        )

    def _raise_if_closed(self) -> None:
        if self._stop.is_set() or self._closed.is_set():
            raise InterruptedRunError(f"{self._url}: the download was broken off")

    def _release_body(self) -> None:
        body, self._body = self._body, None
        if body:
            body.response.close()

    def _incomplete(self, reason: str) -> DownloadError:
        return _error(self._url, reason, ErrorKind.INCOMPLETE, transient=True)

    def _changed(self) -> DownloadError:
        return _ChangedError(
            f"{self._url}: the file changed while it was read",
            kind=ErrorKind.CHANGED,
            transient=True,
        )


class _ChangedError(DownloadError):
    """What was handed out is of another version: only a whole new attempt can help."""


class _Body:
    """The body of one answer: read as it comes, watched for stalls."""

    def __init__(
        self,
        response: requests.Response,
        url: Url,
        client: _Client,
        raise_if_closed: Callable[[], None],
    ) -> None:
        self.response = response
        self._url = url
        self._clock = client.clock
        self._settings = client.settings
        self._raise_if_closed = raise_if_closed
        self._raw: Any = response.raw  # urllib3's response, which requests does not type
        self._magic_due = _is_labelled_gzip(response, url) and response.status_code == HTTPStatus.OK
        self._waited_s = 0.0
        self._window_bytes = 0
        self._postponed: DownloadError | None = None

    @property
    def framed(self) -> bool:
        """Whether a length or chunks tell where the body ends (RFC 9112, section 6.3)."""
        return _announced_size(self.response) is not None or bool(self._raw.chunked)

    def read(self, limit: int) -> bytes:
        """The next bytes, as soon as there are some; empty at the end; raises DownloadError."""
        piece = self._gather(limit)
        if self._magic_due:
            while len(piece) < len(GZIP_MAGIC) and (more := self._read(limit)):
                piece += more
            self._magic_due = False
            self._require_magic(piece)
        return piece

    def _gather(self, limit: int) -> bytes:
        """What one receive gave, or several full TLS records, which are only 16 KiB each.

        Sixteen times fewer pieces spare every later step a second or more of CPU per GiB. An error
        in between is kept for the next call, so that no byte is lost.
        """
        if self._postponed:
            raise self._postponed
        pieces = [self._read(limit)]
        left = limit - len(pieces[0])
        while left and len(pieces[-1]) == TLS_RECORD_BYTES:
            try:
                pieces.append(self._read(left))
            except DownloadError as error:
                self._postponed = error
                break
            left -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def shut_down(self) -> None:
        """End a read that blocks in another thread."""
        try:
            self._raw.shutdown()
        except (OSError, RuntimeError, ValueError):
            return  # it has ended by itself

    def _read(self, limit: int) -> bytes:
        self._raise_if_closed()
        began_s = self._clock.monotonic_s()
        try:
            # One receive at most: a read of a fixed amount would hide a drip from the floor.
            piece: bytes = self._raw.read1(limit, decode_content=False) or b""
        except _LIBRARY_ERRORS as exc:
            self._raise_if_closed()
            raise _broken_body(exc, self._url) from None
        self._raise_if_closed()  # a closed socket reads like the end of the body
        self._keep_floor(self._clock.monotonic_s() - began_s, len(piece))
        return piece

    def _keep_floor(self, waited_s: float, size_bytes: int) -> None:
        """Raise STALLED when too little came; only waiting counts, not a slow consumer."""
        self._waited_s += waited_s
        self._window_bytes += size_bytes
        if self._waited_s < self._settings.stall_s:
            return
        if self._window_bytes < self._settings.floor_bytes and size_bytes:
            reason = f"sent only {self._window_bytes} bytes in {self._waited_s:.0f} s"
            raise _error(self._url, reason, ErrorKind.STALLED, transient=True)
        self._waited_s, self._window_bytes = 0.0, 0

    def _require_magic(self, piece: bytes) -> None:
        if not piece.startswith(GZIP_MAGIC):
            raise _error(
                self._url, "labelled as gzip, but the bytes are not", ErrorKind.HTTP_STATUS
            )


class _Client:
    """Sends single requests, follows their redirects, and names what went wrong.

    One session serves all threads: its connection pools are made for that, and nothing in it is
    changed by a request, as cookies are refused.
    """

    def __init__(self, settings: HttpSettings, clock: Clock, events: Events) -> None:
        self.settings = settings
        self.clock = clock
        self.events = events
        self._session = _session(settings)

    def close(self) -> None:
        self._session.close()

    def request(self, method: str, url: Url, headers: Mapping[str, str]) -> requests.Response:
        """The answer after redirects, whatever its status, its body unread."""
        if not _is_http(url):
            raise _error(url, "not an http or https address", ErrorKind.UNREACHABLE)
        auth = _OriginAuth(url)
        chain = [url]
        while True:
            response = self._send(method, chain[-1], headers, auth)
            if response.status_code not in REDIRECTS:
                return response
            with response:
                chain.append(_target(response, chain, self.settings.most_redirects))

    def _send(
        self, method: str, url: Url, headers: Mapping[str, str], auth: AuthBase
    ) -> requests.Response:
        try:
            return self._session.request(
                method,
                _without_user_info(url),
                headers=dict(headers),
                auth=auth,
                stream=True,
                allow_redirects=False,
                timeout=(self.settings.connect_timeout_s, self.settings.stall_s),
            )
        except _LIBRARY_ERRORS as exc:
            raise _failed_request(exc, url) from None


class _Session(requests.Session):
    """A session that never looks at redirects: requests would read their bodies to the end."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        return None


class _OriginAuth(AuthBase):
    """Sends a URL's user info to the origin that it was given for, and nothing to any other.

    Passing it keeps requests from looking into a ``.netrc``: the operator did not name that.
    """

    def __init__(self, url: Url) -> None:
        parts = url.parts
        self._origin = _origin(url.full)
        self._basic: HTTPBasicAuth | None = None
        if parts.username is not None:
            self._basic = HTTPBasicAuth(unquote(parts.username), unquote(parts.password or ""))

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._basic and _origin(request.url or "") == self._origin:
            self._basic(request)
        return request


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the headers of an answer say of the file."""

    validators: Validators = field(default_factory=Validators)
    strong_validator: str | None = None
    takes_ranges: bool = False

    @classmethod
    def of(cls, response: requests.Response) -> _Answer:
        ranges = response.headers.get("Accept-Ranges", "").strip().lower()
        return cls(_validators(response), _strong_validator(response), ranges == "bytes")

    @property
    def resumable(self) -> bool:
        """Whether the rest can be asked for without a risk of mixing two versions."""
        return self.takes_ranges and self.strong_validator is not None

    def same_bytes_as(self, other: _Answer) -> bool:
        """Whether the headers alone prove that both are of the same bytes."""
        return self.strong_validator is not None and self.strong_validator == other.strong_validator


# --- what answers say -----------------------------------------------------------------------------


def _session(settings: HttpSettings) -> requests.Session:
    session = _Session()
    adapter = HTTPAdapter(pool_connections=settings.pool_size, pool_maxsize=settings.pool_size)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"User-Agent": settings.user_agent, "Accept-Encoding": "identity"})
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # OpenSSL's own variable; requests puts REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE before it.
    session.verify = os.environ.get("SSL_CERT_FILE") or True
    return session


def _validators(response: requests.Response) -> Validators:
    return Validators(
        etag=response.headers.get("ETag"),
        last_modified=response.headers.get("Last-Modified"),
        size_bytes=_announced_size(response),
    )


def _announced_size(response: requests.Response) -> int | None:
    """Content-Length in bytes; None when absent, overruled by chunks, or no length at all."""
    text = response.headers.get("Content-Length", "")
    first = text.partition(",")[0].strip()  # "42, 42" is one length (RFC 9110, section 8.6)
    if "Transfer-Encoding" in response.headers or not (first.isascii() and first.isdigit()):
        return None
    return int(first)


def _strong_validator(response: requests.Response) -> str | None:
    """What If-Range may carry (RFC 9110, section 13.1.5): a strong ETag, else an old date."""
    etag = response.headers.get("ETag")
    if etag is not None:
        return etag if etag.startswith('"') and etag.endswith('"') and len(etag) > 1 else None
    modified = _http_date(response.headers.get("Last-Modified"))
    date = _http_date(response.headers.get("Date"))
    if modified is None or date is None or date - modified < STRONG_AFTER:
        return None
    return response.headers["Last-Modified"]


def _http_date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _is_labelled_gzip(response: requests.Response, url: Url) -> bool:
    """Whether Content-Encoding says gzip; raises DownloadError when it says anything else.

    Nothing is ever decoded. Some mirrors label a ``.gz`` file that way, and then the bytes are the
    published ones; any other encoding was not asked for (RFC 9110, section 12.5.3).
    """
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding in {"gzip", "x-gzip"}:
        return True
    if coding in {"", "identity"}:
        return False
    raise _error(url, "encoded by the server, which was not asked for", ErrorKind.HTTP_STATUS)


def _require_status(
    response: requests.Response, url: Url, clock: Clock, statuses: set[int] | set[HTTPStatus]
) -> None:
    status = response.status_code
    if status in statuses:
        return
    gone = status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
    raise DownloadError(
        f"{url}: the server answered {status}",
        kind=ErrorKind.NOT_FOUND if gone else ErrorKind.HTTP_STATUS,
        transient=status in TRANSIENT_STATUSES,
        retry_after_s=_retry_after_s(response.headers.get("Retry-After"), clock),
    )


def _retry_after_s(text: str | None, clock: Clock) -> float | None:
    """Retry-After in seconds, given as seconds or as a date (RFC 9110, section 10.2.3)."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text.strip()[:9])
    moment = _http_date(text)
    return None if moment is None else max(0.0, (moment - clock.now()).total_seconds())


def _target(response: requests.Response, chain: list[Url], most: int) -> Url:
    """Where a redirect leads (RFC 9110, section 10.2.2); raises DownloadError if not to follow."""
    here = chain[-1]
    try:
        # Header bytes arrive as Latin-1; addresses that are not ASCII are UTF-8 in practice.
        location = response.headers.get("Location", "").encode("latin-1").decode("utf-8")
        there = Url(urljoin(_without_user_info(here), location).partition("#")[0])
        followable = _is_http(there)
    except ValueError:
        raise _refused_redirect(chain, "to something that is no address") from None
    if not location:
        raise _refused_redirect(chain, "to nowhere")
    if not followable:
        raise _refused_redirect(chain, "to something that is neither http nor https")
    if here.parts.scheme == "https" and there.parts.scheme == "http":
        raise _refused_redirect([*chain, there], "from https to http")
    there = Url(_without_user_info(there))
    if there in chain:
        raise _refused_redirect([*chain, there], "in a circle")
    if len(chain) > most:
        raise _refused_redirect([*chain, there], f"more than {most} times")
    return there


def _refused_redirect(chain: list[Url], reason: str) -> DownloadError:
    path = " -> ".join(url.public for url in chain)
    return DownloadError(f"{path}: redirects {reason}", kind=ErrorKind.FORBIDDEN_ADDRESS)


def _is_http(url: Url) -> bool:
    parts = url.parts
    try:
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _without_user_info(url: Url) -> str:
    parts = url.parts
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def _origin(full: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454, section 4)."""
    parts = urlsplit(full)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port


def _refuse_large(url: Url, size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise _error(url, f"larger than {max_bytes} bytes", ErrorKind.TOO_LARGE)


# --- what went wrong ------------------------------------------------------------------------------

_LIBRARY_ERRORS = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
    AttributeError,  # http.client on a response that another thread has closed
)

_REQUEST_FAILURES: tuple[tuple[type[Exception], str, ErrorKind, bool], ...] = (
    # what was raised, how to say it, its kind, whether it may pass
    (requests.exceptions.SSLError, "TLS failed ({cause})", ErrorKind.UNREACHABLE, False),
    (requests.exceptions.InvalidHeader, "announces two lengths", ErrorKind.INCOMPLETE, False),
    (requests.exceptions.ReadTimeout, "no answer for too long", ErrorKind.STALLED, True),
    (ConnectionRefusedError, "connection refused", ErrorKind.UNREACHABLE, True),
    (requests.exceptions.ConnectionError, "unreachable ({cause})", ErrorKind.UNREACHABLE, True),
    (requests.exceptions.Timeout, "unreachable ({cause})", ErrorKind.UNREACHABLE, True),
)


class _UnknownHostError(DownloadError):
    """No address for a name: worth one more try, but a user who mistyped it is waiting."""


def _attempts_for(error: GlancingError) -> int:
    return 2 if isinstance(error, _UnknownHostError) else 1000


def _error(url: Url, reason: str, kind: ErrorKind, *, transient: bool = False) -> DownloadError:
    return DownloadError(f"{url}: {reason}", kind=kind, transient=transient)


def _broken_body(exc: Exception, url: Url) -> DownloadError:
    """The error of a transfer that broke."""
    if _find(exc, urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return _error(url, "sent nothing for too long", ErrorKind.STALLED, transient=True)
    reason = f"the transfer broke ({_class_of(exc)})"
    return _error(url, reason, ErrorKind.INCOMPLETE, transient=True)


def _failed_request(exc: Exception, url: Url) -> DownloadError:
    """The error of a request that got no answer."""
    if _find(exc, urllib3.exceptions.NameResolutionError, socket.gaierror):
        return _UnknownHostError(f"{url}: unknown host", transient=True)
    if certificate := _find(exc, ssl.SSLCertVerificationError):
        return _error(url, f"TLS: {_verify_message(certificate)}", ErrorKind.UNREACHABLE)
    for classes, reason, kind, transient in _REQUEST_FAILURES:
        if _find(exc, classes):
            said = reason.format(cause=_class_of(exc))
            return _error(url, said, kind, transient=transient)
    return _error(url, f"cannot be read ({_class_of(exc)})", ErrorKind.UNREACHABLE)


def _verify_message(exc: BaseException) -> str:
    """OpenSSL's short reason ("certificate has expired"); it knows the host but no path."""
    return str(getattr(exc, "verify_message", "")) or "the certificate is not accepted"


def _find(exc: BaseException, *classes: type[BaseException]) -> BaseException | None:
    """The first exception of these classes among an exception and what it wraps."""
    return next((found for found in _wrapped(exc) if isinstance(found, classes)), None)


def _class_of(exc: BaseException) -> str:
    """The class of the innermost cause: the library's own wrapping says little."""
    return type(list(_wrapped(exc))[-1]).__name__


def _wrapped(exc: BaseException) -> Iterator[BaseException]:
    """An exception and, in turn, what the libraries hide in their attributes and arguments."""
    seen: list[BaseException] = []
    current: BaseException | None = exc
    while current is not None and current not in seen:
        seen.append(current)
        yield current
        inner = [getattr(current, "reason", None), *current.args, current.__cause__]
        current = next((item for item in inner if isinstance(item, BaseException)), None)


def _retry_event(events: Events, url: Url) -> Callable[[GlancingError, int, float], None]:
    def tell(error: GlancingError, attempt: int, wait_s: float) -> None:
        events.warning(
            "download.retried",
            url=url.public,
            attempt=attempt,
            wait_s=round(wait_s, 3),
            reason=error.message,
        )

    return tell
