"""Waiting is bounded, sees terminal states, and tells what it saw last; only transport failures are asked again."""

import itertools
import time
from pathlib import Path

import pytest

from labproof.clients import wait
from labproof.clients.errors import Kind, TransportFailure, WaitEnded, WaitTimeout, one_line, without
from labproof.clients.wait import ask_again, wait_until


def test_wait_returns_the_value_that_is_done():
    count = itertools.count()
    value = wait_until(lambda: next(count), lambda seen: seen == 3, limit_s=2, every_s=0.001)
    assert value == 3
    assert next(count) == 4


def test_a_state_that_is_there_already_costs_no_pause():
    started = time.monotonic()
    assert wait_until(lambda: "up", lambda seen: seen == "up", limit_s=60, every_s=30) == "up"
    assert time.monotonic() - started < 20


def test_timeout_tells_the_last_value_and_the_time_waited():
    count = itertools.count()
    with pytest.raises(WaitTimeout) as caught:
        wait_until(lambda: next(count), lambda seen: False, limit_s=0.05, every_s=0.01, what="node Ready")
    assert caught.value.last == next(count) - 1
    assert 0.05 <= caught.value.elapsed_s < 1
    assert "node Ready did not come within 0.05 s" in str(caught.value)
    assert f"last seen: {caught.value.last}" in str(caught.value)


def test_the_last_look_is_at_the_limit_even_when_the_pause_is_longer():
    looks = []

    def read():
        looks.append(time.monotonic())
        return len(looks)

    started = time.monotonic()
    with pytest.raises(WaitTimeout):
        wait_until(read, lambda seen: False, limit_s=0.1, every_s=30)
    assert len(looks) == 2
    assert 0.1 <= looks[-1] - started < 1


def test_a_terminal_state_ends_the_wait_at_once():
    states = iter(["Pending", "Failed", "never read"])
    with pytest.raises(WaitEnded) as caught:
        wait_until(
            lambda: next(states),
            lambda seen: seen == "Succeeded",
            lambda seen: seen == "Failed",
            limit_s=60,
            every_s=0.001,
        )
    assert caught.value.last == "Failed"
    assert next(states) == "never read"


def test_failures_of_the_named_kinds_are_waited_through_and_told():
    def read():
        raise TransportFailure(Kind.REFUSED, "ssh pve5", "connection refused")

    with pytest.raises(WaitTimeout) as caught:
        wait_until(read, lambda seen: True, limit_s=0.02, every_s=0.005, through={Kind.REFUSED})
    assert caught.value.failure is not None
    assert caught.value.failure.kind is Kind.REFUSED
    assert "last failure: ssh pve5: connection refused" in str(caught.value)
    with pytest.raises(TransportFailure):
        wait_until(read, lambda seen: True, limit_s=5, every_s=0.005, through={Kind.RESET})


@pytest.mark.parametrize("kind", list(Kind))
def test_only_transient_failures_are_asked_again_and_three_times_at_most(kind):
    asked = []

    def read():
        asked.append(kind)
        raise TransportFailure(kind, "x", "y")

    with pytest.raises(TransportFailure):
        ask_again(read, pause_s=0.001)
    transient = {Kind.REFUSED, Kind.RESET, Kind.RATE_LIMITED, Kind.UNAVAILABLE}
    assert len(asked) == (3 if kind in transient else 1)


def test_a_judgement_is_never_asked_again():
    asked = []

    def read():
        asked.append(1)
        raise ValueError("the answer is wrong")

    with pytest.raises(ValueError, match="wrong"):
        ask_again(read, pause_s=0.001)
    assert len(asked) == 1


def test_an_answer_after_a_failure_is_the_answer():
    answers = iter([TransportFailure(Kind.RESET, "x", "y", retry_after_s=0.001), None])

    def read():
        answer = next(answers)
        if answer:
            raise answer
        return "there"

    assert ask_again(read, pause_s=30) == "there"


def test_texts_are_one_line_and_without_secrets():
    assert one_line("a\n  b\tc") == "a b c"
    assert len(one_line("x" * 5000)) == 1000
    assert without("bad token 1234-5678 given", ["1234-5678", None, ""]) == "bad token *** given"
    assert "\n" not in str(TransportFailure(Kind.TLS, "x", "two\nlines"))


def test_no_client_sleeps_by_itself():
    folder = Path(wait.__file__).parent
    found = {path.name for path in folder.glob("*.py") if "sleep(" in path.read_text()}
    assert found <= {"wait.py"}
