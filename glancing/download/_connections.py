"""Connections that look where they lead, and that cannot be kept waiting.

A name is looked up once, its addresses are judged, and one of those that may be read from is
connected to as a number. So a name that means something else a moment later gains nothing (DNS
rebinding).

A server that sends its headers byte by byte never lets a timeout of single receives run out. So
while a connection is made and until the headers are there, a watch ends it when its time is over,
or when whoever waits was told to stop.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from glancing.addresses import Address, AddressRules, literal

Resolver = Callable[[str, int], Iterable[str]]
"""The numeric addresses of a host name; raises ``socket.gaierror``."""


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order of the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class ForbiddenAddressError(Exception):
    """Where a connection may not lead; the message says what is there."""


class Gatekeeper:
    """Judges hosts and addresses for all connections of one ``HttpSources``."""

    def __init__(self, rules: AddressRules, resolver: Resolver = resolve) -> None:
        self._rules = rules
        self._resolver = resolver
        self._vouched: frozenset[str] = frozenset()

    def vouch(self, hosts: Iterable[str]) -> None:
        """The operator's own words named these hosts."""
        self._vouched |= {_bare(host) for host in hosts}

    def check_literal(self, host: str) -> None:
        """Judge a host that is an address, also where a proxy would connect to it."""
        address = literal(host)
        if address is not None:
            self._require(address, host)

    def open(self, host: str, port: int, **arguments: Any) -> socket.socket:
        """A connected socket; ForbiddenAddressError when no address of the host may be used."""
        given = literal(host)
        found = [str(given)] if given else list(self._resolver(host, port))
        forbidden = self._refusals(found, host)
        usable = [text for text in found if text not in forbidden]
        if not usable:
            raise ForbiddenAddressError(next(iter(forbidden.values()), "no address"))
        return self._connect(usable, port, **arguments)

    def _connect(self, addresses: list[str], port: int, **arguments: Any) -> socket.socket:
        for address in addresses[:-1]:
            with suppress(OSError):
                return create_connection((address, port), **arguments)
        return create_connection((addresses[-1], port), **arguments)

    def _refusals(self, addresses: Iterable[str], host: str) -> dict[str, str]:
        reasons = {text: self._refusal(_address(text), host) for text in addresses}
        return {text: reason for text, reason in reasons.items() if reason}

    def _require(self, address: Address, host: str) -> None:
        reason = self._refusal(address, host)
        if reason:
            raise ForbiddenAddressError(reason)

    def _refusal(self, address: Address, host: str) -> str | None:
        return self._rules.refusal(address, vouched=_bare(host) in self._vouched)


def _bare(host: str) -> str:
    return host.strip("[]").lower().rstrip(".")


def _address(text: str) -> Address:
    return ip_address(text.partition("%")[0])


# --- waiting --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Wait:
    """Somebody waits for what comes over a socket, until ``deadline_s`` at the latest."""

    line: socket.socket
    deadline_s: float
    ended: Callable[[], bool]
    broken: bool = False


class Watch:
    """Breaks connections off whose wait is over; one thread, as long as anybody waits."""

    _LOOK_S = 0.2

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waits: list[_Wait] = []
        self._thread: threading.Thread | None = None
        self._local = threading.local()

    @contextmanager
    def heeding(self, ended: Callable[[], bool]) -> Iterator[None]:
        """Break off what this thread waits for when ``ended`` says so."""
        self._local.ended = ended
        try:
            yield
        finally:
            self._local.ended = None

    @contextmanager
    def limit(self, line: socket.socket, seconds: float) -> Iterator[None]:
        """Allow that much time in all; TimeoutError when it was over."""
        ended = getattr(self._local, "ended", None) or (lambda: False)
        wait = _Wait(line, time.monotonic() + seconds, ended)
        self._add(wait)
        try:
            yield
        except (OSError, HTTPException):
            if not wait.broken:
                raise
        finally:
            with self._changed:
                self._waits.remove(wait)
        if wait.broken:  # headers that were cut off look like complete ones
            raise TimeoutError("the server took too long")

    def _add(self, wait: _Wait) -> None:
        with self._changed:
            self._waits.append(wait)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._look, name="glancing-watch", daemon=True
                )
                self._thread.start()

    def _look(self) -> None:
        while True:
            with self._changed:
                if not self._waits:
                    self._thread = None
                    return
                now_s = time.monotonic()
                for wait in self._waits:
                    if not wait.broken and (now_s >= wait.deadline_s or wait.ended()):
                        wait.broken = True
                        _shut_down(wait.line)
                self._changed.wait(self._LOOK_S)


