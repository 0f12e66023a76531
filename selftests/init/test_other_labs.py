"""`init` against the other reference labs: no Proxmox below them, so the node itself carries the card."""

import pytest

from labproof import places
from labproof.checks.registry import LAYERS, TRUNK
from labproof.inventory.chains import chains_of
from labproof.inventory.load import load_lab
from labproof.simlab.server import SimLab

from ..matrix.harness import judge
from .conftest import Owner

#: What an owner adds by hand, because nobody can see it: budgets and limits he wants held.
#: Clauses that are judged in the shipped lab only for that reason.
WANTED = {
    "bare-metal-rtx2070": {"POD-POWER-001", "POD-VRAM-002"},
    "standalone-nvidia-plugin": {"POD-VRAM-001", "POD-VRAM-002"},
}

#: What `init` declares beyond the shipped file: the sound function of the card, which it sees.
MORE = {"bare-metal-rtx2070": set(), "standalone-nvidia-plugin": {"TALOS-GUEST-002"}}
FUNCTIONS = {
    "bare-metal-rtx2070": ("10de:10f8", "10de:1ad8", "10de:1ad9"),
    "standalone-nvidia-plugin": ("10de:22bd",),
}


@pytest.fixture(scope="module", params=sorted(WANTED))
def other(request):
    with SimLab(request.param) as lab:
        yield request.param, lab


@pytest.fixture
def stranger(other, tmp_path, monkeypatch):
    """The owner of another lab: its name, and his home folder."""
    name, simlab = other
    return name, Owner(simlab, tmp_path, monkeypatch).enter()


def verdicts(outcome):
    return {key: ruling.verdict for key, ruling in outcome.rulings.items()}


def test_the_found_lab_is_judged_green_and_as_the_declared_one(stranger, tmp_path, capsys):
    name, owner = stranger
    assert owner.init() == 0, capsys.readouterr()
    shipped = judge(owner.simlab.overlay, tmp_path, lab=name, layers=TRUNK)
    found = judge({"patch": owner.timings}, tmp_path, lab=owner.lab, layers=TRUNK)
    assert set(verdicts(found).values()) == {"pass"}, found.describe()
    lacks = set(verdicts(shipped)) - set(verdicts(found))
    assert {clause for clause, _ in lacks} == WANTED[name]
    more = set(verdicts(found)) - set(verdicts(shipped))
    assert {clause for clause, _ in more} == MORE[name]


def test_the_node_carries_the_card(stranger, capsys):
    name, owner = stranger
    owner.init()
    lab = load_lab(owner.lab, owner.timings)
    (chain,) = chains_of(lab)
    assert (chain.host, chain.vm) == (None, None)
    assert set(chain.layers) >= {"talos", "kubernetes", "workload", "transcode"}
    shipped = load_lab(places.lab_file(name), owner.simlab.overlay["patch"])
    assert (lab.gpus[0].device, lab.gpus[0].address) == (shipped.gpus[0].device, shipped.gpus[0].address)
    assert lab.gpus[0].functions == FUNCTIONS[name]
    assert lab.nodes[0].talos.version == shipped.nodes[0].talos.version
    assert lab.clusters[0].scheduling.taints == shipped.clusters[0].scheduling.taints
    assert "NOT SEEN: a host below it" in owner.lab.read_text()
    assert "talos or kubernetes" in capsys.readouterr().out


def test_without_talos_the_cluster_alone_tells_of_the_card(stranger, tmp_path, capsys):
    _, owner = stranger
    assert owner.init(using=("kube",)) == 0, capsys.readouterr()
    found = judge({"patch": owner.timings}, tmp_path, lab=owner.lab, layers=LAYERS[:4])
    assert found.rulings
    assert set(verdicts(found).values()) == {"pass"}, found.describe()


def test_metrics_that_are_there_are_declared_and_judged(stranger, tmp_path, capsys):
    name, owner = stranger
    assert owner.init() == 0, capsys.readouterr()
    found = judge({"patch": owner.timings}, tmp_path, lab=owner.lab)
    metrics = {clause: verdict for (clause, _), verdict in verdicts(found).items() if clause.startswith("METRIC-")}
    assert bool(metrics) == (name == "standalone-nvidia-plugin"), "only that lab has an exporter"
    assert set(metrics.values()) <= {"pass"}, found.describe()


# ------------------------------------------------------------------ an iGPU whose only slot is Emby's


@pytest.fixture(scope="module")
def intel():
    with SimLab("intel-plugin-emby") as lab:
        yield lab


def test_an_intel_lab_is_found_down_to_its_holder(intel, tmp_path, monkeypatch, capsys):
    owner = Owner(intel, tmp_path, monkeypatch).enter()
    assert owner.init() == 0, capsys.readouterr()
    lab = load_lab(owner.lab, owner.timings)
    shipped = load_lab(places.lab_file("intel-plugin-emby"), intel.overlay["patch"])
    (found,), (declared,) = chains_of(lab), chains_of(shipped)
    assert (found.id, found.gpu.device) == (declared.id, declared.gpu.device)
    assert set(found.layers) == set(declared.layers) - {"apps"}  # Emby as an app is the owner's to declare
    assert found.vm.model_copy(update={"gpus": declared.vm.gpus}) == declared.vm
    assert found.node.talos.extensions == declared.node.talos.extensions
    assert found.cluster.plugin == declared.cluster.plugin
    assert [(w.name, w.slots) for w in found.cluster.workloads] == [("media/emby", 1)]
    assert found.cluster.runtime_class.expected == "absent"
    assert "every slot is held" in owner.lab.read_text()
    assert "probe: {via: exec, pod: media/emby}" in owner.lab.read_text()


def test_what_needs_no_slot_of_an_intel_lab_is_judged_green(intel, tmp_path, monkeypatch, capsys):
    owner = Owner(intel, tmp_path, monkeypatch).enter()
    assert owner.init() == 0, capsys.readouterr()
    shipped = judge(intel.overlay, tmp_path, lab="intel-plugin-emby", layers=LAYERS[:4])
    found = judge({"patch": owner.timings}, tmp_path, lab=owner.lab, layers=LAYERS[:4])
    assert set(verdicts(found).values()) == {"pass"}, found.describe()
    assert {c for c, _ in verdicts(found)} >= {c for c, _ in verdicts(shipped)}


# ------------------------------------------------------------------ plain Kubernetes, a hostPath and no plugin


def test_a_hostpath_lab_is_found_and_asks_for_what_nobody_could_see(tmp_path, monkeypatch, capsys):
    with SimLab("hostpath-frigate") as simlab:
        owner = Owner(simlab, tmp_path, monkeypatch).enter()
        assert owner.init() == 0, capsys.readouterr()
        assert "fill in `device`" in capsys.readouterr().out
        shipped = load_lab(places.lab_file("hostpath-frigate"), simlab.overlay["patch"]).gpus[0]
        owner.lab.write_text(owner.lab.read_text().replace("device: 0000:0000", f"device: {shipped.device}"))
        lab = load_lab(owner.lab, owner.timings)
        assert (lab.clusters[0].plugin.flavour, lab.nodes[0].os) == ("hostpath", "linux")
        found = judge({"patch": owner.timings}, tmp_path, lab=owner.lab, layers=LAYERS[:4])
        assert found.of("fail") == ["K8S-HOSTPATH-001"], "the risk that the shipped lab accepts by an exception"
        assert found.causes("K8S-HOSTPATH-001") == {"K103"}
        assert found.of("unchecked") + found.of("blocked") == []
