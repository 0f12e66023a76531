"""Step `talos_image`: the node runs a Talos image with the GPU's extensions, and a configuration that loads them.

Reads with os:reader what the talos clauses read; the machine configuration, which only os:admin may see, is read here.
An upgrade replaces the whole image, so everything that the running schematic holds is kept (facts talos 5).
"""

from __future__ import annotations

from typing import Any

from labproof.catalogue.versions import does, parse_tag
from labproof.facts.reading import Unjudged, need
from labproof.facts.talos import TalosFacts
from labproof.inventory.chains import Chain
from labproof.inventory.models import Node
from labproof.provision import drain, scopes
from labproof.provision.bench import Bench
from labproof.provision.changes import CallChange, Change
from labproof.provision.failure import StepFailed
from labproof.provision.machine_patch import CannotEdit, hunks, patched
from labproof.provision.plan import Refusal, StepPlan
from labproof.provision.schematics import Wanted, wanted_schematic
from labproof.provision.talos_hands import boot_of, digest, waits_for_boot

NAME, LAYER = "talos_image", "talos"
#: What must hold afterwards.
VERIFIED = (
    "TALOS-API-001",
    "TALOS-GUEST-001",
    "TALOS-VERSION-001",
    "TALOS-EXT-001",
    "TALOS-EXT-002",
    "TALOS-EXT-003",
    "TALOS-EXT-004",
    "TALOS-SCHEMATIC-001",
    "TALOS-DRIVER-001",
    "TALOS-MODULE-001",
    "TALOS-MODULE-002",
    "TALOS-MODULE-003",
    "TALOS-DEVICE-001",
    "TALOS-DEVICE-002",
    "TALOS-RUNTIME-001",
    "TALOS-RUNTIME-003",
    "TALOS-SYSCTL-001",
    "TALOS-SERVICE-001",
    "TALOS-SERVICE-002",
    "TALOS-STAGE-001",
    "TALOS-CDI-001",
    "TALOS-IMAGE-001",
    "TALOS-CMDLINE-001",
)
#: Clauses that say what the configuration lacks.
_CONFIGURED = ("TALOS-MODULE-001", "TALOS-MODULE-003", "TALOS-SYSCTL-001", "TALOS-IMAGE-001", "TALOS-RUNTIME-003")
ADMIN = "os:admin"
CUSTOMIZATION = "/etc/cri/conf.d/20-customization.part"


def nodes(bench: Bench) -> tuple[Node, ...]:
    """Declared nodes with a card and a Talos API; control planes first, one at a time. Other nodes are left alone."""
    found = [n for n in bench.lab.nodes if n.talos is not None and bench.chains(node=n.name)]
    return tuple(sorted(found, key=lambda node: not node.control_plane))


def plan(bench: Bench, node: Node, pending: bool = False) -> StepPlan:
    """What the node lacks. Reads only.

    Args:
        pending: the VM's or the host's step has changes first; what they change is no ground for a refusal here.
    """
    from labproof.clients.errors import TransportFailure

    reading = bench.facts.talos(node.name)
    if reading.value is None:
        why = f"{reading.source}: {reading.why}; where the node is just starting, run this again in a while"
        return StepPlan(NAME, LAYER, node.name, refusals=(Refusal(reading.kind, why),))
    try:
        return _Planner(bench, node, reading.value).plan()
    except (StepFailed, Unjudged, TransportFailure, CannotEdit) as unread:
        return StepPlan(NAME, LAYER, node.name, refusals=(Refusal("unread", str(unread)),))


