"""When a peer is not asked any more: the next answer would be the same, one timeout later."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from labproof.clients.errors import Kind, TransportFailure

T = TypeVar("T")

#: One of these is enough: nobody is there, it is somebody else, or it does not know us.
_AT_ONCE = frozenset({Kind.REFUSED, Kind.TIMEOUT, Kind.DNS, Kind.RESET, Kind.TLS, Kind.AUTH})
#: A server may be unable to answer one question (PVE's 500); in a row they mean the server.
_IN_A_ROW = frozenset({Kind.UNAVAILABLE, Kind.RATE_LIMITED})
_TIMES = 3

AFTER = "not asked any more after: "


class Patience:
    """Counts the failures of one peer within one probe.

    Attributes:
        lost: the failure after which the peer is not asked any more, None while it is.
    """

    def __init__(self) -> None:
        self.lost: TransportFailure | None = None
        self._row = 0

    def ask(self, question: Callable[[], T]) -> T:
        """Ask unless the peer is lost.

        Raises:
            TransportFailure: the question's own, or the one after which nothing is asked any more.
        """
        if self.lost is not None:
            raise TransportFailure(self.lost.kind, self.lost.target, f"{AFTER}{self.lost.text}")
        try:
            answer = question()
        except TransportFailure as failure:
            self.failed(failure)
            raise
        self.answered()
        return answer

    def answered(self) -> None:
        """The peer answered, if only with a refusal that is about this one question."""
        self._row = 0

    def failed(self, failure: TransportFailure) -> None:
        """Take note of a failure."""
        self._row = self._row + 1 if failure.kind in _IN_A_ROW else 0
        if failure.kind in _AT_ONCE or self._row >= _TIMES:
            self.lost = failure
