"""The hands on a Talos node: schematic, machine configuration, upgrade, reboot; forwards and backwards.

A boot counts when the boot id is another one; an upgrade only when release and schematic are the wanted ones: a node
falls back to its old image without any error of the API (facts talos 5, T04).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from labproof.inventory.models import Node
from labproof.provision import scopes
from labproof.provision.bench import Bench
from labproof.provision.changes import CallChange
from labproof.provision.failure import ChangedSince, StepFailed
from labproof.provision.machine_patch import taken_back

if TYPE_CHECKING:
    from labproof.clients.errors import Kind
    from labproof.clients.talos_admin import TalosAdmin

Record = Mapping[str, Any]
#: Changes of a node with two sides, and what boots it.
ACTIONS = frozenset({"schematic", "machine-config", "upgrade"})
_GO_ON = "When it is up again: run this again to go on, --undo to go back"


def perform(bench: Bench, change: Record) -> None:
    """Make a change that the journal has announced.

    Raises:
        StepFailed, ChangedSince: it could not be made.
        TransportFailure: the node or the factory did not answer, or refused it.
    """
    node = bench.lab.node(str(change["target"]))
    if change["action"] == "schematic":
        register(bench, node, change)
    elif change["action"] == "machine-config":
        configure(bench, node, change)
    else:
        upgrade(bench, node, change)


def state_of(bench: Bench, change: Record) -> str:
    """`after`, `before`, or `other`; a schematic that a factory knows hurts nobody and stays."""
    node = bench.lab.node(str(change["target"]))
    if change["action"] == "schematic":
        return "before"
    if change["action"] == "machine-config":
        return configuration_stands(bench, node, change)
    return image_stands(bench, node, change)


def take_back(bench: Bench, change: Record) -> None:
    """Undo a configuration or an upgrade that stands."""
    node = bench.lab.node(str(change["target"]))
    if change["action"] == "machine-config":
        configure(bench, node, change, back=True)
    elif change["action"] == "upgrade":
        upgrade(bench, node, change, back=True)


def digest(text: str) -> str:
    """SHA-256 of a configuration in hexadecimal."""
    return sha256(text.encode()).hexdigest()


def away() -> tuple[Kind, ...]:
    """What a node that reboots answers."""
    from labproof.clients.errors import Kind

    return (Kind.REFUSED, Kind.TIMEOUT, Kind.RESET, Kind.DNS, Kind.UNAVAILABLE, Kind.PROTOCOL, Kind.TLS)


# ------------------------------------------------------------------ schematic


def register(bench: Bench, node: Node, change: Record) -> None:
    """Give the factory the schematic; it must answer with the id that was computed here.

    Raises:
        StepFailed: it answers with another.
    """
    from labproof.clients.image_factory import ImageFactory

    declared = bench.lab.factory
    if declared is None:
        raise StepFailed("lab.yaml declares no `factory`")
    factory = ImageFactory(declared.url, declared.ca, bench.lab.timings.request_s)
    answered = factory.register(str(change["detail"]["text"]))
    if answered != change["detail"]["id"]:
        text = f"{declared.url} gave the schematic the id {answered or 'none'}, computed was {change['detail']['id']}"
        raise StepFailed(text)


# ------------------------------------------------------------------ configuration


def configure(bench: Bench, node: Node, change: Record, *, back: bool = False) -> None:
    """Apply the configuration's edits, or take them back, only if it still is what it was.

    Raises:
        ChangedSince: somebody else changed the configuration.
    """
    from labproof.clients.talos_admin import NO_REBOOT, STAGED

    admin, detail = bench.talos(node), change["detail"]
    found = admin.machine_config()
    sides = detail["sha256"]
    old, new = (sides["after"], sides["before"]) if back else (sides["before"], sides["after"])
    if digest(found) == new:
        return
    if digest(found) != old:
        raise ChangedSince(f"the machine configuration of {node.name} was changed by somebody else")
    wanted = taken_back(found, detail["edits"] if back else _reversed(detail["edits"]))
    if digest(wanted) != new:
        raise StepFailed(f"the recorded edits do not fit the machine configuration of {node.name}; nothing was applied")
    admin.apply_config(wanted, STAGED if detail["mode"] == "staged" else NO_REBOOT)


def _reversed(edits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same edits as seen from the text before them."""
    found, shift = [], 0
    for edit in sorted(edits, key=lambda e: int(e["at"])):
        found.append({"at": int(edit["at"]) - shift, "after": edit["before"], "before": edit["after"]})
        shift += len(edit["after"]) - len(edit["before"])
    return found


def configuration_stands(bench: Bench, node: Node, change: Record) -> str:
    """`after`, `before` or `other`."""
    found = digest(bench.talos(node).machine_config())
    return next((side for side in ("after", "before") if change["detail"]["sha256"][side] == found), "other")


# ------------------------------------------------------------------ upgrade


def runs(bench: Bench, node: Node) -> tuple[str | None, str]:
    """Schematic (None: not a factory's image) and release that the node runs now."""
    admin = bench.talos(node)
    shown = admin.version()
    rows = admin.cosi_list("runtime", "ExtensionStatuses.runtime.talos.dev")
    marks = [r.spec["metadata"] for r in rows if r.spec["metadata"].get("name") == "schematic"]
    return (str(marks[0]["version"]) if marks else None), (shown.version.tag if shown.version is not None else "")


