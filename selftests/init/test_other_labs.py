"""`init` against the other reference labs: no Proxmox below them, so the node itself carries the card."""

import pytest

from labproof import places
from labproof.checks.registry import LAYERS
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
    shipped = judge(owner.simlab.overlay, tmp_path, lab=name)
    found = judge({"patch": owner.timings}, tmp_path, lab=owner.lab)
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
