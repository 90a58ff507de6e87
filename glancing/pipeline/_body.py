"""The body of one upload: the tail is held back until all is verified, the reserve drips."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from glancing.errors import ErrorKind, InterruptedRunError, VerificationError
from glancing.model import MIB

#: The most that one piece of an image holds, and one of a body of a known size. With much smaller
#: ones, what a piece costs besides its bytes (locks, queues) begins to show next to the digests.
PIECE_BYTES = 256 * 1024

#: The most that one piece of a body without a size holds: uWSGI's router resets connections whose
#: chunks are larger than its buffer; 64 KiB pass, 1 MiB do not (measured).
CHUNK_BYTES = 64 * 1024


class Body:
    """What one upload sends: pieces that a thread fetches, with the tail held back.

    ``pieces`` (usually a Pipeline) end normally only when all is verified. Then ``gate`` is
    called in the same thread, and may raise to withhold the tail for ever. Until both have
    passed, at least one byte stays here. While the source stalls, ``drip_bytes`` of the reserve
    are given every ``drip_interval_s``, because web servers drop a request whose body stalls.

    What failed is raised out of the iteration, so that the request breaks off, and kept as
    ``error``. A body is iterated once: what a client library sends again after a refusal would
    be the rest of an image. ``stop`` ends everything with InterruptedRunError. ``on_close`` is
    called by ``close`` to break off a read that blocks.
    """

    def __init__(
        self,
        pieces: Iterable[bytes],
        size_bytes: int | None = None,
        *,
        gate: Callable[[], None] | None = None,
        on_close: Callable[[], None] | None = None,
        stop: threading.Event | None = None,
        reserve_bytes: int = 4 * MIB,
        drip_interval_s: float = 1.0,
        drip_bytes: int = 64,
    ) -> None:
        self.size_bytes = size_bytes
        self._pieces = pieces
        self._gate = gate
        self._on_close = on_close
        self._drip_interval_s = drip_interval_s
        self._drip_bytes = drip_bytes
        self._piece_bytes = CHUNK_BYTES if size_bytes is None else PIECE_BYTES
        self._stock = _Stock(reserve_bytes, stop or threading.Event())
        self._producer: threading.Thread | None = None
        self._iterated = False

    @property
    def error(self) -> BaseException | None:
        """What the pieces or the gate raised, to be told from an error of the request."""
        return self._stock.error

    def wait_ready(self) -> None:
        """Wait until the reserve is full, or everything is there and verified.

        Raises what the pieces or the gate raised, and InterruptedRunError.
        """
        self._start()
        self._stock.wait_ready()

    def __iter__(self) -> Iterator[bytes]:
        if self._iterated:
            raise RuntimeError("the body of an upload is sent once")
        self._iterated = True
        return self._give()

    def close(self, timeout_s: float = 5.0) -> None:
        """Break off; waits at most ``timeout_s`` for the thread. Safe more than once."""
        on_close, self._on_close = self._on_close, None
        self._stock.close()
        if on_close:
            on_close()
        if self._producer and self._producer is not threading.current_thread():
            self._producer.join(timeout_s)

    def _start(self) -> None:
        if self._producer is None:
            self._producer = threading.Thread(
                target=self._produce, name="glancing-body", daemon=True
            )
            self._producer.start()

    def _give(self) -> Iterator[bytes]:
        self.wait_ready()
        while piece := self._stock.take(self._piece_bytes, self._drip_bytes, self._drip_interval_s):
            yield piece

    def _produce(self) -> None:
        try:
            self._fill()
        except BaseException as error:  # noqa: BLE001 - raised again where the pieces are awaited
            self._stock.end(error)
        else:
            self._stock.end(None)

    def _fill(self) -> None:
        total = 0
        pieces = iter(self._pieces)
        try:
            for piece in pieces:
                total += len(piece)
                if self.size_bytes is not None and total > self.size_bytes:
                    raise self._wrong_size(f"more than {self.size_bytes}")
                self._stock.put(piece)
        finally:
            _close(pieces)
        if total == 0:
            raise VerificationError("the image is empty", kind=ErrorKind.EMPTY)
        if self.size_bytes not in (None, total):
            raise self._wrong_size(str(total))
        if self._gate:
            self._gate()

    def _wrong_size(self, got: str) -> VerificationError:
        return VerificationError(
            f"the upload was announced with {self.size_bytes} bytes and the image has {got}",
            kind=ErrorKind.WRONG_SIZE,
        )


def _close(pieces: Iterator[bytes]) -> None:
    """End a generator here and now, with the threads that it keeps."""
    close = getattr(pieces, "close", None)
    if close:
        close()


class SizedBody(Body):
    """A body of a known size, which HTTP libraries send with Content-Length."""

    def __len__(self) -> int:
        return self.size_bytes or 0


def upload_body(
    pieces: Iterable[bytes],
    size_bytes: int | None = None,
    *,
    gate: Callable[[], None] | None = None,
    on_close: Callable[[], None] | None = None,
    stop: threading.Event | None = None,
    reserve_bytes: int = 4 * MIB,
    drip_interval_s: float = 1.0,
    drip_bytes: int = 64,
) -> Body:
    """Make the body of an upload: one with a length where the size is known."""
    kind = Body if size_bytes is None else SizedBody
    return kind(
        pieces,
        size_bytes,
        gate=gate,
        on_close=on_close,
        stop=stop,
        reserve_bytes=reserve_bytes,
        drip_interval_s=drip_interval_s,
        drip_bytes=drip_bytes,
    )


class _Stock:
    """The bytes between the thread that fetches and the one that sends.

    It holds at most the reserve and as much again. ``stop`` is looked at every ``_LOOK_S``
    seconds by whoever waits, because an event of somebody else's does not wake them.
    """

    _LOOK_S = 0.25

    def __init__(self, reserve_bytes: int, stop: threading.Event) -> None:
        self.error: BaseException | None = None
        self._reserve_bytes = max(1, reserve_bytes)
        self._capacity_bytes = 2 * self._reserve_bytes
        self._stop = stop
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._size_bytes = 0
        self._ended = False
        self._closed = False

    # the side that fetches

    def put(self, piece: bytes) -> None:
        """Add a piece; waits for room."""
        with self._changed:
            while self._size_bytes >= self._capacity_bytes:
                self._check_interrupted()
                self._changed.wait(self._LOOK_S)
            self._check_interrupted()
            if piece:
                self._pieces.append(piece)
                self._size_bytes += len(piece)
            self._changed.notify_all()

    def end(self, error: BaseException | None) -> None:
        """Say that no more comes: everything is verified, or ``error`` happened."""
        with self._changed:
            self.error = error
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Wake everybody up to be interrupted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # the side that sends

    def wait_ready(self) -> None:
        with self._changed:
            while not (self._ended or self._size_bytes >= self._reserve_bytes):
                self._check_interrupted()
                self._changed.wait(self._LOOK_S)
            self._check_usable()

    def take(self, max_bytes: int, drip_bytes: int, drip_interval_s: float) -> bytes:
        """The next piece; a drip of the reserve when nothing came in time; b"" at the end."""
        with self._changed:
            while not self._wait_spare(drip_interval_s):
                if drip := self._pop(min(drip_bytes, self._size_bytes - 1)):
                    return drip
            spare = self._size_bytes if self._ended else self._size_bytes - self._reserve_bytes
            return self._pop(min(max_bytes, spare))

    def _wait_spare(self, timeout_s: float) -> bool:
        """Wait for more than the reserve, or the end; False when the time ran out before."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._check_usable()
            if self._ended or self._size_bytes > self._reserve_bytes:
                return True
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            self._changed.wait(min(self._LOOK_S, left_s))

    def _pop(self, max_bytes: int) -> bytes:
        """Up to ``max_bytes`` bytes from the front."""
        if max_bytes <= 0 or not self._pieces:
            return b""
        piece = self._pieces.popleft()
        if len(piece) > max_bytes:
            self._pieces.appendleft(piece[max_bytes:])
            piece = piece[:max_bytes]
        self._size_bytes -= len(piece)
        self._changed.notify_all()
        return piece

    def _check_usable(self) -> None:
        if self.error is not None:
            raise self.error
        self._check_interrupted()

    def _check_interrupted(self) -> None:
        if self._stop.is_set():
            raise InterruptedRunError("the run was told to stop")
        if self._closed:
            raise InterruptedRunError("the upload was broken off")
