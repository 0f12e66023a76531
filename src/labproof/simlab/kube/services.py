"""Long-running programs that the simulator models itself: what a container that runs one logs, does and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from labproof.simlab.kube.kinds import Obj
from labproof.simlab.kube.podrun import ContainerRun
from labproof.simlab.world.states import PodWorld

if TYPE_CHECKING:
    from labproof.simlab.kube.kubelet import Kubelet


@dataclass
class Running:
    """A service's container from its start to its end.

    Attributes:
        log: writes a line.
        later: runs something in so many model seconds, if this container still runs then.
        exit: ends the process (exit code, reason "" | OOMKilled).
    """

    kubelet: Kubelet
    pod: Obj
    container: ContainerRun
    world: PodWorld
    argv: list[str]
    log: Callable[[str], None]
    later: Callable[[float, Callable[[], None]], None]
    exit: Callable[[int, str], None]


class Service(Protocol):
    """A modelled program."""

    def __call__(self, running: Running) -> Callable[[], None] | None:
        """Start it; the result, if any, is called when the container ends for whatever reason."""
        ...


def forever(lines: tuple[str, ...] = ()) -> Service:
    """A program that logs some lines and stays."""

    def start(running: Running) -> None:
        for line in lines:
            running.log(line)

    return start


def klog(at: float, source: str, text: str, level: str = "I") -> str:
    """A klog line: `I1120 18:25:44.534290       1 main.go:235] text`."""
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(at, UTC).strftime("%m%d %H:%M:%S.%f")
    return f"{level}{when}       1 {source}] {text}"
