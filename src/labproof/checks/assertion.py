"""The one edge where a judgement becomes a test outcome."""

from __future__ import annotations

from typing import Protocol


class Judged(Protocol):
    """What the `judgement` fixture hands to a test: the verdict, already recorded."""

    verdict: str
    accepted_because: str

    def explain(self) -> str:
        """The failure as a person reads it: cause, evidence, remedy."""


class ClauseFailed(AssertionError):
    """A clause does not hold. The text is the explanation; there is nothing to learn from a traceback."""


def assert_holds(judgement: Judged) -> None:
    """Pass when the clause holds; xfail when lab.yaml accepts the failure; fail with cause and remedy otherwise."""
    __tracebackhide__ = True
    if judgement.verdict == "excepted":
        import pytest

        pytest.xfail(judgement.accepted_because)
    if judgement.verdict == "fail":
        raise ClauseFailed(judgement.explain())
