"""Several digests of the same bytes at once."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable
from types import TracebackType

from glancing.model import Digest

# Handing over costs some microseconds per thread and batch; six batches even out the speeds.
_BATCH_BYTES = 256 * 1024
_BATCHES = 6


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
