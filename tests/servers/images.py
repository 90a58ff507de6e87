"""A well-behaved file server, with what real mirrors differ in as switches."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.servers.raw import Action, BadServer, Request, head

BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Served:
    """One file as a mirror serves it; ``cut_after`` breaks its first transfer at that byte."""

    data: bytes
    etag: str | None = '"1"'
    ranges: bool = True
    chunked: bool = False
    cut_after: int | None = None
    headers: Mapping[str, str | int] = field(default_factory=dict)


class ImageServer(BadServer):
    """Serves files by path, with ETag, Range and If-Range; the mapping may change at any time."""

    def __init__(
        self, files: Mapping[str, Served | bytes], *, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(self._answer, tls=tls)
        self.files = dict(files)

    def __enter__(self) -> ImageServer:
        super().__enter__()
        return self

    def _answer(self, request: Request) -> Iterable[Action]:
        served = self.files.get(request.path.partition("?")[0])
        if served is None:
            return [head(404, content_length=0)]
        if isinstance(served, bytes):
            served = Served(served)
        if served.cut_after is not None and self._seen(request) == 1:
            return [_whole_head(served), served.data[: served.cut_after]]
        return _answer(served, request)

    def _seen(self, request: Request) -> int:
        """How often the path was asked for with GET so far, this time included."""
        asked = (request.method, request.path)
        return sum((seen.method, seen.path) == asked for seen in self.requests)


def _answer(served: Served, request: Request) -> Iterator[Action]:
    start = _range_start(served, request)
    if start is not None and start >= len(served.data):
        yield head(416, content_length=0, content_range=f"bytes */{len(served.data)}")
        return
    yield _whole_head(served) if start is None else _part_head(served, start)
    if request.method == "HEAD":
        return
    for offset in range(start or 0, len(served.data), BLOCK_BYTES):
        block = served.data[offset : offset + BLOCK_BYTES]
        yield b"%x\r\n%s\r\n" % (len(block), block) if served.chunked else block
    if served.chunked:
        yield b"0\r\n\r\n"


def _range_start(served: Served, request: Request) -> int | None:
    wanted = request.headers.get("range")
    if not served.ranges or wanted is None:
        return None
    if request.headers.get("if-range", served.etag) != served.etag:
        return None
    return int(wanted.removeprefix("bytes=").partition("-")[0])


def _whole_head(served: Served) -> bytes:
    return head(200, **_framing(served, len(served.data)), **_traits(served))


def _part_head(served: Served, start: int) -> bytes:
    size = len(served.data)
    content_range = f"bytes {start}-{size - 1}/{size}"
    framing = _framing(served, size - start)
    return head(206, content_range=content_range, **framing, **_traits(served))


def _framing(served: Served, size_bytes: int) -> dict[str, str | int]:
    if served.chunked:
        return {"transfer_encoding": "chunked"}
    return {"content_length": size_bytes}


def _traits(served: Served) -> dict[str, str | int]:
    traits = dict(served.headers)
    if served.etag is not None:
        traits["etag"] = served.etag
    if served.ranges:
        traits["accept_ranges"] = "bytes"
    return traits
