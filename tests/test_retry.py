from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from glancing.errors import DownloadError, GlancingError, InterruptedRunError
from glancing.model import RetryPolicy
from glancing.retry import Patience, call, wait_s

QUICK = RetryPolicy(attempts=4, first_wait_s=0.001, longest_wait_s=0.002)


def failing(times: int, error: Exception) -> tuple[Callable[[], str], list[int]]:
    calls: list[int] = []

    def function() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return function, calls


def transient() -> DownloadError:
    return DownloadError("cut", transient=True)


def test_a_transient_error_is_tried_again_until_it_works() -> None:
    function, calls = failing(3, transient())
    assert call(QUICK, function) == "done"
    assert len(calls) == 4


def test_the_last_error_comes_out_as_it_was() -> None:
    error = transient()
    function, calls = failing(9, error)
    with pytest.raises(DownloadError) as caught:
        call(QUICK, function)
    assert caught.value is error and len(calls) == 4


@pytest.mark.parametrize("error", [DownloadError("gone"), ValueError("a mistake of ours")])
def test_what_is_not_transient_is_not_repeated(error: Exception) -> None:
    function, calls = failing(1, error)
    with pytest.raises(type(error)):
        call(QUICK, function)
    assert len(calls) == 1


def test_an_error_may_be_worth_fewer_attempts() -> None:
    function, calls = failing(9, transient())
    with pytest.raises(DownloadError):
        call(QUICK, function, attempts_for=lambda _: 2)
    assert len(calls) == 2


def test_each_retry_is_told_with_its_wait() -> None:
    told: list[tuple[GlancingError, int, float]] = []
    error = DownloadError("busy", transient=True, retry_after_s=0.0015)
    function, _ = failing(2, error)
    call(QUICK, function, on_retry=lambda *facts: told.append(facts))
    assert told == [(error, 1, 0.0015), (error, 2, 0.0015)]


def test_waits_grow_and_are_capped() -> None:
    """Fault 18: Retry-After counts, but no more than 60 s."""
    policy = RetryPolicy()
    assert 0.25 <= wait_s(policy, 1, transient()) <= 0.5
    assert 1.0 <= wait_s(policy, 3, transient()) <= 2.0
    assert 30.0 <= wait_s(policy, 5000, transient()) <= 60.0
    assert wait_s(policy, 1, DownloadError("x", retry_after_s=7)) == 7
    assert wait_s(policy, 1, DownloadError("x", retry_after_s=3600)) == 60
    assert wait_s(policy, 1, DownloadError("x", retry_after_s=-5)) == 0


def test_a_wait_is_broken_off_by_the_stop_event() -> None:
    stop = threading.Event()
    error = DownloadError("busy", transient=True, retry_after_s=3600)
    function, calls = failing(9, error)
    policy = RetryPolicy(longest_wait_s=3600)
    with pytest.raises(InterruptedRunError):
        call(policy, function, stop=stop, on_retry=lambda *_: stop.set())
    assert len(calls) == 1


def test_patience_ends_when_nothing_is_gained() -> None:
    patience = Patience(QUICK, enough_bytes=10, most_failures=50)
    for _ in range(3):
        patience.gained(9)
        patience.failed(transient())
    with pytest.raises(DownloadError):
        patience.failed(transient())


def test_patience_forgets_failures_when_enough_was_gained_but_not_for_ever() -> None:
    patience = Patience(QUICK, enough_bytes=10, most_failures=7)
    for _ in range(7):
        patience.gained(10)
        patience.failed(transient())
    patience.gained(10)
    with pytest.raises(DownloadError):
        patience.failed(transient())


def test_patience_does_not_wait_for_what_is_permanent() -> None:
    with pytest.raises(DownloadError):
        Patience(QUICK, enough_bytes=1, most_failures=5).failed(DownloadError("gone"))
