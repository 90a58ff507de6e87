"""A proxy in front of a real Glance or Keystone that lets requests fail where it is told to."""

from __future__ import annotations

import json
import re
import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO
from urllib.parse import urlsplit

from tests.servers.faults import BrokenOffError, Exchange, Fault, Headers, Reply
from tests.servers.raw import PATIENCE_S, Break, Loopback, reset_on_close

BLOCK_BYTES = 32 * 1024
MOST_DOCUMENT_BYTES = 256 * 1024
_IMAGE = r"/v2/images/[^/?]+"
_PHASES = (
    ("list", "GET", re.compile(r"/v2/images(\?.*)?")),
    ("create", "POST", re.compile(r"/v2/images")),
    ("confirm", "GET", re.compile(_IMAGE)),
    ("delete", "DELETE", re.compile(_IMAGE)),
    ("upload", "PUT", re.compile(_IMAGE + "/file")),
    ("download", "GET", re.compile(_IMAGE + "/file")),
    ("members", "GET", re.compile(_IMAGE + "/members")),
    ("share", "POST", re.compile(_IMAGE + "/members")),
    ("login", "POST", re.compile("/v3/auth/tokens")),
    ("catalogue", "GET", re.compile("/v3/auth/catalog")),
    ("discover", "GET", re.compile(r"/(v2/?|v3/?|versions)?")),
)

Script = Callable[[Exchange], Fault | None]
"""Which fault a request meets, if any."""


def on(phase: str, *faults: Fault | None, then: Fault | None = None) -> Script:
    """The n-th request of a phase meets the n-th fault, and ``then`` all further ones."""

    def script(exchange: Exchange) -> Fault | None:
        if exchange.phase != phase:
            return None
        return faults[exchange.turn] if exchange.turn < len(faults) else then

    return script


def at(index: int, fault: Fault) -> Script:
    """One request, counted from 0 among all of them, meets a fault."""
    return lambda exchange: fault if exchange.index == index else None


def phase_of(method: str, path: str, document: bytes) -> str:
    """What a request is for, as the publisher's steps are called.

    Of Glance: list, create, upload, confirm (one record is read), publish and retire (the PATCH
    that makes an image the current one, or a backup), update (any other), delete, download,
    members, share. Of Keystone: login, catalogue. Of both: discover. Else: other.
    """
    if method == "PATCH":
        return _phase_of_patch(document)
    phases = (name for name, verb, form in _PHASES if verb == method and form.fullmatch(path))
    return next(phases, "other")


def _phase_of_patch(document: bytes) -> str:
    operations = json.loads(document)
    states = [each["value"] for each in operations if each["path"] == "/glancing_state"]
    named = any(each["path"] == "/name" for each in operations)
    hidden = any(each["path"] == "/os_hidden" for each in operations)
    if not (named and hidden):
        return "update"
    return {"current": "publish", "backup": "retire"}.get("".join(states), "update")