class _Planner:
    """The plan for one node."""

    def __init__(self, bench: Bench, node: Node, facts: TalosFacts) -> None:
        self.bench, self.node, self.facts = bench, node, facts
        self.chains: tuple[Chain, ...] = bench.chains(node=node.name)
        self.refusals: list[Refusal] = []
        self.notes: list[str] = []

    def plan(self) -> StepPlan:
        """Schematic and configuration first, which have no effect yet; then the boot into them."""
        shown = need(self.facts.version, "Talos version")
        tag = self._tag(shown.tag)
        gpus = tuple(dict.fromkeys(c.gpu.device for c in self.chains))
        nvidia = tuple(device for device in gpus if device.startswith("10de:"))
        owed = drain.owed(self.bench, self.node, scopes.NODE_UPGRADE, NAME)
        if not nvidia:
            changes = (owed,) if owed is not None else ()
            return StepPlan(NAME, LAYER, self.node.name, changes)
        wanted = wanted_schematic(self.node, self.facts, nvidia, tag)
        running = self.facts.schematic.value
        same = running is not None and (running.id == wanted.id or self._only_order(running.text, wanted))
        upgrade = not same or shown.tag != tag
        lacking = upgrade or self._lacks_configuration(tag)
        if not lacking and owed is None:
            return StepPlan(NAME, LAYER, self.node.name)
        if not lacking:
            assert owed is not None
            return StepPlan(NAME, LAYER, self.node.name, (owed,), notes=("an interrupted run drained this node",))
        admin = self.bench.talos(self.node)
        if ADMIN not in admin.roles:
            text = f"{admin.as_whom} may not change {self.node.name}: declare an `admin_talosconfig` with {ADMIN}"
            self.refusals.append(Refusal("T52", text))
            return StepPlan(NAME, LAYER, self.node.name, refusals=tuple(self.refusals))
        identity = running.id if same and running is not None else wanted.id
        image = self._image(shown.platform, identity, tag)
        changes_made: list[Change] = []
        if upgrade:
            changes_made += self._register(wanted, tag, image)
        configured = self._configure(image, tag, upgrade)
        changes_made += [configured] if configured is not None else []
        boots = upgrade or (configured is not None and configured.detail["mode"] == "staged") or self._is_staged()
        if boots:
            changes_made += self._boot(shown.tag, shown.platform, tag, image, identity, upgrade)
        elif owed is not None:
            changes_made.append(owed)
        return StepPlan(NAME, LAYER, self.node.name, tuple(changes_made), tuple(self.refusals), tuple(self.notes))

    # -------------------------------------------------------------- what is wanted

    def _tag(self, running: str) -> str:
        """The release to run: the declared one, where an upgrade may go there in one go (facts talos 5)."""
        declared = self.node.talos.version if self.node.talos is not None else None
        if declared is None or declared == running:
            return running
        here, there = parse_tag(running), parse_tag(declared)
        if there < here:
            raise StepFailed(
                f"{self.node.name} runs {running} and lab.yaml declares the older {declared}: mend lab.yaml"
            )
        if there[:2] != here[:2] and (there[0], there[1] - 1) != here[:2]:
            text = f"from {running} to {declared} is more than one minor release: upgrade through each of them by hand"
            raise StepFailed(text)
        return declared

    def _only_order(self, text: str, wanted: Wanted) -> bool:
        """Whether the running schematic holds the same extensions in another order, which is no reason to reboot."""
        listed = [line.strip().removeprefix("- siderolabs/") for line in text.splitlines() if "- siderolabs/" in line]
        return bool(listed) and bool(wanted.names) and sorted(listed) == sorted(wanted.names)

    def _image(self, platform: str, ident: str, tag: str) -> str:
        factory = self.bench.lab.factory
        host = factory.image_host if factory is not None else "factory.talos.dev"
        return f"{host}/{platform or 'metal'}-installer/{ident}:{tag}"

    def _lacks_configuration(self, tag: str) -> bool:
        """Whether os:reader already sees that it is not enough, or an interrupted run left one that waits."""
        for ident in _CONFIGURED:
            if any(self.bench.fault(ident, chain) is not None for chain in self.chains):
                return True
        return (
            any(
                entry.action in ("machine-config", "upgrade") and entry.change["target"] == self.node.name
                for entry in self.bench.journal.standing()
            )
            and self._is_staged()
        )

    def _is_staged(self) -> bool:
        admin = self.bench.talos(self.node)
        if ADMIN not in admin.roles:
            return False
        return waits_for_boot(self.bench, self.node)

    def _wanted_configuration(self, image: str, tag: str) -> dict[str, Any]:
        talos = self.node.talos
        machine: dict[str, Any] = {"install": {"image": image}}
        machine["kernel"] = {"modules": [{"name": name} for name in (talos.modules if talos is not None else ())]}
        if does(tag, "bpf_jit_harden_1"):
            machine["sysctls"] = {"net.core.bpf_jit_harden": "1"}
        cluster = self.bench.lab.cluster(self.node.cluster)
        if cluster.runtime_class.default_runtime == "nvidia":
            table = "io.containerd.cri.v1.runtime" if does(tag, "cri_v1_table") else "io.containerd.grpc.v1.cri"
            part = f'[plugins."{table}".containerd]\n  default_runtime_name = "nvidia"\n'
            machine["files"] = [{"op": "create", "path": CUSTOMIZATION, "permissions": 0o644, "content": part}]
        if cluster.scheduling.labels:
            machine["nodeLabels"] = dict(cluster.scheduling.labels)
        if cluster.scheduling.taints:
            machine["nodeTaints"] = {t.key: f"{t.value}:{t.effect}" for t in cluster.scheduling.taints}
        return {"machine": machine}

    # -------------------------------------------------------------- changes

    def _register(self, wanted: Wanted, tag: str, image: str) -> list[Change]:
        """The factory has to know the schematic, and to build it for this release."""
        declared = self.bench.lab.factory
        if declared is None:
            text = f"the image {image} is needed: declare `factory: {{url: ...}}` in lab.yaml, where it comes from"
            self.refusals.append(Refusal("T01", text))
            return []
        from labproof.clients.image_factory import ImageFactory

        factory = ImageFactory(declared.url, declared.ca, self.bench.lab.timings.request_s)
        known = factory.extensions(tag)
        if known is None:
            self.refusals.append(Refusal("T05", f"{declared.url} has no Talos release {tag}"))
            return []
        from labproof.catalogue.versions import installed_name

        strange = [name for name in wanted.names if installed_name(name, known) not in known]
        if strange:
            self.refusals.append(Refusal("T05", f"{declared.url} has no extension {', '.join(strange)} for {tag}"))
            return []
        if factory.knows(wanted.id):
            return []
        if not wanted.text:
            self.refusals.append(Refusal("T05", f"{declared.url} knows no schematic {wanted.id}: declare `extensions`"))
            return []
        return [
            CallChange(
                target=self.node.name, scope=scopes.NODE_UPGRADE, reason="the factory does not know it yet",
                clause="TALOS-SCHEMATIC-001", name="schematic", call=f"POST {declared.url}/schematics",
                after={"schematic": wanted.id, "extensions": ", ".join(wanted.names)},
                detail={"id": wanted.id, "text": wanted.text},
            )
        ]  # fmt: skip

    def _configure(self, image: str, tag: str, upgrade: bool) -> CallChange | None:
        admin = self.bench.talos(self.node)
        before = admin.machine_config()
        after = patched(before, self._wanted_configuration(image, tag))
        if after == before:
            return None
        edits = hunks(before, after)
        needs_boot = upgrade or any(CUSTOMIZATION in line for edit in edits for line in edit["after"])
        mode = "staged" if needs_boot else "no-reboot"
        red = next((i for i in ("TALOS-MODULE-001", "TALOS-SYSCTL-001") if self.bench.fault(i, self.chains[0])), "")
        shown = _shown(edits)
        return CallChange(
            target=self.node.name, scope=scopes.NODE_CONFIG, clause=red or "TALOS-IMAGE-001",
            reason="the configuration does not load the GPU's modules" if red else "it names another image",
            name="machine-config", call=f"talosctl apply-config -n {self.node.name} --mode={mode}",
            before={key: old for key, (old, _) in shown.items()}, after={key: new for key, (_, new) in shown.items()},
            detail={"mode": mode, "edits": edits, "sha256": {"before": digest(before), "after": digest(after)}},
        )  # fmt: skip

    def _boot(self, old_tag: str, platform: str, tag: str, image: str, ident: str, upgrade: bool) -> list[Change]:
        """Drained, booted into the new image (or only the new configuration), resumed."""
        pair = drain.around(
            self.bench, self.node, scopes.NODE_UPGRADE, f"{self.node.name} reboots", self.refusals, self.notes
        )
        self.notes.append(f"{self.node.name} reboots: what cannot run elsewhere stops meanwhile")
        staged = "the staged configuration takes effect at a boot"
        boot = (
            self._upgrade(old_tag, platform, tag, image, ident) if upgrade else boot_of(self.bench, self.node, staged)
        )
        return [pair[0], boot, pair[1]] if pair is not None else [boot]

    def _upgrade(self, old_tag: str, platform: str, tag: str, image: str, ident: str) -> CallChange:
        running = self.facts.schematic.value
        old_id = running.id if running is not None else None
        extensions = self.facts.extensions.value or ()
        if old_id is not None:
            old_image: str | None = self._image(platform, old_id, old_tag)
        else:  # a plain image has no extension; one built by hand can only be had back from the other boot slot
            old_image = None if extensions else f"ghcr.io/siderolabs/installer:{old_tag}"
        clause = "TALOS-EXT-001" if self.bench.fault("TALOS-EXT-001", self.chains[0]) else "TALOS-SCHEMATIC-001"
        return CallChange(
            target=self.node.name, scope=scopes.NODE_UPGRADE, clause=clause, name="upgrade",
            reason="the image lacks what the GPU needs" if clause == "TALOS-EXT-001" else "it runs another image",
            call=f"talosctl upgrade -n {self.node.name} --image {image}",
            before={"schematic": old_id, "version": old_tag}, after={"schematic": ident, "version": tag},
            detail={"image": image, "old_image": old_image}, seconds=self.bench.limits.upgrade_s,
        )  # fmt: skip


def _shown(edits: list[dict[str, Any]]) -> dict[str, tuple[str | None, str | None]]:
    """The changed lines for a plan, numbered: a configuration's other lines, its secrets among them, never show."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for edit in edits:
        old = " / ".join(line.strip() for line in edit["before"]) or None
        new = " / ".join(line.strip() for line in edit["after"]) or None
        found[f"line {edit['at'] + 1}"] = (old, new)
    return found
