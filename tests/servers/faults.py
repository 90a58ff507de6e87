"""What ``FaultProxy`` may do to one request and its answer.

A fault sees a request three times: before anything is forwarded, while its body goes by, and when
the real service has answered and the client does not know it yet. Offsets count bytes of the body,
however it is framed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NoReturn

from tests.servers.raw import PATIENCE_S, Break

Headers = Mapping[str, str]


class When(Enum):
    """A moment in the life of a request."""

    EARLY = "early"  # before its body is read; nothing of it has been forwarded
    LATE = "late"  # its body was read (or some bytes of it, for a ``Call``)
    DONE = "done"  # the real service has done it; the client has not heard


@dataclass(slots=True)
class Exchange:
    """One request as the proxy saw it, and what the real service said to it.

    ``index`` counts all requests and ``turn`` those of the same phase, both from 0. ``phase`` says
    what the request is for (see ``tests.servers.proxy.phase_of``). ``document`` is the body of a
    small JSON request. ``body_bytes`` grows as the body is read; ``whole`` says that it came to
    its end. ``status`` is None until the real service has answered.
    """

    index: int
    turn: int
    phase: str
    method: str
    path: str
    headers: Headers
    document: bytes = b""
    body_bytes: int = 0
    whole: bool = False
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer on its way to the client; ``headers`` are as they came, names in lower case."""

    status: int
    headers: Headers = field(default_factory=dict)
    body: Iterator[bytes] = field(default_factory=lambda: iter(()))


class BrokenOffError(Exception):
    """The connections of this request end here, on both sides."""

    def __init__(self, how: Break) -> None:
        super().__init__(how.value)
        self.how = how


class Fault:
    """A request that nothing happens to; each fault overrides one of the three moments."""

    def request(self, exchange: Exchange, body: Iterator[bytes]) -> Reply | None:  # noqa: ARG002
        """Before anything is forwarded; a reply is the answer, and nothing is forwarded at all."""
        return None

    def body(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """What is forwarded in place of these pieces."""
        return pieces

    def reply(self, reply: Reply) -> Reply:
        """What the client gets in place of this answer; the real service has done its work."""
        return reply


@dataclass(frozen=True, slots=True)
class Answer(Fault):
    """Answer in the place of the real service.

    EARLY the body is not even read, LATE it is read and thrown away, DONE the request was carried
    out and its real answer is thrown away.
    """

    status: int
    headers: Headers = field(default_factory=dict)
    content: bytes = b""
    when: When = When.EARLY

    def request(self, exchange: Exchange, body: Iterator[bytes]) -> Reply | None:  # noqa: ARG002
        if self.when is When.DONE:
            return None
        if self.when is When.LATE:
            for _ in body:
                pass
        return self._made()

    def reply(self, reply: Reply) -> Reply:  # noqa: ARG002
        return self._made()

    def _made(self) -> Reply:
        length = {"content-length": str(len(self.content))}
        return Reply(self.status, {**length, **self.headers}, iter((self.content,)))


def redirect(url: str, when: When = When.EARLY) -> Answer:
    """A redirect that keeps method and body (RFC 9110, section 15.4.8)."""
    return Answer(307, {"location": url}, when=when)


@dataclass(frozen=True, slots=True)
class Cut(Fault):
    """Break both connections after so many bytes of the request's body; 0 forwards nothing."""

    after_bytes: int = 0
    how: Break = Break.RESET

    def request(self, exchange: Exchange, body: Iterator[bytes]) -> Reply | None:  # noqa: ARG002
        return None if self.after_bytes else _break(self.how)

    def body(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        return _at(pieces, self.after_bytes, lambda: _break(self.how))


@dataclass(frozen=True, slots=True)
class Lose(Fault):
    """Let the request be carried out and lose its answer."""

    how: Break = Break.RESET

    def reply(self, reply: Reply) -> Reply:  # noqa: ARG002
        return _break(self.how)


@dataclass(frozen=True, slots=True)
class Flip(Fault):
    """Turn one bit of the request's body over."""

    offset: int = 0

    def body(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        return _flipped(pieces, self.offset)


@dataclass(frozen=True, slots=True)
class FlipReply(Fault):
    """Turn one bit of the answer's body over."""

    offset: int = 0

    def reply(self, reply: Reply) -> Reply:
        return replace(reply, body=_flipped(reply.body, self.offset))


@dataclass(frozen=True, slots=True)
class CutReply(Fault):
    """Break the connections after so many bytes of the answer's body."""

    after_bytes: int = 0
    how: Break = Break.CLOSE

    def reply(self, reply: Reply) -> Reply:
        return replace(reply, body=_at(reply.body, self.after_bytes, lambda: _break(self.how)))


@dataclass(frozen=True, slots=True)
class EditReply(Fault):
    """Change a small answer: it is read whole, and what the function makes of it goes out."""

    change: Callable[[bytes], bytes]

    def reply(self, reply: Reply) -> Reply:
        content = self.change(b"".join(reply.body))
        framing = ("content-length", "transfer-encoding")
        kept = {name: value for name, value in reply.headers.items() if name not in framing}
        headers = {**kept, "content-length": str(len(content))}
        return Reply(reply.status, headers, iter((content,)))


@dataclass(frozen=True, slots=True)
class Call(Fault):
    """Call a function at a moment of the request, and then go on, or break both connections.

    EARLY is before anything was forwarded, LATE after ``after_bytes`` of the body were, DONE when
    the real service has answered and the client has got nothing of it. The function runs in the
    proxy's thread and may take its time: kill the client, restart a service, wait for an event.
    """

    function: Callable[[], object]
    when: When = When.EARLY
    after_bytes: int = 0
    go_on: bool = True

    def request(self, exchange: Exchange, body: Iterator[bytes]) -> Reply | None:  # noqa: ARG002
        if self.when is When.EARLY:
            self._call()
        return None

    def body(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        return _at(pieces, self.after_bytes, self._call) if self.when is When.LATE else pieces

    def reply(self, reply: Reply) -> Reply:
        if self.when is When.DONE:
            self._call()
        return reply

    def _call(self) -> None:
        self.function()
        if not self.go_on:
            _break(Break.RESET)


def stall(until: threading.Event, when: When = When.EARLY, after_bytes: int = 0) -> Call:
    """Hold a request until an event comes, or patience ends."""
    return Call(lambda: until.wait(PATIENCE_S), when, after_bytes)


def _break(how: Break) -> NoReturn:
    raise BrokenOffError(how)


def _at(
    pieces: Iterator[bytes], after_bytes: int, function: Callable[[], object]
) -> Iterator[bytes]:
    """Call a function once exactly so many bytes were given; never when there are fewer."""
    left_bytes = after_bytes
    for piece in pieces:
        if 0 <= left_bytes < len(piece):
            if left_bytes:
                yield piece[:left_bytes]
            function()
            yield piece[left_bytes:]
        else:
            yield piece
        left_bytes -= len(piece)
    if left_bytes == 0:
        function()


def _flipped(pieces: Iterator[bytes], offset: int) -> Iterator[bytes]:
    start = 0
    for piece in pieces:
        at = offset - start
        if 0 <= at < len(piece):
            yield piece[:at] + bytes((piece[at] ^ 1,)) + piece[at + 1 :]
        else:
            yield piece
        start += len(piece)