def image_stands(bench: Bench, node: Node, change: Record) -> str:
    """`after`, `before` or `other`."""
    found = runs(bench, node)
    for side in ("after", "before"):
        if found == (change[side]["schematic"], change[side]["version"]):
            return side
    return "other"


def upgrade(bench: Bench, node: Node, change: Record, *, back: bool = False) -> None:
    """Install the image and boot it; a new image that does not finish its boot is rolled back.

    Raises:
        StepFailed: it cannot be installed, the node did not come back, or runs something else than was wanted.
    """
    side = change["before"] if back else change["after"]
    image = change["detail"]["old_image"] if back else change["detail"]["image"]
    wanted = (side["schematic"], side["version"])
    if runs(bench, node) == wanted:
        return
    admin = bench.talos(node)
    boot = admin.boot_id()
    if image is None:
        _through(admin.rollback)
    else:
        _install(bench, admin, str(image))
    _see_boot(bench, node, boot, bench.limits.upgrade_s)
    found = runs(bench, node)
    if found != wanted:
        raise StepFailed(
            f"{node.name} booted, and runs {found[1]} with schematic {found[0] or 'none'}, not {wanted[1]} with "
            f"{wanted[0] or 'none'}: its new image did not come up and the old one was booted (T04). Its console tells "
            "why; an ISO that is still first in the boot order does this too"
        )
    try:
        _see_settled(bench, node)
    except StepFailed as unsettled:
        if back:
            raise
        _roll_back(bench, node, str(unsettled))


def _install(bench: Bench, admin: TalosAdmin, image: str) -> None:
    from labproof.catalogue.versions import parse_tag

    shown = admin.version()
    limit = bench.limits.upgrade_s
    bench.tell(f"installing {image}, at most {limit:.0f} s")
    if shown.version is not None and parse_tag(shown.version.tag) >= (1, 13, 0):
        admin.install(image, timeout_s=limit)
        _through(admin.reboot)
    else:
        _through(lambda: admin.upgrade(image, timeout_s=limit))


def _through(call: Callable[[], None]) -> None:
    """A call after which the node goes away; its answer may get lost."""
    from labproof.clients.errors import TransportFailure

    try:
        call()
    except TransportFailure as lost:
        if lost.kind not in away():
            raise


def reboot(bench: Bench, change: Record) -> None:
    """Reboot the node that a change names, and wait for the new boot.

    Raises:
        StepFailed: it did not come back.
    """
    node = bench.lab.node(str(change["target"]))
    admin = bench.talos(node)
    boot = admin.boot_id()
    _through(admin.reboot)
    _see_boot(bench, node, boot, bench.limits.reboot_s)
    _see_settled(bench, node)


def waits_for_boot(bench: Bench, node: Node) -> bool:
    """Whether a configuration is staged that only a boot makes the active one."""
    admin = bench.talos(node)
    return admin.machine_config("persistent") != admin.machine_config("v1alpha1")


def boot_of(bench: Bench, node: Node, reason: str) -> CallChange:
    """The change that boots a node."""
    return CallChange(
        target=node.name, scope=scopes.NODE_UPGRADE, clause="TALOS-RUNTIME-001", name="node-reboot", reason=reason,
        call=f"talosctl reboot -n {node.name}", seconds=bench.limits.reboot_s,
    )  # fmt: skip


def _see_boot(bench: Bench, node: Node, before: str, limit_s: float) -> None:
    from labproof.clients.errors import WaitFailed

    admin = bench.talos(node)
    try:
        bench.wait(
            f"{node.name} to come back from its reboot", admin.boot_id, lambda now: now not in ("", before),
            limit_s=limit_s, through=away(),
        )  # fmt: skip
    except WaitFailed as late:
        text = f"{node.name} did not come back within {limit_s:.0f} s ({late}). Look at the VM's console. {_GO_ON}"
        raise StepFailed(text) from None


def _see_settled(bench: Bench, node: Node) -> None:
    """The boot sequence has ended: stage running, ready."""
    from labproof.clients.errors import WaitFailed

    admin, limit = bench.talos(node), bench.limits.node_ready_s

    def look() -> str:
        spec = admin.cosi_get("runtime", "MachineStatuses.runtime.talos.dev", "machine").spec
        status = spec.get("status") or {}
        if spec.get("stage") == "running" and status.get("ready"):
            return ""
        unmet = "; ".join(f"{c.get('name')}: {c.get('reason')}" for c in status.get("unmetConditions") or ())
        return f"stage {spec.get('stage')}, {unmet or 'not ready'}"

    try:
        bench.wait(f"{node.name} to finish its boot", look, lambda left: not left, limit_s=limit, through=away())
    except WaitFailed as late:
        raise StepFailed(f"{node.name} booted and does not get ready ({late})") from None


def _roll_back(bench: Bench, node: Node, why: str) -> None:
    admin = bench.talos(node)
    bench.tell(f"{node.name}: {why}; rolling back")
    boot = admin.boot_id()
    _through(admin.rollback)
    _see_boot(bench, node, boot, bench.limits.reboot_s)
    raise StepFailed(f"{why}. It was rolled back and runs {runs(bench, node)[1]} as before; --undo takes back the rest")
