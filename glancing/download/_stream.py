"""The bytes of one source, resumed where a transfer broke, and watched for stalls."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from threading import Event
from typing import Any

import requests

from glancing.download._answers import (
    Answer,
    announced_size,
    is_labelled_gzip,
    require_status,
)
from glancing.download._client import Client
from glancing.download._failures import (
    LIBRARY_ERRORS,
    attempts_for,
    broken_body,
    failure,
    retry_event,
)
from glancing.errors import DownloadError, ErrorKind, InterruptedRunError
from glancing.model import Url, Validators
from glancing.retry import Patience

PIECE_BYTES = 256 * 1024
TLS_RECORD_BYTES = 16 * 1024  # the largest there is (RFC 8446, section 5.1)
GZIP_MAGIC = b"\x1f\x8b"


class HttpStream:
    """The bytes of one URL as they are on the wire, resumed where the transfer broke.

    Made by ``HttpSources.open``. It can be iterated once, by one thread; ``close`` may be called
    from any.
    """

    def __init__(self, client: Client, url: Url, accept: str, stop: Event) -> None:
        self._client = client
        self._url = url
        self._accept = accept
        self._stop = stop
        self._closed = Event()
        self._iterated = False
        self._body: _Body | None = None
        self._first = Answer()
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
        answer = Answer.of(self._body.response)
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
        answer = Answer.of(body.response)
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
        response = self._client.request("GET", self._url, headers, self._is_over)
        try:
            require_status(response, self._url, self._client.clock, statuses)
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
            on_retry=retry_event(self._client.events, self._url),
            attempts_for=attempts_for,
        )

    def _is_over(self) -> bool:
        return self._stop.is_set() or self._closed.is_set()

    def _raise_if_closed(self) -> None:
        if self._is_over():
            raise InterruptedRunError(f"{self._url}: the download was broken off")

    def _release_body(self) -> None:
        body, self._body = self._body, None
        if body:
            body.response.close()

    def _incomplete(self, reason: str) -> DownloadError:
        return failure(self._url, reason, ErrorKind.INCOMPLETE, transient=True)

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
        client: Client,
        raise_if_closed: Callable[[], None],
    ) -> None:
        self.response = response
        self._url = url
        self._clock = client.clock
        self._settings = client.settings
        self._raise_if_closed = raise_if_closed
        self._raw: Any = response.raw  # urllib3's response, which requests does not type
        self._magic_due = is_labelled_gzip(response, url) and response.status_code == HTTPStatus.OK
        self._waited_s = 0.0
        self._window_bytes = 0
        self._postponed: DownloadError | None = None

    @property
    def framed(self) -> bool:
        """Whether a length or chunks tell where the body ends (RFC 9112, section 6.3)."""
        return announced_size(self.response) is not None or bool(self._raw.chunked)

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
        except LIBRARY_ERRORS as exc:
            self._raise_if_closed()
            raise broken_body(exc, self._url) from None
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
            raise failure(self._url, reason, ErrorKind.STALLED, transient=True)
        self._waited_s, self._window_bytes = 0.0, 0

    def _require_magic(self, piece: bytes) -> None:
        if not piece.startswith(GZIP_MAGIC):
            raise failure(
                self._url, "labelled as gzip, but the bytes are not", ErrorKind.HTTP_STATUS
            )
