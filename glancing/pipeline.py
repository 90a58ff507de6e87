"""The one pass: read, hash, decompress, hash, inspect, hold back the tail until all is verified.

``Pipeline`` turns the bytes of a source into the bytes of an image and ends normally only when
every expectation holds. ``Body`` is what an upload sends: it always holds back a reserve, which
keeps the request alive while the source stalls, and gives its last byte away only after the
pipeline ended normally. So a request whose image is not what was published never gets complete.

Memory: a body buffers twice its reserve, a hasher some batches of 256 KiB; with the defaults the
whole stays below 16 MiB, whatever the size of the image.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from types import TracebackType

from glancing.decompress import HEAD_BYTES, OutputLimit, decompress, sniff
from glancing.errors import (
    DownloadError,
    ErrorKind,
    InterruptedRunError,
    VerificationError,
)
from glancing.formats import Inspector
from glancing.model import MIB, Compression, Digest, Expected, Measured, SourceStream

#: The most that one piece of an image holds. Below it, what a piece costs besides its bytes
#: (locks, queues, the inspector) begins to show next to the digests.
PIECE_BYTES = 256 * 1024

#: The most that one piece of a body without a size holds: uWSGI's router resets connections whose
#: chunks are larger than its buffer; 64 KiB pass, 1 MiB do not (measured).
CHUNK_BYTES = 64 * 1024

_BATCH_BYTES = 256 * 1024
_BATCHES = 6

# --- digests --------------------------------------------------------------------------------------


class Hasher:
    """Several digests of the same bytes at once, each in a thread of its own.

    hashlib lets go of the interpreter lock while it computes, so that the slowest algorithm and
    not their sum is what is waited for. Less than a batch is hashed without any thread. Raises
    ValueError for an algorithm that hashlib does not know.
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._hashes = {
            name: hashlib.new(name, usedforsecurity=False) for name in dict.fromkeys(algorithms)
        }
        self._workers: list[_Worker] = []
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._closed = False

    def __enter__(self) -> Hasher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def update(self, piece: bytes) -> None:
        """Hash the next piece; waits while the slowest thread is far behind."""
        self._batch.append(piece)
        self._batch_bytes += len(piece)
        if self._batch_bytes >= _BATCH_BYTES:
            self._hand_over()

    def digests(self) -> tuple[Digest, ...]:
        """All digests, in the order asked for; ends the hashing."""
        self.close()
        return tuple(Digest(name, each.hexdigest()) for name, each in self._hashes.items())

    def close(self) -> None:
        """Hash what is left and end the threads; safe more than once."""
        if self._closed:
            return
        self._closed = True
        if self._workers:
            self._hand_over()
        else:
            self._hash_here()
        for worker in self._workers:
            worker.finish()

    def _hand_over(self) -> None:
        if not self._workers:
            self._workers = [_Worker(each.update) for each in self._hashes.values()]
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        for worker in self._workers:
            worker.put(batch)

    def _hash_here(self) -> None:
        for each in self._hashes.values():
            for piece in self._batch:
                each.update(piece)


