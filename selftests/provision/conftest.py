"""A bare simulated lab, a bench on it, and what the world looks like byte for byte."""

import copy
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from labproof import places
from labproof.checks.gate import Gate
from labproof.checks.registry import LAYERS, clauses
from labproof.facts.bundle import Facts
from labproof.facts.store import FactsStore, now
from labproof.inventory.load import load_lab
from labproof.plugin.probing import add_probes
from labproof.provision import runner
from labproof.provision.bench import Bench, Limits
from labproof.provision.journal import Journal
from labproof.provision.scopes import allowed
from labproof.simlab.kube import managed
from labproof.simlab.kube.patch import merge_patch
from labproof.simlab.kube.rbac import shipped_objects
from labproof.simlab.server import SimLab

ALL = allowed(["all"])
LIMITS = Limits(
    initramfs_s=20, refresh_s=20, reboot_s=20, shutdown_s=5, drain_s=20, upgrade_s=20, node_ready_s=20, pods_s=60,
    poll_s=0.05,
)  # fmt: skip
_COUNTER = itertools.count()
#: Kinds that follow from others, or that come and go by themselves.
_DERIVED = frozenset({"pods", "events", "leases.coordination.k8s.io", "replicasets.apps"})


class Killed(BaseException):
    """SIGKILL, as the process would see it if it could."""


class FragileJournal(Journal):
    """Dies when it has counted down: before an announcement counts as done, or right after it was written."""

    def __init__(self, folder: Path, lives: int) -> None:
        super().__init__(folder)
        self.lives = lives

    def _append(self, row):
        self._die()
        super()._append(row)
        self._die()

    def _die(self):
        self.lives -= 1
        if self.lives < 0:
            raise Killed


@dataclass
class Ground:
    """One bare lab with everything a test does to it."""

    sim: SimLab
    folder: Path
    variation: str | None = None
    layers: tuple = ("host", "vm", "talos")
    patch: dict = field(default_factory=dict)
    told: list = field(default_factory=list)

    def reset(self, variation=None, faults=()):
        """A fresh bare world, and no journal."""
        self.sim.reset(list(faults), variation)
        self.variation, self.patch, self.told = variation, {}, []
        self.journal = Journal(self.folder / f"journal-{next(_COUNTER)}")
        return self

    def as_root(self):
        """The owner gives root's password in place of the token."""
        password = self.sim._pve["pve5"].password("root@pam")
        secret = self.folder / "root-password"
        secret.write_text(password)
        root = {"user": "root@pam", "password": f"file:{secret}", "token_id": None, "token_secret": None}
        self.patch = merged(self.patch, {"hosts": {"pve5": {"pve": root}}})

    def lab(self):
        """The declared lab with the overlay and the test's own patch laid over."""
        patch = {**self.sim.overlay["patch"]}
        for key, value in self.patch.items():
            patch[key] = laid(patch.get(key, {}), value)
        return load_lab(places.lab_file("t4-jellyfin"), patch)

    def bench(self, allow=ALL, limits=LIMITS, journal=None):
        """A bench with fresh facts."""
        lab = self.lab()
        store = FactsStore(self.folder / f"facts-{next(_COUNTER)}")
        add_probes(store, lab)
        facts = Facts(store, now())
        return Bench(lab, facts, journal or self.journal, allow=allow, limits=limits, tell=self.told.append)

    def plan(self, **options):
        with self.bench(**options) as bench:
            return runner.make_plan(bench, self.layers)

    def provision(self, **options):
        with self.bench(**options) as bench:
            return runner.provision(bench, self.layers)

    def undo(self, **options):
        with self.bench(**options) as bench:
            return runner.undo(bench)

    def red(self, layers=LAYERS):
        """Everything that does not pass, judged with fresh facts."""
        with self.bench() as bench:
            gate = Gate(bench.facts, bench.lab, layers)
            rulings = {
                (c.id, t.name): gate.rule(c, t)
                for c in clauses().values()
                if set(c.reads) <= set(layers)
                for t in gate.expected_targets(c)
            }
        return {key: ruling for key, ruling in rulings.items() if ruling.verdict != "pass"}

    def world(self):
        """Everything provisioning may touch: files, arguments, drivers, configurations, mappings, images of nodes."""
        host, node = self.sim.world.hosts["pve5"], self.sim.world.pve["pve5"]
        files = {p: (e["text"], e.get("mode", "0644")) for p, e in host.inputs["files"].items() if e.get("text")}
        return {
            "files": files,
            "etc": self.etc(),
            "initramfs": host.files_then("in_initramfs"),
            "menu": host.configured_cmdline,
            "cmdline": host.cmdline,
            "iommu": host.iommu,
            "drivers": dict(host.drivers.bound),
            "configs": {v: {k: str(x) for k, x in node.section(int(v)).items()} for v in node.vms},
            "pending": {v: node.pending(int(v)) for v in node.vms},
            "running": {v: q.argv for v, q in sorted(host.qemus.items())},
            "mappings": copy.deepcopy(dict(node.mappings)),
            "nodes": {name: self.node(name) for name in self.sim.world.nodes},
        }

    def node(self, name):
        """What a Talos node runs and will run, byte for byte, and whether pods are let on it."""
        state = self.sim.world.nodes[name]
        object_ = next(o for c in self.sim.world.clusters.values() for o in c.store.each("nodes")
                       if o["metadata"]["name"] == name)  # fmt: skip
        return {
            "image": (state.os_version, state.schematic, tuple((e.name, e.version) for e in state.installed)),
            "config": state.machine_config,
            "staged": state.staged_config if state.staged_config != state.machine_config else None,
            "cordoned": object_["spec"].get("unschedulable"),
        }

    def etc(self):
        """Every file below /etc with mode and digest, as the host itself shows them: nothing of ours is left behind."""
        with self.bench() as bench:
            session = bench.shell(bench.lab.host("pve5")).session
            command = "find /etc -type f ! -path '/etc/pve/*' ! -name machine-id -exec stat -c '%a %n' {} + "
            listed = session.run(command + "-exec sha256sum {} + | sort")
        assert listed.exit_status == 0
        return listed.stdout.decode()

    @property
    def cluster(self):
        """The simulated cluster."""
        return self.sim.world.clusters["moody"]

    def objects(self):
        """Every object of the cluster that somebody wants, with who wants which field; without what follows of it."""
        found = {}
        for kind in self.cluster.kinds.kinds:
            if kind.key in _DERIVED:
                continue
            for obj in self.cluster.store.all(kind.key):
                meta = {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "generation")}
                meta["managedFields"] = [
                    {k: v for k, v in row.items() if k != "time"} for row in meta.get("managedFields") or ()
                ]
                wanted = {k: v for k, v in obj.items() if k != "status"} | {"metadata": meta}
                found[kind.key, meta.get("namespace", ""), meta["name"]] = json.dumps(wanted, sort_keys=True)
        return found

    def meddle(self, key, name, namespace="", **change):
        """Somebody else's hand: a merge patch by a field manager `kubectl-edit`, as the server takes it."""
        cluster = self.cluster
        before = cluster.store.get(key, name, namespace)
        after = merge_patch(before, change)
        stored = managed.updated(before, after, "kubectl-edit", cluster.clock.stamp())
        cluster.written.note(cluster.kinds.key(key), stored, before)
        cluster.store.put(cluster.kinds.key(key), stored)

    @property
    def host(self):
        """Inputs of the host."""
        return self.sim.world.inputs["hosts"]["pve5"]


