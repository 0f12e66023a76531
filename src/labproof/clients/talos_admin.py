"""What changes a Talos node: configuration, upgrade, rollback, reboot. Needs `os:admin`; never asked again by itself.

Source of methods and fields: facts/talos.md 3.4 and 3.6 (rights), 5 (the old upgrade call and LifecycleService).
"""
# ruff: noqa: RUF009  # each of these calls is dataclasses.field() with a number

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.talos import MACHINE, TalosSession
from labproof.clients.talos_messages import Empty, Metadata
from labproof.clients.wire import flag, integer, many, octets, one, text

NO_REBOOT, STAGED = 2, 3
Reply = TypeVar("Reply")
_CONFIG = ("config", "MachineConfigs.config.talos.dev")
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class ApplyRequest:
    """machine.ApplyConfigurationRequest."""

    content: bytes = octets(1)
    mode: int = integer(4)
    dry_run: bool = flag(5)


@dataclass(frozen=True)
class Applied:
    """machine.ApplyConfiguration."""

    metadata: Metadata | None = one(1, Metadata)
    mode: int = integer(3)
    mode_details: str = text(4)


@dataclass(frozen=True)
class ApplyResponse:
    """machine.ApplyConfigurationResponse."""

    messages: tuple[Applied, ...] = many(1, Applied)


@dataclass(frozen=True)
class UpgradeRequest:
    """machine.UpgradeRequest."""

    image: str = text(1)
    preserve: bool = flag(2)


@dataclass(frozen=True)
class Acted:
    """machine.Upgrade, machine.Reboot, machine.Rollback: only the metadata is looked at."""

    metadata: Metadata | None = one(1, Metadata)


@dataclass(frozen=True)
class ActResponse:
    """The response around it."""

    messages: tuple[Acted, ...] = many(1, Acted)


@dataclass(frozen=True)
class ContainerdInstance:
    """common.ContainerdInstance: driver CONTAINERD (0), namespace NS_SYSTEM (1)."""

    driver: int = integer(1)
    namespace: int = integer(2)


@dataclass(frozen=True)
class PullRequest:
    """machine.ImageService.Pull."""

    containerd: ContainerdInstance | None = one(1, ContainerdInstance)
    image_ref: str = text(3)


@dataclass(frozen=True)
class InstallSource:
    """Which image the installer runs from."""

    image_name: str = text(1)


@dataclass(frozen=True)
class LifecycleUpgradeRequest:
    """machine.LifecycleServiceUpgradeRequest."""

    containerd: ContainerdInstance | None = one(1, ContainerdInstance)
    source: InstallSource | None = one(2, InstallSource)


@dataclass(frozen=True)
class InstallProgress:
    """A line of the installer, or its exit status. An exit status of 0 travels as no field of a present message."""

    message: str = text(1)
    exit_code: int = integer(2)


@dataclass(frozen=True)
class LifecycleUpgradeReply:
    """One piece of the stream."""

    progress: InstallProgress | None = one(1, InstallProgress)


class TalosAdmin(TalosSession):
    """A session with the role `os:admin`. Besides everything a TalosSession reads, it acts."""

    def machine_config(self, which: str = "persistent") -> str:
        """The machine configuration as it is stored: `persistent` (of the next boot) or `v1alpha1` (the active one)."""
        return self.cosi_get(*_CONFIG, which).yaml_spec

    def boot_id(self) -> str:
        """Identity of the running boot."""
        return self.read_file(_BOOT_ID).decode("ascii", "replace").strip()

    def apply_config(self, content: str, mode: int) -> str:
        """Apply a whole machine configuration; returns Talos' line about it.

        Args:
            content: all documents.
            mode: `NO_REBOOT` (refused when a change needs one) or `STAGED` (the next boot takes it).
        """
        request = ApplyRequest(content.encode(), mode)
        reply = self._act(f"{MACHINE}/ApplyConfiguration", request, ApplyResponse)
        return reply.messages[0].mode_details if reply.messages else ""

    def upgrade(self, image: str, *, timeout_s: float) -> None:
        """Upgrade by the call of all releases so far: it pulls, installs and then reboots by itself."""
        self._act(f"{MACHINE}/Upgrade", UpgradeRequest(image, preserve=True), ActResponse, timeout_s)

    def install(self, image: str, *, timeout_s: float) -> tuple[str, ...]:
        """Pull and install by the API of 1.13; returns the installer's lines. The node still has to be rebooted.

        Raises:
            TransportFailure: the image cannot be pulled; kind rejected when the installer ended badly (the stream
                ends well all the same: facts talos 3.4); unsupported before 1.13.
        """
        here = ContainerdInstance(0, 1)
        self._acting_stream("/machine.ImageService/Pull", PullRequest(here, image), Empty, timeout_s)
        request = LifecycleUpgradeRequest(here, InstallSource(image))
        pieces = self._acting_stream("/machine.LifecycleService/Upgrade", request, LifecycleUpgradeReply, timeout_s)
        said = [piece.progress for piece in pieces if piece.progress is not None]
        lines = tuple(progress.message for progress in said if progress.message)
        status = said[-1].exit_code if said and not said[-1].message else None
        if status != 0:
            ended = f"ended with status {status}" if status is not None else "did not say how it ended"
            text_of_end = f"the installer of {image} {ended}: {' / '.join(lines[-3:])}"
            raise TransportFailure(Kind.REJECTED, self._channel.name, text_of_end, answer=" / ".join(lines))
        return lines

    def reboot(self) -> None:
        """Reboot the node."""
        self._act(f"{MACHINE}/Reboot", Empty(), ActResponse)

    def rollback(self) -> None:
        """Boot the other slot again."""
        self._act(f"{MACHINE}/Rollback", Empty(), ActResponse)

    def _act(self, method: str, request: object, reply: type[Reply], timeout_s: float | None = None) -> Reply:
        limit_s = timeout_s or self.target.timeout_s
        replies = self._channel.call(method, request, reply, stream=False, timeout_s=limit_s)
        if not replies:
            raise TransportFailure(Kind.PROTOCOL, self._channel.name, f"{method} was answered by nothing")
        return replies[0]

    def _acting_stream(self, method: str, request: object, reply: type[Reply], timeout_s: float) -> list[Reply]:
        return self._channel.call(method, request, reply, stream=True, timeout_s=timeout_s)
