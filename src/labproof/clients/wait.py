"""The one place that sleeps: bounded waiting for a state, and bounded asking again for a read.

Both stand on tenacity. A wait ends early on a terminal state and, when its limit passes, says what it saw
last. Only transport failures are ever asked again; a judgement never is.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

import tenacity

from labproof.clients.errors import TRANSIENT, Kind, TransportFailure, WaitEnded, WaitTimeout, one_line

T = TypeVar("T")


@dataclass(frozen=True)
class _Seen(Generic[T]):
    """One look: the value read, or why it could not be read."""

    value: T | None
    failure: TransportFailure | None
    end: str | None  # "done", "terminal", or None: look again


def wait_until(
    read: Callable[[], T],
    done: Callable[[T], bool],
    terminal: Callable[[T], bool] | None = None,
    *,
    limit_s: float,
    every_s: float,
    what: str = "the wanted state",
    through: Collection[Kind] = (),
) -> T:
    """Read until `done`, for at most `limit_s` seconds, and return the value that was done.

    The state is read at once, then every `every_s` seconds, and a last time when the limit is reached: a
    state that came while we slept is still seen.

    Args:
        read: reads the state once. What it raises ends the wait, but for the kinds in `through`.
        done: whether a value is the wanted one.
        terminal: whether a value rules the wanted one out for good.
        limit_s: the longest wait, seconds. One read may run past it by its own timeout.
        every_s: seconds between two reads.
        what: what is waited for, for the text of a failure.
        through: kinds of transport failure to look past (a host that reboots refuses for a while).

    Raises:
        WaitTimeout: the limit passed; carries the last value, the last failure and the time waited.
        WaitEnded: `terminal` held; carries the same.
        TransportFailure: `read` failed in a way not named in `through`.
    """
    started = time.monotonic()
    last: T | None = None

    def look() -> _Seen[T]:
        nonlocal last
        try:
            value = read()
        except TransportFailure as failure:
            if failure.kind not in through:
                raise
            return _Seen(last, failure, None)
        last = value
        if done(value):
            return _Seen(value, None, "done")
        if terminal is not None and terminal(value):
            return _Seen(value, None, "terminal")
        return _Seen(value, None, None)

    def pause(state: tenacity.RetryCallState) -> float:
        return min(every_s, max(0.0, limit_s - (time.monotonic() - started)))

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda seen: seen.end is None),
        stop=tenacity.stop_after_delay(limit_s),
        wait=pause,
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    seen = retrying(look)
    elapsed_s = time.monotonic() - started
    if seen.end == "done":
        return seen.value  # type: ignore[return-value]  # a value that is done was read
    saw = f"last seen: {seen.value!r}" if seen.failure is None else f"last failure: {seen.failure}"
    if seen.end == "terminal":
        text = one_line(f"{what} cannot come any more after {elapsed_s:.1f} s; {saw}", 600)
        raise WaitEnded(text, what=what, last=seen.value, failure=None, elapsed_s=elapsed_s)
    text = one_line(f"{what} did not come within {limit_s:g} s ({elapsed_s:.1f} s waited); {saw}", 600)
    raise WaitTimeout(text, what=what, last=seen.value, failure=seen.failure, elapsed_s=elapsed_s)


LONGEST_STAY_AWAY_S = 3.0
"""A server may ask for any pause (Retry-After); a read is not worth more than this."""


def ask_again(call: Callable[[], T], *, pause_s: float, tries: int = 3) -> T:
    """Make a read, again after a transient transport failure: at most `tries` times, the pause doubling.

    For reads only. The last failure is raised as it is.
    """

    def pause(state: tenacity.RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.retry_after_s if isinstance(failure, TransportFailure) else None
        return min(asked or pause_s * 2 ** (state.attempt_number - 1), LONGEST_STAY_AWAY_S)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, TransportFailure) and error.kind in TRANSIENT
        ),
        stop=tenacity.stop_after_attempt(tries),
        wait=pause,
        reraise=True,
    )
    return retrying(call)