def _shut_down(line: socket.socket) -> None:
    # An orderly end of TLS would wait for the other side.
    with suppress(OSError):
        socket.socket.shutdown(line, socket.SHUT_RDWR)


Connect = Callable[..., socket.socket]


class _Careful:
    """What our connections do differently from those of urllib3."""

    connect_to: Connect
    watch: Watch
    patience_s: float
    _line: socket.socket | None = None
    _connecting: ExitStack | None = None

    def connect(self: Any) -> None:
        """Connect, with proxy and TLS, within one patience for all of it."""
        with ExitStack() as self._connecting:
            super().connect()  # type: ignore[misc]

    def _new_conn(self: Any) -> socket.socket:
        """A connected socket; raises as urllib3 does, and ForbiddenAddressError."""
        try:
            connected = self.connect_to(
                self._dns_host,
                self.port,
                timeout=self.timeout,
                source_address=self.source_address,
                socket_options=self.socket_options,
            )
        except socket.gaierror as exc:
            raise NameResolutionError(self.host, self, exc) from exc
        except TimeoutError as exc:
            raise ConnectTimeoutError(self, "the connection timed out") from exc
        except OSError as exc:
            raise NewConnectionError(self, str(exc)) from exc
        # TLS takes the socket over; a second handle to it stands for the connection.
        self._line = connected.dup()
        self._connecting.enter_context(self.watch.limit(self._line, self.patience_s))
        return connected  # type: ignore[no-any-return]

    def getresponse(self: Any) -> Any:
        """The headers of the answer, within one patience for all of them."""
        if self._line is None:
            return super().getresponse()  # type: ignore[misc]
        with self.watch.limit(self._line, self.patience_s):
            return super().getresponse()  # type: ignore[misc]

    def close(self: Any) -> None:
        """Give up both handles of the connection."""
        line, self._line = self._line, None
        if line is not None:
            line.close()
        super().close()  # type: ignore[misc]


class CarefulAdapter(HTTPAdapter):
    """The transport of requests, over connections that are judged and watched."""

    def __init__(
        self, gatekeeper: Gatekeeper, watch: Watch, patience_s: float, pool_size: int
    ) -> None:
        self._gatekeeper = gatekeeper
        self._watch = watch
        self._patience_s = patience_s
        super().__init__(pool_connections=pool_size, pool_maxsize=pool_size)

    def init_poolmanager(self, *args: Any, **arguments: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*args, **arguments)
        self.poolmanager.pool_classes_by_scheme = self._pools(self._gatekeeper.open)

    def proxy_manager_for(self, proxy: str, **arguments: Any) -> Any:
        """The pools of connections through a proxy, which is the operator's word."""
        manager = super().proxy_manager_for(proxy, **arguments)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools(_connect_anywhere)
        return manager

    def _pools(self, connect_to: Connect) -> dict[str, type[urllib3.HTTPConnectionPool]]:
        ours = {
            "connect_to": staticmethod(connect_to),
            "watch": self._watch,
            "patience_s": self._patience_s,
        }
        plain = type("CarefulHTTPConnection", (_Careful, HTTPConnection), ours)
        secure = type("CarefulHTTPSConnection", (_Careful, HTTPSConnection), ours)
        return {
            "http": type("Pool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("Pool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": secure}),
        }


def _connect_anywhere(host: str, port: int, **arguments: Any) -> socket.socket:
    return create_connection((host, port), **arguments)
