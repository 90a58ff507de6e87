"""Reads images and documents over HTTP and HTTPS: the only place that knows ``requests``.

Bytes are taken exactly as they are on the wire, because published digests are of those. A transfer
that breaks is resumed where it stopped, with a guard against mixing two versions of a file:

- With a strong validator (RFC 9110, section 8.8.1) and a server that takes ranges, only the rest is
  asked for, with ``Range`` and ``If-Range``.
- Otherwise the source is read again from its start, and what was handed out already is compared by
  a running digest. That digest is only computed for such sources, as it costs about a second of CPU
  per GiB.

Redirects are followed by hand: few, never from https to http, never to another scheme, never with
credentials of another origin. Hosts that only remote words name must have public addresses
(``addresses``). A source that sends nothing, or next to nothing, for a minute counts as stalled.

No error text contains user info, query or fragment of a URL. What ``requests`` and ``urllib3`` say
of a failure does contain them, so their texts are never repeated, and their exceptions are not
chained: the message names their class instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from threading import Event
from typing import TypeVar

from glancing.download._answers import refuse_large, require_status, validators_of
from glancing.download._client import Client, HttpSettings
from glancing.download._failures import attempts_for, retry_event
from glancing.download._registry import ACCEPT_MANIFEST, is_manifest
from glancing.download._stream import PIECE_BYTES, HttpStream
from glancing.errors import DownloadError
from glancing.model import Clock, Events, Url, Validators
from glancing.retry import call

__all__ = ["PIECE_BYTES", "HttpSettings", "HttpSources", "HttpStream"]

T = TypeVar("T")

ACCEPT_ANY = "*/*"
# Metadata services show people a web page, and programs the document when they ask for it.
ACCEPT_DOCUMENT = "application/xml, application/json, text/plain;q=0.9, text/*;q=0.8, */*;q=0.5"


class HttpSources:
    """Opens, probes and reads ``Url`` locations; safe to use from several threads.

    ``stop`` ends waits at once and open streams at their next piece, with InterruptedRunError.
    Hosts may have any address but link-local once ``vouch`` was told of them; all others must be
    public, or lie in an allowed network.
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
        self._client = Client(self._settings, clock, events)

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

    def vouch(self, urls: Iterable[Url]) -> None:
        """The operator's own words name these: their hosts may have any address but link-local."""
        self._client.vouch(urls)

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
        accept = ACCEPT_MANIFEST if is_manifest(location) else ACCEPT_DOCUMENT
        with self._stream(location, accept) as stream:
            refuse_large(location, stream.size_bytes or 0, max_bytes)
            for piece in stream:
                document += piece
                refuse_large(location, len(document), max_bytes)
        return bytes(document)

    def _probe_once(self, location: Url) -> Validators:
        accept, ended = {"Accept": ACCEPT_ANY}, self._stop.is_set
        response = self._client.request("HEAD", location, accept, ended)
        if response.status_code != HTTPStatus.OK:
            response.close()
            response = self._client.request("GET", location, accept, ended)
        with response:
            require_status(response, location, self._clock, {HTTPStatus.OK})
            return validators_of(response)

    def _repeat(self, location: Url, function: Callable[[], T]) -> T:
        try:
            return call(
                self._settings.retry,
                function,
                stop=self._stop,
                on_retry=retry_event(self._events, location),
                attempts_for=attempts_for,
            )
        except DownloadError as error:
            error.transient = False  # all that patience allows has been done
            raise