def merged(base, patch):
    """A merge patch that keeps nulls out of its way."""
    if isinstance(base, list) and isinstance(patch, dict):
        return [merged(thing, patch.get(thing["name"], {})) for thing in base]
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    return {**base, **{key: merged(base.get(key), value) for key, value in patch.items()}}


def laid(base, patch):
    """The same, where the base may be a list of named things."""
    if isinstance(base, list) and isinstance(patch, dict):
        return [merged(thing, patch.get(thing["name"], {})) for thing in base]
    return merged(base, patch)


@pytest.fixture(scope="session")
def bare_simlab():
    with SimLab("t4-jellyfin", bare=("passthrough", "talos")) as lab:
        yield lab


@pytest.fixture
def ground(bare_simlab, tmp_path):
    """A T4 lab whose host and VM are bare."""
    return Ground(bare_simlab, tmp_path).reset()


@pytest.fixture(scope="session")
def healthy_simlab():
    with SimLab("t4-jellyfin") as lab:
        yield lab


@pytest.fixture
def healthy_ground(healthy_simlab, tmp_path):
    """The finished T4 lab."""
    return Ground(healthy_simlab, tmp_path).reset()


@pytest.fixture(scope="session")
def plain_talos_simlab():
    with SimLab("t4-jellyfin", bare=("talos",)) as lab:
        yield lab


@pytest.fixture
def talos_ground(plain_talos_simlab, tmp_path):
    """A T4 lab whose node runs an image and a configuration without a word of GPUs; all else is done."""
    return Ground(plain_talos_simlab, tmp_path, layers=("talos",)).reset()


@pytest.fixture(scope="session")
def bare_cluster_simlab():
    with SimLab("t4-jellyfin", bare=("cluster",)) as lab:
        yield lab


@pytest.fixture
def cluster_ground(bare_cluster_simlab, tmp_path):
    """A T4 lab whose node has its card, and whose cluster knows nothing of it."""
    return Ground(bare_cluster_simlab, tmp_path, layers=("kubernetes", "metrics")).reset()


@pytest.fixture
def finished_ground(healthy_simlab, tmp_path):
    """The finished T4 lab with its plugin by Helm, looked at by the cluster's steps."""
    return Ground(healthy_simlab, tmp_path, layers=("kubernetes", "metrics")).reset()


def grant(ground):
    """The owner applies manifests/rbac-provision.yaml."""
    cluster = ground.cluster
    for obj in shipped_objects({"provisioner": True}):
        kind = cluster.kinds.named(obj["kind"], obj["apiVersion"])
        if obj["metadata"]["name"] == "labproof-provisioner":
            cluster.create(kind, obj)
    return ground


@pytest.fixture(scope="session")
def whole_bare_simlab():
    with SimLab("t4-jellyfin", bare=True) as lab:
        yield lab


@pytest.fixture
def whole_ground(whole_bare_simlab, tmp_path):
    """A T4 lab that nobody provisioned, from the host's firmware up."""
    return Ground(whole_bare_simlab, tmp_path, layers=LAYERS).reset()