class FaultProxy(Loopback):
    """Forwards each request to a real service, and does to it what the script says.

    Bodies stream through both ways. Each connection carries one request. What the client breaks
    off is broken off at the service too, and the other way round; a service that is not there
    looks like a connection that is closed. ``exchanges`` holds all requests so far.
    """

    def __init__(self, service_url: str, script: Script = lambda _: None) -> None:
        super().__init__()
        self._service = (urlsplit(service_url).hostname or "", urlsplit(service_url).port or 80)
        self._script = script
        self._turns: Counter[str] = Counter()
        self.exchanges: list[Exchange] = []

    def play(self, script: Script) -> None:
        """Follow another script, and count requests from 0 again."""
        with self._lock:
            self._script = script
            self._turns.clear()
            self.exchanges = []

    def of(self, phase: str) -> list[Exchange]:
        """All requests of a phase so far."""
        return [exchange for exchange in self.exchanges if exchange.phase == phase]

    @property
    def phases(self) -> list[str]:
        """The phases of all requests so far, in their order."""
        return [exchange.phase for exchange in self.exchanges]

    # --- one request ---

    def _converse(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection.makefile("rb") as client:
            try:
                self._exchange(connection, client)
            except BrokenOffError as broken:
                if broken.how is Break.RESET:
                    reset_on_close(connection)

    def _exchange(self, connection: socket.socket, client: IO[bytes]) -> None:
        read = _read_head(client)
        if read is None:
            return
        first, headers = read
        body = _body(client, headers)
        document = b""
        if "json" in headers.get("content-type", ""):
            document = _whole(body)
            body = iter((document,))
        method, path, _ = first.split(" ")
        exchange, fault = self._note(method, path, headers, document)
        counted = _counted(body, exchange)
        reply = fault.request(exchange, counted)
        if reply is not None:
            _send_reply(connection, method, reply)
            return
        with socket.create_connection(self._service, PATIENCE_S) as service:
            _forward(service, first, headers, fault.body(counted))
            with service.makefile("rb") as answers:
                reply = _read_reply(answers, method)
                exchange.status = reply.status
                _send_reply(connection, method, fault.reply(reply))

    def _note(
        self, method: str, path: str, headers: Headers, document: bytes
    ) -> tuple[Exchange, Fault]:
        phase = phase_of(method, path, document)
        with self._lock:
            index, turn = len(self.exchanges), self._turns[phase]
            exchange = Exchange(index, turn, phase, method, path, headers, document)
            self._turns[phase] += 1
            self.exchanges.append(exchange)
            script = self._script
        return exchange, script(exchange) or Fault()


# --- the wire -------------------------------------------------------------------------------------


def _forward(service: socket.socket, first: str, headers: Headers, body: Iterator[bytes]) -> None:
    """Send a request on; a service that answers before its end, or is gone, ends the sending."""
    service.sendall(_head(first, {**headers, "connection": "close"}))
    for piece in _framed(headers, body):
        if select.select([service], [], [], 0)[0] or not _sent(service, piece):
            return


def _sent(service: socket.socket, piece: bytes) -> bool:
    try:
        service.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _send_reply(connection: socket.socket, method: str, reply: Reply) -> None:
    """Send an answer and say that no more comes, so that a client that still sends can read it."""
    connection.sendall(_head(f"HTTP/1.1 {reply.status} Relayed", reply.headers))
    if method != "HEAD":
        for piece in _framed(reply.headers, reply.body):
            connection.sendall(piece)
    connection.shutdown(socket.SHUT_WR)


def _read_reply(answers: IO[bytes], method: str) -> Reply:
    read = _read_head(answers)
    if read is None:
        raise BrokenOffError(Break.RESET)
    first, headers = read
    status = int(first.split(" ")[1])
    empty = method == "HEAD" or status in (204, 304)
    body = iter(()) if empty else _body(answers, headers, to_the_end=True)
    return Reply(status, {**headers, "connection": "close"}, body)


def _read_head(reader: IO[bytes]) -> tuple[str, dict[str, str]] | None:
    first = reader.readline().decode("latin-1").rstrip("\r\n")
    if not first:
        return None
    headers = {}
    while line := reader.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return first, headers


def _head(first: str, headers: Headers) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _is_chunked(headers: Headers) -> bool:
    return headers.get("transfer-encoding", "").lower() == "chunked"


def _body(reader: IO[bytes], headers: Headers, *, to_the_end: bool = False) -> Iterator[bytes]:
    """The bytes of a body without their framing, as soon as they come.

    Without any framing there are none, or ``to_the_end`` all until the connection closes.
    """
    if _is_chunked(headers):
        while length := int(_line(reader).partition(b";")[0], 16):
            yield from _exactly(reader, length)
            _line(reader)
        while _line(reader):
            pass  # trailers
    elif "content-length" in headers:
        yield from _exactly(reader, int(headers["content-length"]))
    elif to_the_end:
        while piece := _some(reader, BLOCK_BYTES):
            yield piece


def _exactly(reader: IO[bytes], length: int) -> Iterator[bytes]:
    left_bytes = length
    while left_bytes:
        piece = _some(reader, min(left_bytes, BLOCK_BYTES))
        if not piece:
            raise BrokenOffError(Break.RESET)
        left_bytes -= len(piece)
        yield piece


def _some(reader: IO[bytes], most_bytes: int) -> bytes:
    """What has come, without waiting for more; empty at the end of the connection."""
    piece: bytes = reader.read1(most_bytes)  # type: ignore[attr-defined]
    return piece


def _line(reader: IO[bytes]) -> bytes:
    line = reader.readline()
    if not line.endswith(b"\n"):
        raise BrokenOffError(Break.RESET)
    return line.strip()


def _framed(headers: Headers, body: Iterator[bytes]) -> Iterator[bytes]:
    if not _is_chunked(headers):
        yield from body
        return
    for piece in filter(None, body):
        yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def _whole(body: Iterator[bytes]) -> bytes:
    document = b""
    for piece in body:
        document += piece
        if len(document) > MOST_DOCUMENT_BYTES:
            raise ValueError("a document of this size is none that a client of Glance sends")
    return document


def _counted(body: Iterator[bytes], exchange: Exchange) -> Iterator[bytes]:
    for piece in body:
        exchange.body_bytes += len(piece)
        yield piece
    exchange.whole = True
