"""Works on several things at once and hands results over as they come.

Workers are daemon threads: a run that was told to stop does not wait for a socket that says
nothing. The one who waits can be interrupted by a signal at any time.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Done(Generic[R]):
    index: int
    result: R | None
    error: BaseException | None


class Crew(Generic[T, R]):
    """Runs one function over many things on a few threads.

    ``results`` yields pairs of position and result in the order in which they are finished. An
    exception of the function is raised there: what must not end the others is the function's own
    business to catch.
    """

    def __init__(self, function: Callable[[T], R], things: Iterable[T], *, workers: int) -> None:
        self._function = function
        self._waiting: queue.SimpleQueue[tuple[int, T]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Done[R]] = queue.SimpleQueue()
        self._count = 0
        for thing in things:
            self._waiting.put((self._count, thing))
            self._count += 1
        self._received = 0
        for number in range(min(workers, self._count)):
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True).start()

    def results(self) -> Iterator[tuple[int, R]]:
        """Yield results until all things are done."""
        while self._received < self._count:
            yield self._receive(self._done.get())

    def results_within(self, seconds: float) -> Iterator[tuple[int, R]]:
        """Yield what is finished within the given time, after the work was cut short."""
        deadline_s = time.monotonic() + seconds
        with suppress(queue.Empty):
            while self._received < self._count:
                left_s = max(0.0, deadline_s - time.monotonic())
                yield self._receive(self._done.get(timeout=left_s))

    def _receive(self, done: _Done[R]) -> tuple[int, R]:
        self._received += 1
        if done.error is not None:
            raise done.error
        return done.index, done.result  # type: ignore[return-value]  # no error, so a result

    def _work(self) -> None:
        with suppress(queue.Empty):
            while True:
                index, thing = self._waiting.get_nowait()
                self._done.put(self._one(index, thing))

    def _one(self, index: int, thing: T) -> _Done[R]:
        try:
            return _Done(index, self._function(thing), None)
        except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
            return _Done(index, None, error)
