"""Every fault of the Talos layer, from the world's inputs over the real protocol to the verdict."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from labproof.checks.gate import Gate
from labproof.checks.judgement import Fail, Pass, Unchecked
from labproof.checks.registry import clauses
from labproof.facts.bundle import Facts
from labproof.facts.store import FactsStore, now
from labproof.inventory.load import load_lab
from labproof.inventory.models import Lab
from labproof.probes.talos import probe_talos
from labproof.simlab.faults import load_faults
from labproof.simlab.talos.server import serve
from labproof.simlab.world.inputs import lab_folder, load_inputs, merge_patch, variations
from labproof.simlab.world.lab import World
from labproof.simlab.world.pki import Pki

#: Faults of the owner's talosconfig are left out: this test writes its own.
FAULTS = {
    name: fault for name, fault in load_faults("t4-jellyfin").items()
    if fault.layer == "talos" and "talosconfig" not in (fault.set.get("nodes") or {}).get("moody-good", {})
}  # fmt: skip


@dataclass
class Running:
    """A served world that can be swapped, and how to judge what it answers."""

    world: World
    talosconfig: str
    folder: Path
    runs: int = 0

    def lab(self, variation: str | None) -> Lab:
        role = variations("t4-jellyfin")[variation].lab.get("rights", {}).get("talos") if variation else None
        talos = {"talosconfig": self.talosconfig, "node": "192.168.8.123", "context": role or "os:reader"}
        patch = dict(variations("t4-jellyfin")[variation].lab) if variation else {}
        overlay = merge_patch(patch, {"nodes": {"moody-good": {"talos": talos}}})
        return load_lab(lab_folder("t4-jellyfin") / "lab.yaml", overlay, read_secrets=False)

    def judged(self, variation: str | None, *faults: str, tag: str | None = None) -> dict[str, object]:
        """Clause id -> judgement, or the name of the clause that blocks it; `tag`: another Talos release, declared."""
        inputs = load_inputs("t4-jellyfin", variation, faults)
        lab = self.lab(variation)
        if tag is not None:
            inputs = merge_patch(inputs, {"nodes": {"moody-good": {"talos": {"version": tag}}}})
            node = lab.nodes[0].model_copy(update={"talos": lab.nodes[0].talos.model_copy(update={"version": tag})})
            lab = lab.model_copy(update={"nodes": (node,)})
        self.world = World(inputs)
        self.runs += 1
        store = FactsStore(self.folder / str(self.runs))
        store.add_probe("talos", "moody-good", lambda: probe_talos(lab, lab.node("moody-good")))
        gate = Gate(Facts(store, now()), lab, ["talos"])
        found: dict[str, object] = {}
        for clause in clauses().values():
            if clause.layer != "talos":
                continue
            for target in gate.expected_targets(clause):
                blocker = gate.blocker(clause, target)
                found[clause.id] = blocker.clause if blocker else gate.judge(clause, target)
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("talos")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    pki = Pki()
    lab = Running(World(load_inputs("t4-jellyfin")), str(folder / "talosconfig"), folder)
    server = asyncio.run_coroutine_threadsafe(serve(lambda: lab.world, "cp-1", pki), loop).result(10)

    def encode(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    contexts = {}
    for role in ("os:reader", "os:admin"):
        issued = pki.client("talos", "moody", "labproof", role)
        contexts[role] = {
            "endpoints": [f"127.0.0.1:{server.port}"],
            "ca": encode(pki.authority("talos", "moody").pem),
            "crt": encode(issued.certificate),
            "key": encode(issued.talos_key),
        }
    Path(lab.talosconfig).write_text(yaml.safe_dump({"context": "os:reader", "contexts": contexts}))
    yield lab
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


def test_the_healthy_node_passes_every_clause(running: Running) -> None:
    found = running.judged(None)
    assert {name: what for name, what in found.items() if not isinstance(what, Pass)} == {}
    assert len(found) >= 24
    for name, what in found.items():
        assert isinstance(what, Pass) and what.evidence, name


@pytest.mark.parametrize("variation", ["talos-admin", "talos-1.13", "tesla-p4"])
def test_healthy_variations_pass_every_clause(running: Running, variation: str) -> None:
    found = running.judged(variation)
    assert {name: what for name, what in found.items() if not isinstance(what, Pass)} == {}


@pytest.mark.parametrize(
    ("tag", "modules"),
    [("v1.10.4", "/sys/module"), ("v1.12.6", "LoadedKernelModules"), ("v1.14.0", "KernelModuleStatuses")],
)
def test_other_releases_are_read_by_what_they_offer(running: Running, tag: str, modules: str) -> None:
    found = running.judged("talos-1.13" if tag > "v1.13" else None, tag=tag)
    assert {name: what for name, what in found.items() if not isinstance(what, Pass)} == {}
    live = found["TALOS-MODULE-002"]
    assert isinstance(live, Pass) and modules in live.evidence[0].source


@pytest.mark.parametrize("faults", [(), ("nvidia-modules-not-configured",), ("card-memory-errors",)], ids=str)
def test_saved_facts_give_the_same_verdicts(running: Running, faults: tuple[str, ...]) -> None:
    live = running.judged(None, *faults)
    saved = FactsStore(running.folder / str(running.runs), frozen=True)
    gate = Gate(Facts(saved, now()), running.lab(None), ["talos"])
    for clause in clauses().values():
        if clause.layer == "talos" and not isinstance(live.get(clause.id, ""), str):
            (target,) = gate.expected_targets(clause)
            assert gate.judge(clause, target) == live[clause.id]


@pytest.mark.parametrize("name", FAULTS)
def test_fault_gives_its_cause_and_nothing_else(running: Running, name: str) -> None:
    fault = FAULTS[name]
    found = running.judged(fault.variation, name)
    failing = {clause: what for clause, what in found.items() if isinstance(what, Fail)}
    assert fault.clause in failing, found.get(fault.clause)
    assert {p.cause for p in failing[fault.clause].problems} == {fault.cause}
    assert set(failing) == {c for c in (fault.clause, *fault.also) if c.startswith("TALOS-")}
    assert clauses()[fault.clause].severity.value == fault.finding
    if fault.clause != "TALOS-API-001":
        assert not [what for what in found.values() if isinstance(what, Unchecked)]
    for what in failing.values():
        assert all(p.evidence and all(e.source for e in p.evidence) for p in what.problems)


def test_every_talos_clause_is_failed_by_some_fault() -> None:
    failed = {fault.clause for fault in load_faults().values()} | {a for f in FAULTS.values() for a in f.also}
    assert {c.id for c in clauses().values() if c.layer == "talos"} - failed == set()
