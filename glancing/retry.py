"""The one place where anything is tried again.

What may be tried again is the adapter's word, ``GlancingError.transient``; how often and how
patiently is the ``RetryPolicy``. Waits grow exponentially with jitter, so that many jobs that were
cut off together do not come back together, and are broken off when the run is told to stop.

``call`` repeats a whole function. ``Patience`` is for a step that keeps what it has already got,
like a download that is resumed: there an attempt counts only when nothing was gained by it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import Event
from typing import TypeVar

import tenacity

from glancing.errors import GlancingError, InterruptedRunError
from glancing.model import RetryPolicy

T = TypeVar("T")

OnRetry = Callable[[GlancingError, int, float], None]
"""Told before each wait: the error, the number of failed attempts so far, the wait in seconds."""

AttemptsFor = Callable[[GlancingError], int]
"""How many attempts an error is worth in all; the policy's number is still the upper bound."""


def call(
    policy: RetryPolicy,
    function: Callable[[], T],
    *,
    stop: Event | None = None,
    on_retry: OnRetry | None = None,
    attempts_for: AttemptsFor | None = None,
) -> T:
    """Call a function until it succeeds, fails for good, or the policy's attempts are used up.

    Raises the last error as it was, or InterruptedRunError when ``stop`` was set during a wait.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_transient),
        stop=lambda state: state.attempt_number >= _bound(policy, attempts_for, _error_of(state)),
        wait=lambda state: wait_s(policy, state.attempt_number, _error_of(state)),
        sleep=lambda seconds: pause(seconds, stop),
        before_sleep=_before_sleep(on_retry),
        reraise=True,
    )
    return retrying(function)


class Patience:
    """Counts attempts that gained nothing, and waits between them.

    ``gained`` forgets earlier failures once ``enough_bytes`` more arrived, so a long download may
    be resumed many times, yet never more than ``most_failures`` times in all.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        enough_bytes: int,
        most_failures: int,
        stop: Event | None = None,
        on_retry: OnRetry | None = None,
        attempts_for: AttemptsFor | None = None,
    ) -> None:
        self._policy = policy
        self._enough_bytes = enough_bytes
        self._failures_left = most_failures
        self._stop = stop
        self._on_retry = on_retry
        self._attempts_for = attempts_for
        self._failures = 0
        self._gained_bytes = 0

    def gained(self, size_bytes: int) -> None:
        """Take note of new bytes."""
        self._gained_bytes += size_bytes

    def failed(self, error: GlancingError) -> None:
        """Wait before the next attempt; raises the error when there is not to be one."""
        if self._gained_bytes >= self._enough_bytes:
            self._failures = 0
        self._gained_bytes = 0
        self._failures += 1
        self._failures_left -= 1
        worth_it = self._failures < _bound(self._policy, self._attempts_for, error)
        if not error.transient or not worth_it or self._failures_left < 0:
            raise error
        seconds = wait_s(self._policy, self._failures, error)
        if self._on_retry:
            self._on_retry(error, self._failures, seconds)
        pause(seconds, self._stop)


def wait_s(policy: RetryPolicy, attempt: int, error: BaseException | None) -> float:
    """How long to wait after failed attempt number ``attempt`` (from 1), in seconds.

    What the server asked for (Retry-After, RFC 9110, section 10.2.3) comes first; both are capped
    by the policy.
    """
    asked_s = error.retry_after_s if isinstance(error, GlancingError) else None
    if asked_s is not None:
        return min(max(asked_s, 0.0), policy.longest_wait_s)
    # The exponent is capped as well: 2.0**1024 is an OverflowError.
    growing_s = policy.first_wait_s * 2.0 ** min(attempt - 1, 32)
    jitter = random.uniform(0.5, 1.0)  # noqa: S311 (not a secret)
    return min(growing_s, policy.longest_wait_s) * jitter


def pause(seconds: float, stop: Event | None) -> None:
    """Wait, or raise InterruptedRunError at once when ``stop`` is set."""
    if (stop or Event()).wait(seconds):
        raise InterruptedRunError("interrupted while waiting for the next attempt")


def _bound(
    policy: RetryPolicy, attempts_for: AttemptsFor | None, error: BaseException | None
) -> int:
    if attempts_for is None or not isinstance(error, GlancingError):
        return policy.attempts
    return min(policy.attempts, attempts_for(error))


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, GlancingError) and error.transient


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _before_sleep(on_retry: OnRetry | None) -> Callable[[tenacity.RetryCallState], None]:
    def tell(state: tenacity.RetryCallState) -> None:
        error = _error_of(state)
        if on_retry and state.next_action and isinstance(error, GlancingError):
            on_retry(error, state.attempt_number, state.next_action.sleep)

    return tell