class _Worker:
    """A thread that feeds one hash from a bounded queue."""

    def __init__(self, update: Callable[[bytes], None]) -> None:
        self._update = update
        self._queue: queue.Queue[list[bytes] | None] = queue.Queue(_BATCHES)
        self._thread = threading.Thread(target=self._run, name="glancing-hash", daemon=True)
        self._thread.start()

    def put(self, batch: list[bytes]) -> None:
        self._queue.put(batch)

    def finish(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            for piece in batch:
                self._update(piece)


# --- the pass over the bytes ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checks:
    """What must hold of the bytes of one image, and what is to be found out besides.

    ``image_algorithms`` and ``published_algorithms`` are computed in any case, beside the expected
    ones. ``verify_digests`` False ignores expected digests and the demand that something proves
    the end; sizes and formats are checked all the same. ``force`` notes wrong digests and sizes
    instead of raising, and never touches the checks of the format. ``operator_disk_format`` is
    the operator's word on the format, ``detected`` included. ``max_size_bytes`` bounds both the
    published file and the image.
    """

    expected: Expected
    image_algorithms: tuple[str, ...] = ("md5", "sha512")
    published_algorithms: tuple[str, ...] = ()
    force: bool = False
    verify_digests: bool = True
    operator_disk_format: str | None = None
    max_size_bytes: int = 1024**4


class Pipeline:
    """One pass over a source: iterating gives the image in pieces of at most ``PIECE_BYTES``.

    1. refuse a source whose end nothing would prove, or whose announced size is wrong
    2. name the compression by the first bytes, and refuse another one than was declared
    3. for every piece: count and hash as published, decompress, count and hash as image, inspect
    4. at the end: sizes, digests, format; only then the iteration ends normally

    ``start`` does the first two and may be called before, for who needs to know the image's size
    in advance. ``measured`` is there once the iteration has ended. Raises VerificationError,
    UnsafeImageError, DownloadError (also ``unverifiable``), and whatever the stream raises.
    """

    def __init__(self, stream: SourceStream, checks: Checks) -> None:
        self._stream = stream
        self._checks = checks
        self._begun = False
        self._pieces: Iterator[bytes] | None = None
        self._inspector: Inspector | None = None
        self._measured: Measured | None = None
        expected = checks.expected if checks.verify_digests else _without_digests(checks.expected)
        self._expected = expected
        self._published = _Side("published file", checks, expected.published_size_bytes)
        self._compression = Compression.NONE
        either = tuple(each.algorithm for each in expected.either)
        self._published_algorithms = (
            *checks.published_algorithms,
            *(each.algorithm for each in expected.published),
            *either,
        )
        self._image_algorithms = (
            *checks.image_algorithms,
            *(each.algorithm for each in expected.image),
            *either,
        )

    @property
    def measured(self) -> Measured:
        """What was found out; RuntimeError while the pass has not ended well."""
        if self._measured is None:
            raise RuntimeError("the image has not been read and verified to its end")
        return self._measured

    def __iter__(self) -> Iterator[bytes]:
        if self._begun:
            raise RuntimeError("a source is read once")
        self._begun = True
        return self._run()

    @property
    def image_size_bytes(self) -> int | None:
        """How large the image is going to be, as far as that is certain after ``start``.

        A source's own announcement holds for an image that is not compressed; what a list says
        does not when the operator forces the import.
        """
        if self._compression is Compression.NONE and self._stream.size_bytes is not None:
            return self._stream.size_bytes
        return None if self._checks.force else self._expected.image_size_bytes

    @property
    def likely_format(self) -> str | None:
        """The disk format by the bytes read so far; None while they do not tell."""
        if self._measured is not None:
            return self._measured.disk_format
        return self._inspector.likely_format if self._inspector else None

    def start(self) -> None:
        """Read the first bytes; raises what is wrong already. Safe more than once."""
        if self._pieces is not None:
            return
        self._check_announced()
        head, self._pieces = _peek(self._published.limited(self._stream))
        self._compression = self._compression_of(head)

    def _run(self) -> Iterator[bytes]:
        self.start()
        if self._compression is Compression.NONE:
            yield from self._run_plain()
        else:
            yield from self._run_compressed()

    def _run_plain(self) -> Iterator[bytes]:
        """Published file and image are the same bytes: nothing is computed twice."""
        self._check_announced_image()
        image = _Side("image", self._checks, self._expected.image_size_bytes)
        algorithms = self._published_algorithms + self._image_algorithms
        with Hasher(algorithms) as hasher:
            yield from self._inspected(image.limited(self._all_pieces()), hasher)
            digests = hasher.digests()
        self._published.digests = _pick(digests, dict.fromkeys(self._published_algorithms))
        image.digests = _pick(digests, dict.fromkeys(self._image_algorithms))
        self._conclude(image)

    def _run_compressed(self) -> Iterator[bytes]:
        image = _Side("image", self._checks, self._expected.image_size_bytes)
        with Hasher(self._published_algorithms) as outer, Hasher(self._image_algorithms) as inner:
            hashed = _hashed(self._all_pieces(), outer)
            unpacked = decompress(hashed, self._compression, self._output_limit())
            yield from self._inspected(image.limited(unpacked), inner)
            self._published.digests = outer.digests()
            image.digests = inner.digests()
        self._conclude(image)

    def _all_pieces(self) -> Iterator[bytes]:
        assert self._pieces is not None  # noqa: S101 - start() was called
        return self._pieces

    def _inspected(self, pieces: Iterator[bytes], hasher: Hasher) -> Iterator[bytes]:
        inspector = Inspector(self._expected.disk_format, self._checks.operator_disk_format)
        self._inspector = inspector
        for piece in _hashed(pieces, hasher):
            inspector.feed(piece)
            yield piece

    # checks before and while reading

    def _check_announced(self) -> None:
        """Refuse what is wrong before a byte was read."""
        expected, announced = self._expected, self._stream.size_bytes
        sizes = (expected.published_size_bytes, expected.image_size_bytes)
        proven = self._stream.end_is_proven or expected.digests or any(s is not None for s in sizes)
        if self._checks.verify_digests and not proven:
            raise _unverifiable()
        if announced is None:
            return
        if announced > self._checks.max_size_bytes:
            raise _too_large("published file", self._checks.max_size_bytes)
        self._check_size("published file", expected.published_size_bytes, announced)

    def _check_announced_image(self) -> None:
        if self._stream.size_bytes is not None:
            self._check_size("image", self._expected.image_size_bytes, self._stream.size_bytes)

    def _check_size(self, what: str, expected_bytes: int | None, announced_bytes: int) -> None:
        if expected_bytes in (None, announced_bytes) or self._checks.force:
            return
        raise VerificationError(
            f"the size of the {what} is wrong: expected {expected_bytes} bytes, "
            f"the source announces {announced_bytes}",
            kind=ErrorKind.WRONG_SIZE,
        )

    def _compression_of(self, head: bytes) -> Compression:
        if not head:
            raise VerificationError("the published file is empty", kind=ErrorKind.EMPTY)
        declared, found = self._expected.compression, sniff(head)
        if declared in (None, found):
            return found
        raise VerificationError(
            f"the published file was to be {_named(declared)} and is {_named(found)}",
            kind=ErrorKind.BAD_COMPRESSION,
        )

    def _output_limit(self) -> OutputLimit:
        size_is_known = self._expected.image_size_bytes is not None and not self._checks.force
        if size_is_known:
            return OutputLimit(self._checks.max_size_bytes, max_ratio=None)
        return OutputLimit(self._checks.max_size_bytes)

    # checks at the end

    def _conclude(self, image: _Side) -> None:
        assert self._inspector is not None  # noqa: S101 - every piece went by it
        published, verdict = self._published, _Verdict()
        announced = self._stream.size_bytes
        if announced is not None and announced != published.size_bytes:
            raise DownloadError(
                f"the source announced {announced} bytes and gave {published.size_bytes}",
                kind=ErrorKind.INCOMPLETE,
                transient=True,
            )
        if image.size_bytes == 0:
            raise VerificationError("the image is empty", kind=ErrorKind.EMPTY)
        for side in (published, image):
            verdict.judge_size(side)
        verdict.judge(self._expected.published, published)
        verdict.judge(self._expected.image, image)
        verdict.judge(self._expected.either, published, image)
        if not self._checks.force:
            verdict.enforce()
        disk_format, virtual_size_bytes = self._inspector.finish()
        self._measured = Measured(
            published=published.digests,
            image=image.digests,
            published_size_bytes=published.size_bytes,
            image_size_bytes=image.size_bytes,
            compression=self._compression,
            disk_format=disk_format,
            virtual_size_bytes=virtual_size_bytes,
            matched=tuple(verdict.matched),
            mismatched=tuple(verdict.mismatched),
        )


class _Side:
    """The bytes on one side of the decompressor: their count, their digests, their limits."""

    def __init__(self, name: str, checks: Checks, expected_size_bytes: int | None) -> None:
        self.name = name
        self.expected_size_bytes = expected_size_bytes
        self.size_bytes = 0
        self.digests: tuple[Digest, ...] = ()
        self._max_size_bytes = checks.max_size_bytes
        self._enforced_bytes = None if checks.force else expected_size_bytes

    def limited(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Count and hand on pieces of at most ``PIECE_BYTES``, and stop at the first too many."""
        for piece in pieces:
            self.size_bytes += len(piece)
            self._check()
            if len(piece) <= PIECE_BYTES:
                yield piece
            else:
                yield from _sliced(piece)

    def _check(self) -> None:
        if self.size_bytes > self._max_size_bytes:
            raise _too_large(self.name, self._max_size_bytes)
        if self._enforced_bytes is not None and self.size_bytes > self._enforced_bytes:
            raise VerificationError(
                f"the size of the {self.name} is wrong: "
                f"expected {self._enforced_bytes} bytes, and there are more",
                kind=ErrorKind.WRONG_SIZE,
            )


class _Verdict:
    """What held, what did not, and the first failure."""

    def __init__(self) -> None:
        self.matched: list[str] = []
        self.mismatched: list[str] = []
        self._failures: list[VerificationError] = []

    def judge_size(self, side: _Side) -> None:
        expected_bytes = side.expected_size_bytes
        if expected_bytes in (None, side.size_bytes):
            return
        sentence = (
            f"size of the {side.name}: expected {expected_bytes} bytes, got {side.size_bytes}"
        )
        self._fail(sentence, ErrorKind.WRONG_SIZE)

    def judge(self, wanted: Iterable[Digest], *sides: _Side) -> None:
        """Every digest must be that of one of the sides."""
        for digest in wanted:
            match = next((side for side in sides if digest in side.digests), None)
            if match:
                self.matched.append(f"{digest.algorithm} of the {match.name}")
                continue
            names = " or the ".join(side.name for side in sides)
            computed = " and ".join(_value(side, digest.algorithm) for side in sides)
            self._fail(
                f"{digest.algorithm} of the {names}: expected {digest.value}, computed {computed}",
                ErrorKind.WRONG_DIGEST,
            )

    def enforce(self) -> None:
        if self._failures:
            raise self._failures[0]

    def _fail(self, sentence: str, kind: ErrorKind) -> None:
        self.mismatched.append(sentence)
        self._failures.append(VerificationError(f"wrong {sentence}", kind=kind))


def _value(side: _Side, algorithm: str) -> str:
    return next(each.value for each in side.digests if each.algorithm == algorithm)


def _without_digests(expected: Expected) -> Expected:
    return Expected(
        published_size_bytes=expected.published_size_bytes,
        image_size_bytes=expected.image_size_bytes,
        compression=expected.compression,
        disk_format=expected.disk_format,
    )


def _pick(digests: tuple[Digest, ...], algorithms: Iterable[str]) -> tuple[Digest, ...]:
    found = {each.algorithm: each for each in digests}
    return tuple(found[name] for name in algorithms)


def _hashed(pieces: Iterable[bytes], hasher: Hasher) -> Iterator[bytes]:
    for piece in pieces:
        hasher.update(piece)
        yield piece


def _sliced(piece: bytes) -> Iterator[bytes]:
    view = memoryview(piece)
    for begin in range(0, len(view), PIECE_BYTES):
        yield bytes(view[begin : begin + PIECE_BYTES])


def _peek(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and all pieces with the first ones again."""
    taken: list[bytes] = []
    while sum(map(len, taken)) < HEAD_BYTES and (piece := next(pieces, None)) is not None:
        taken.append(piece)
    return b"".join(taken), chain(taken, pieces)


def _named(compression: Compression | None) -> str:
    return "uncompressed" if compression is Compression.NONE else f"{compression} data"


def _too_large(what: str, max_size_bytes: int) -> VerificationError:
    return VerificationError(
        f"the {what} is larger than the allowed {max_size_bytes} bytes",
        kind=ErrorKind.TOO_LARGE,
        hint="--max-size sets what is allowed",
    )


def _unverifiable() -> DownloadError:
    return DownloadError(
        "nothing would tell if the file were cut off: the source does not say its length, "
        "and there is neither a digest nor a size to compare with",
        kind=ErrorKind.UNVERIFIABLE,
        hint="give a digest with --sums, or accept the risk with --no-checksum",
    )


# --- the body of an upload ------------------------------------------------------------------------


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
