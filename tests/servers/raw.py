"""A server on raw sockets that sends scripted bytes, so that it can lie in every possible way."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

PATIENCE_S = 60.0
TICK_S = 0.05


class Break(Enum):
    """How a script may end before its time."""

    CLOSE = "close"  # an orderly end of the connection
    RESET = "reset"  # a TCP reset, as from a killed server


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


Action = bytes | threading.Event | Break
"""Send these bytes, wait for this event, or break the connection."""

Answer = Iterable[Action] | Callable[[Request], Iterable[Action]]


def head(status: int = 200, /, **headers: str | int) -> bytes:
    """A status line and headers; ``content_length=3`` becomes ``Content-Length: 3``."""
    lines = [f"HTTP/1.1 {status} Scripted", "Connection: close"]
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Loopback:
    """Listens on a port of the loopback and gives each connection a thread of its own.

    What is said on a connection is ``_converse``'s business; ``connections`` counts them.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TICK_S)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0

    @property
    def origin(self) -> str:
        """Scheme, host and port, without a slash."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def url(self, path: str = "/image", *, user: str = "") -> str:
        """An address on this server; ``user`` is ``name:password``."""
        scheme, _, rest = self.origin.partition("//")
        return f"{scheme}//{user + '@' if user else ''}{rest}{path}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            with suppress(TimeoutError):
                connection, _ = self._listener.accept()
                self.connections += 1
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        with suppress(OSError), connection:
            if self._tls is None:
                self._converse(connection)
                return
            with self._tls.wrap_socket(connection, server_side=True) as wrapped:
                self._converse(wrapped)

    def _converse(self, connection: socket.socket) -> None:
        raise NotImplementedError


class BadServer(Loopback):
    """Gives the n-th request the n-th answer, and the last answer to all further requests.

    An answer is a series of actions, or a function that makes one from the request. Each
    connection carries one request and is closed after it. ``requests`` holds all requests so far,
    ``connections`` counts connections, also those that never became a request.
    """

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self._answers = answers
        self.requests: list[Request] = []

    def _converse(self, connection: socket.socket) -> None:
        request = _read_request(connection)
        if request is None:
            return
        with self._lock:
            answer = self._answers[min(len(self.requests), len(self._answers) - 1)]
            self.requests.append(request)
        for action in answer(request) if callable(answer) else answer:
            if self._ended.is_set() or not self._act(connection, action):
                return

    def _act(self, connection: socket.socket, action: Action) -> bool:
        match action:
            case bytes():
                connection.sendall(action)
            case threading.Event():
                while not (action.wait(TICK_S) or self._ended.is_set()):
                    pass
            case Break.CLOSE:
                return False
            case Break.RESET:
                reset_on_close(connection)
                return False
        return True


def reset_on_close(connection: socket.socket) -> None:
    """Lingering for no time at all turns the close into a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _read_request(connection: socket.socket) -> Request | None:
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            return None
        received += more
    first, *lines = received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return Request(method, path, {name.lower(): value.strip() for name, _, value in pairs})
