"""The part of apid that changes a node: configuration, upgrade (old API and LifecycleService), rollback, reboot.

Source of methods, fields and rights: facts/talos.md 3.4 and 3.6. Texts of a failed pull are the registry's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from labproof.simlab.talos import writes
from labproof.simlab.talos.installer import NoSuchImage, image_inputs
from labproof.simlab.talos.releases import release
from labproof.simlab.talos.state import TalosState
from labproof.simlab.talos.wire import message, number_of, parse, present, text_of

ADMIN, OPERATOR = "os:admin", "os:operator"
_MACHINE = "/machine.MachineService"
_NEW = "/machine.LifecycleService/Upgrade"
_PULL = "/machine.ImageService/Pull"

#: Methods with the roles that may call them.
RIGHTS = {
    "ApplyConfiguration": {ADMIN},
    "Upgrade": {ADMIN},
    "Rollback": {ADMIN},
    "Reboot": {ADMIN, OPERATOR},
    "LifecycleService/Upgrade": {ADMIN},
    "ImageService/Pull": {ADMIN, OPERATOR},
}
UNARY = {
    f"{_MACHINE}/ApplyConfiguration": "ApplyConfiguration",
    f"{_MACHINE}/Upgrade": "Upgrade",
    f"{_MACHINE}/Rollback": "Rollback",
    f"{_MACHINE}/Reboot": "Reboot",
}
STREAMS = {_NEW: "LifecycleService/Upgrade", _PULL: "ImageService/Pull"}


def act(world: Any, node: TalosState, method: str, request: bytes) -> Iterator[bytes]:
    """Do what a method asks; yields its replies.

    Raises:
        GRPCError: the node's refusal.
    """
    handler: Callable[[Any, TalosState, dict[int, list[int | bytes]]], Iterator[bytes]] = {
        "ApplyConfiguration": _apply,
        "Upgrade": _upgrade,
        "Rollback": _rollback,
        "Reboot": _reboot,
        "LifecycleService/Upgrade": _lifecycle,
        "ImageService/Pull": _pull,
    }[method]
    try:
        yield from handler(world, node, parse(request))
    except writes.Refused as refused:
        raise GRPCError(Status.INVALID_ARGUMENT, str(refused)) from None


def _reply(*fields: tuple[int, Any]) -> bytes:
    return present(1, message(*fields))


def _apply(world: Any, node: TalosState, fields: dict[int, list[int | bytes]]) -> Iterator[bytes]:
    mode, dry = number_of(fields, 4), bool(number_of(fields, 5))
    used, told = writes.apply(world, node.name, text_of(fields, 1), mode, dry_run=dry)
    yield _reply((3, used), (4, told))


def _reboot(world: Any, node: TalosState, fields: dict[int, list[int | bytes]]) -> Iterator[bytes]:
    writes.reboot(world, node.name)
    yield _reply((2, f"reboot-{node.name}"))


def _rollback(world: Any, node: TalosState, fields: dict[int, list[int | bytes]]) -> Iterator[bytes]:
    writes.roll_back(world, node.name)
    yield _reply((2, f"rollback-{node.name}"))


def _upgrade(world: Any, node: TalosState, fields: dict[int, list[int | bytes]]) -> Iterator[bytes]:
    """The old API: pulls, installs and reboots by itself; staged, it only installs."""
    reference = text_of(fields, 1)
    try:
        writes.install(world, node.name, reference)
    except NoSuchImage as wrong:
        text = f'error validating installer image "{reference}": failed to pull image: {wrong}'
        raise GRPCError(Status.UNKNOWN, text) from None
    if not number_of(fields, 3):
        writes.reboot(world, node.name)
    yield _reply((2, "Upgrade request received"), (3, f"upgrade-{node.name}"))


def _since_1_13(node: TalosState, method: str) -> None:
    if release(node.os_version).minor < (1, 13):
        raise GRPCError(Status.UNIMPLEMENTED, f"unknown service {method.rpartition('/')[0].strip('/')}")


def _pull(world: Any, node: TalosState, fields: dict[int, list[int | bytes]]) -> Iterator[bytes]:
    _since_1_13(node, _PULL)
    reference = text_of(fields, 3)
    try:
        image_inputs(world.factory, reference, dict(world.inputs["nodes"][node.name]["talos"]))
    except NoSuchImage as wrong:
        raise GRPCError(Status.NOT_FOUND, f'failed to pull image "{reference}": {wrong}') from None
    world.inputs["nodes"][node.name].setdefault("pulled", []).append(reference)
    yield _reply((1, reference))


def _lifecycle(world: Any, node: TalosState, fields: dict[int, list[int | bytes]]) -> Iterator[bytes]:
    """The API of 1.13: only installs; the stream ends well even when the installer did not (facts talos 3.4)."""
    _since_1_13(node, _NEW)
    source = parse(b"".join(s for s in fields.get(2, []) if isinstance(s, bytes)))
    reference = text_of(source, 1)
    if reference not in world.inputs["nodes"][node.name].get("pulled", []):
        raise GRPCError(Status.NOT_FOUND, f'image "{reference}": not found')
    yield present(1, message((1, f"Running installer {reference}")))
    if world.inputs["nodes"][node.name].get("boot_partition_full"):
        said = "failed to install bootloader: write /boot/B/initramfs.xz: no space left on device"
        yield present(1, message((1, said)))
        yield present(1, message((2, 1)))
        return
    writes.install(world, node.name, reference)
    yield present(1, message((1, "Installation of the new version completed")))
    yield present(1, b"\x10\x00")  # exit_code 0 of a oneof is written although it is the default
