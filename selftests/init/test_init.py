"""`init` finds what the owner of the shipped lab declared by hand, and judging either file says the same."""

import time
from pathlib import Path

import pytest
import yaml

from labproof.checks.registry import LAYERS, TRUNK
from labproof.init import look as looking
from labproof.inventory.chains import chains_of
from labproof.inventory.load import load_lab

from ..matrix.harness import judge

#: Declared by hand in the shipped lab, and to be seen by nobody: which labels the owner cares for beside what is used.
SAME = (None, "amd-host", "two-cards", "two-hosts", "hand-labelled", "operator", "operator-nri", "all-slots-taken")
MORE = ("pve9-systemd-boot", "second-gpu", "seabios-x86-64-v3", "talos-1.13", "tesla-p4", "gpu-stays-with-host",
        "igpu-on-host", "igpu-vf", "declared-extras", "partial-vfio-ids")  # fmt: skip


def rulings(outcome):
    """Verdict by clause and target."""
    return {key: ruling.verdict for key, ruling in outcome.rulings.items()}


@pytest.mark.parametrize("variation", [*SAME, *MORE], ids=lambda v: v or "plain")
def test_the_found_lab_is_judged_as_the_declared_one(owner, variation, tmp_path, capsys):
    owner.enter(variation)
    assert owner.init() == 0, capsys.readouterr()
    layers = TRUNK if variation in SAME else LAYERS[:4]  # apps and who scrapes are told by nobody
    shipped = judge(owner.simlab.overlay, tmp_path, layers=layers)
    found = judge({"patch": owner.timings}, tmp_path, lab=owner.lab, layers=layers)
    assert rulings(found) == rulings(shipped), found.describe()
    assert not found.of("fail") + found.of("blocked") + found.unchecked_but_not_busy(), found.describe()


@pytest.mark.parametrize(
    ("using", "layers"),
    [
        (("ssh", "talos", "kube"), {"host", "talos", "kubernetes", "workload", "transcode"}),
        (("kube",), {"kubernetes", "workload", "transcode"}),
        (("talos", "kube"), {"talos", "kubernetes", "workload", "transcode"}),
        (("ssh",), {"host"}),
        (("pve",), {"vm"}),
        (("ssh", "pve"), {"host", "vm"}),
        (("pve", "kube"), {"vm", "kubernetes", "workload", "transcode"}),
    ],
    ids=lambda words: "+".join(sorted(words)),  # a set's own order differs from one xdist worker to the next
)
def test_what_was_given_is_what_is_declared(owner, using, layers, tmp_path, capsys):
    owner.enter()
    assert owner.init(using=using) == 0, capsys.readouterr()
    lab = load_lab(owner.lab, owner.timings)
    (chain,) = chains_of(lab)
    assert set(chain.layers) & set(TRUNK) == layers
    assert ("metrics" in chain.layers) == ("kube" in using), "the cluster has a dcgm-exporter"
    found = judge({"patch": owner.timings}, tmp_path, lab=owner.lab)
    assert found.rulings
    assert set(rulings(found).values()) == {"pass"}, found.describe()
    missing = {"ssh": "--ssh", "pve": "--pve", "talos": "--talosconfig"}.keys() - set(using)
    text = owner.lab.read_text()
    assert ("NOT SEEN" in text) == bool(missing)


def test_talos_alone_gives_a_file_whose_talos_layer_is_judged(owner, tmp_path):
    owner.enter()
    assert owner.init("--talosconfig", node_file(owner), using=()) == 0
    found = judge({"patch": owner.timings}, tmp_path, lab=owner.lab, layers=("talos",))
    assert found.rulings
    assert set(rulings(found).values()) == {"pass"}, found.describe()
    assert "kubeconfig: ~/.kube/config  # NOT SEEN" in owner.lab.read_text()


def node_file(owner):
    """A talosconfig that names the GPU node, as owners without a kubeconfig have it."""
    content = yaml.safe_load(Path(owner.doors["talos"][1]).read_text())
    for context in content["contexts"].values():
        context["nodes"] = ["192.168.8.123"]
    owner.home.joinpath("talosconfig").write_text(yaml.safe_dump(content))
    return str(owner.home / "talosconfig")


def test_the_chain_has_the_shipped_labs_id_and_card(owner):
    owner.enter()
    owner.init()
    shipped = load_lab(owner.simlab_lab, owner.simlab.overlay["patch"])
    found = load_lab(owner.lab)
    assert [c.id for c in chains_of(found)] == [c.id for c in chains_of(shipped)] == ["pve5/0000:3b:00.0"]
    assert found.gpus[0].name == "t4"
    assert found.vms[0].model_dump() == shipped.vms[0].model_dump()
    assert found.clusters[0].plugin == shipped.clusters[0].plugin
    assert found.clusters[0].sharing == shipped.clusters[0].sharing
    assert found.clusters[0].workloads == shipped.clusters[0].workloads
    assert found.nodes[0].talos.extensions == shipped.nodes[0].talos.extensions


def test_each_value_says_how_it_is_known(owner):
    owner.enter()
    owner.init()
    text = owner.lab.read_text()
    assert text.startswith("# yaml-language-server: $schema=")
    for told in (
        "# Tesla T4", "# IOMMU group 11, driver vfio-pci", "# its smbios1 uuid is the node's systemUUID",
        "# RuntimeClass nvidia, handler nvidia", "# GFD's labels",
        "# DaemonSet nvidia-device-plugin/nvidia-device-plugin",
        "left out on pve5: 0000:03:00.0", "now: media/jellyfin-",
    ):  # fmt: skip
        assert told in text, told
    bare = [x for x in text.splitlines() if x.strip() and "#" not in x and not x.rstrip().endswith(":")]
    assert [x.split(":")[0].strip(" -") for x in bare if "plugin" not in x] == ["host", "cluster", "expected", "slots"]


def test_a_full_card_is_told_and_the_way_out_is_offered(owner):
    owner.enter("all-slots-taken").init()
    text = owner.lab.read_text()
    assert "every slot is held" in text
    assert "probe: {via: exec, pod: " in text


def test_it_is_quick_and_says_what_it_contacts_before_it_does(owner, capsys, monkeypatch):
    owner.enter()
    heard = []
    real = looking.look

    def look(doors):
        heard.append(capsys.readouterr().out)
        return real(doors)

    monkeypatch.setattr(looking, "look", look)
    began = time.monotonic()
    assert owner.init() == 0
    assert time.monotonic() - began < 10
    for told in ("root@127.0.0.1:", "labproof@pve!suite", "(os:reader)", "as labproof:", "reads only"):
        assert told in heard[0]
    assert "pytest --lab" in capsys.readouterr().out
