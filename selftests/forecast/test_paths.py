"""The simulator performs each upgrade; what breaks there must equal what was forecast, both ways.

A path: the lab of a variation with its owner's own choices (inputs that stay as they are), the versions to go to, and
what breaks, by clause, target and cause, from the host up to transcoding (apps and metrics are not foretold).
The simulator moves versions by tables of its own and derives every symptom;
the forecast sees nothing but the facts of the run before.
"""

from dataclasses import dataclass, field

import pytest

from labproof.checks.registry import TRUNK
from labproof.forecast.judge import forecast
from labproof.forecast.target import parse_targets

from .conftest import BELOW_PODS, failing, saved

NODE, CHAIN, HOST, CLUSTER = "moody-good", "pve5/0000:3b:00.0", "pve5", "moody"
TWIN = "pve5/0000:af:00.0"
IGPU, FUNCTION = "pve5/0000:00:02.0", "pve5/0000:00:02.1"


@dataclass(frozen=True)
class Path:
    """One upgrade of one lab, and what it breaks."""

    id: str
    to: dict
    breaks: frozenset = frozenset()
    variation: str | None = None
    patch: dict = field(default_factory=dict)
    lab: dict = field(default_factory=dict)
    name: str = "t4-jellyfin"


def node(**inputs):
    """Choices of the GPU node's owner."""
    return {"nodes": {NODE: inputs}}


def host(**inputs):
    """Choices of the host's owner."""
    return {"hosts": {HOST: inputs}}


def cluster(**inputs):
    """Choices of the cluster's owner."""
    return {"clusters": {CLUSTER: inputs}}


def values(**chart):
    """Values of the plugin's or the operator's chart."""
    return cluster(plugin={"values": chart})


def extensions(*names):
    """Another schematic, declared as such."""
    return {
        "patch": node(talos={"extensions": list(names)}),
        "lab": {"nodes": {NODE: {"talos": {"extensions": names}}}},
    }


LTS = ("nonfree-kmod-nvidia-lts", "nvidia-container-toolkit-lts", "qemu-guest-agent")
UNSUFFIXED = ("nonfree-kmod-nvidia", "nvidia-container-toolkit", "qemu-guest-agent")
PRODUCTION = ("nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production", "qemu-guest-agent")
WITH_NFS = ("nfs-utils", *PRODUCTION)
TOOLKIT_LABEL = {"extensions.talos.dev/nvidia-container-toolkit-production": "570.172.08-v1.17.8"}
KMOD_LABEL = {"extensions.talos.dev/nonfree-kmod-nvidia-production": "570.172.08-v1.11.6"}
JELLYFIN_ON_KMOD = cluster(objects={"jellyfin": {"spec": {"template": {"spec": {"nodeSelector": KMOD_LABEL}}}}})
RAW_VM = {
    "name": NODE, "host": HOST, "id": 1105, "mac": "94:96:CC:43:7D:80", "gpus": ["t4"], "machine": "q35",
    "bios": "ovmf", "cpu": "host", "memory_mib": 243712,
}  # fmt: skip
GRUB = {"uki": False, "kernel_args": ["nvme_core.default_ps_max_latency_us=0"]}
OLD_KERNEL = {"version": "5.15.158-2-pve", "installed": ["5.15.158-2-pve"]}
PVE7 = host(
    kernel=OLD_KERNEL,
    pve={"version": "7.4.18", "release": "7.4", "machine": "pc-q35-8.0+pve0", "qemu": "8.0.2"},
)
VIRQFD = {"/etc/modules": {"text": "vfio\nvfio_iommu_type1\nvfio_pci\nvfio_virqfd\n"}}
TALOS_112 = node(talos={"version": "v1.12.6"}, config={"sysctls": {"net.core.bpf_jit_harden": "1"}})
OPERATOR_112 = {**TALOS_112, **values(hostPaths={"driverInstallDir": "/usr/local/glibc"})}
DECLARES_112 = {"nodes": {NODE: {"talos": {"version": "v1.12.6"}}}}

PATHS = [
    # ---- Talos: what goes well
    Path("talos-next-minor", {"talos": "1.12.6"}),
    Path("talos-two-minors-on-legacy-injection", {"talos": "1.13.9"}),
    Path("talos-1.14", {"talos": "1.14.0"}),
    Path("pascal-on-570-still", {"talos": "1.12.6"}, variation="tesla-p4"),
    Path("pascal-on-lts", {"talos": "1.13.9"}, variation="tesla-p4", **extensions(*LTS)),
    Path("names-from-before-the-branches", {"talos": "1.13.9"}, variation="tesla-p4", **extensions(*UNSUFFIXED)),
    Path("blackwell-on-open-modules", {"talos": "1.13.9"}, variation="rtx-5090"),
    Path("nfs-utils-over-1.12", {"talos": "1.13.9"}, **extensions(*WITH_NFS)),
    Path("arguments-of-a-unified-image", {"talos": "1.13.9"}, patch=node(talos={**GRUB, "uki": True})),
    Path("operator-with-cdi", {"talos": "1.14.0"}, variation="operator"),
    Path("operator-without-cdi", {"talos": "1.14.0"}, variation="operator-legacy"),
    Path("labels-typed-by-hand", {"talos": "1.13.9"}, variation="hand-labelled"),
    # ---- Talos: what breaks
    Path(
        "pascal-on-production", {"talos": "1.13.9"}, frozenset({("TALOS-DRIVER-001", CHAIN, "T16")}),
        variation="tesla-p4",
    ),
    Path(
        "nfs-utils-to-1.12", {"talos": "1.12.6"}, frozenset({("TALOS-SERVICE-002", NODE, "T58")}),
        **extensions(*WITH_NFS),
    ),
    Path(
        "arguments-on-grub", {"talos": "1.13.9"}, frozenset({("TALOS-CMDLINE-001", NODE, "T48")}),
        patch=node(talos=GRUB),
    ),
    Path(
        "plain-installer-to-1.14", {"talos": "1.14.0"}, frozenset({("TALOS-VERSION-001", NODE, "T45")}),
        patch=node(talos={"kind": "plain"}),
    ),
    Path(
        "efi-too-small-for-two-images", {"talos": "1.12.6"}, frozenset({("TALOS-VERSION-001", NODE, "T64")}),
        patch=node(talos={"boot_mib": 1101}),
    ),
    Path(
        "boot-too-small-on-grub", {"talos": "1.12.6"}, frozenset({("TALOS-VERSION-001", NODE, "T44")}),
        patch=node(talos={"boot_mib": 1000, "uki": False}),
    ),
    Path(
        "install-image-left-behind", {"talos": "1.12.6"}, frozenset({("TALOS-IMAGE-001", NODE, "T03")}),
        variation="talos-admin",
    ),
    Path(
        "plugin-selects-a-version", {"talos": "1.12.6"}, frozenset({("K8S-PLUGIN-001", NODE, "K76")}),
        patch=values(nodeSelector=TOOLKIT_LABEL),
    ),
    Path(
        "workload-selects-a-version", {"talos": "1.12.6"},
        frozenset({("K8S-HOLD-002", CLUSTER, "K76"), ("K8S-SELECT-001", NODE, "K76")}), patch=JELLYFIN_ON_KMOD,
    ),
    Path(
        "operator-1.12-to-1.13", {"talos": "1.13.9"}, frozenset({("K8S-OPER-001", NODE, "K78")}),
        variation="operator-legacy", patch=OPERATOR_112, lab=DECLARES_112,
    ),
    # ---- Kubernetes
    Path("kubernetes-before-talos", {"kubernetes": "1.36.2"}, frozenset({("K8S-SKEW-001", NODE, "K131")})),
    Path("talos-then-kubernetes", {"talos": "1.13.9", "kubernetes": "1.36.2"}),
    Path("kubernetes-1.35-on-1.12", {"kubernetes": "1.35.1"}, patch=TALOS_112, lab=DECLARES_112),
    Path(
        "kubelet-held-back", {"talos": "1.12.6", "kubernetes": "1.35.1"},
        frozenset({("K8S-SKEW-001", NODE, "K130")}), patch=cluster(nodes={NODE: {"kubelet_version": "v1.31.5"}}),
    ),
    # ---- other labs
    Path("bare-metal-535-to-580", {"talos": "1.12.6"}, name="bare-metal-rtx2070"),
    Path("bare-metal-to-1.13", {"talos": "1.13.9"}, name="bare-metal-rtx2070"),
    Path("standalone-to-1.13", {"talos": "1.13.9", "kubernetes": "1.36.2"}, name="standalone-nvidia-plugin"),
    Path(
        "standalone-kubernetes-before-talos", {"kubernetes": "1.36.2"},
        frozenset({("K8S-SKEW-001", "k8s-worker4", "K131")}), name="standalone-nvidia-plugin",
    ),
    Path("intel-to-1.13", {"talos": "1.13.9", "pve": "9"}, name="intel-plugin-emby"),
    Path(
        "intel-kernel-that-merges-groups-and-a-raw-entry", {"kernel": "6.8.12-25-pve"},
        frozenset({("HOST-KERNEL-002", "pve1", "P11")}), name="intel-plugin-emby",
    ),
    Path("standalone-plugin", {"plugin": "0.20.0"}, name="standalone-nvidia-plugin"),
    # ---- plugin and operator
    Path("plugin-0.18-to-0.20", {"plugin": "0.20.0"}),
    Path("plugin-with-the-label-race", {"plugin": "0.18.2"}, patch=cluster(plugin={"version": "0.17.4"})),
    # ---- host
    Path("pve-9", {"pve": "9"}),
    Path("pve-9-on-amd", {"pve": "9.1"}, variation="amd-host"),
    Path("pve-7-to-8", {"pve": "8"}, patch=PVE7),
    Path(
        "pve-7-to-8-with-virqfd", {"pve": "8"}, frozenset({("HOST-MODULES-001", HOST, "P27")}),
        patch={**PVE7, "hosts": {HOST: {**PVE7["hosts"][HOST], "files": VIRQFD}}},
    ),
    Path(
        "kernel-that-merges-groups", {"kernel": "6.8.12-25-pve"},
        frozenset({
            ("HOST-KERNEL-002", HOST, "P11"), ("VM-MAPPING-001", CHAIN, "P34"), ("VM-START-001", CHAIN, "P34"),
        }),
    ),
    Path(
        "kernel-that-merges-groups-and-a-raw-entry", {"kernel": "6.8.12-25-pve"},
        frozenset({("HOST-KERNEL-002", HOST, "P11")}),
        patch=host(vms={"1105": {"config": {"hostpci0": "0000:3b:00.0,pcie=1"}}}), lab={"vms": [RAW_VM]},
    ),
    Path(
        "kernel-that-merges-groups-of-two-cards", {"kernel": "6.8.12-25-pve"},
        frozenset({
            ("HOST-KERNEL-002", HOST, "P11"),
            *((clause, chain, "P34") for clause in ("VM-MAPPING-001", "VM-START-001") for chain in (CHAIN, TWIN)),
        }),
        variation="two-cards",
    ),
    Path("bad-kernel-but-pinned", {"kernel": "6.8.12-25-pve"}, patch=host(kernel={"pinned": "6.8.12-9-pve"})),
    Path("kernel-with-the-fix", {"kernel": "6.8.12-30-pve"}),
    Path(
        "kernel-refuses-functions", {"kernel": "6.14.8-1-pve"}, frozenset({("HOST-KERNEL-001", FUNCTION, "P13")}),
        variation="igpu-vf",
    ),
    Path(
        "kernel-forgets-the-igpu", {"kernel": "6.11.0-1-pve"},
        frozenset({
            ("HOST-GROUP-001", IGPU, "P12"), ("HOST-GROUP-004", IGPU, "P12"), ("HOST-KERNEL-001", IGPU, "P12"),
            ("VM-MAPPING-001", CHAIN, "P34"), ("VM-START-001", CHAIN, "P34"),
        }),
        variation="igpu-on-host",
    ),
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.id)
def test_what_breaks_is_what_was_forecast(judged, path):
    before, lab = judged(path.variation, path.patch, path.lab, layers=BELOW_PODS, name=path.name)
    told = forecast(saved(before), lab, parse_targets(f"{k}={v}" for k, v in path.to.items()))
    after, _ = judged(path.variation, path.patch, path.lab, upgrade=path.to, layers=TRUNK, name=path.name)
    broke = failing(after) - failing(before)
    foretold = {(b.clause, b.target, cause) for b in told.breaks for cause in b.causes}
    assert foretold == broke, after.describe()
    assert broke == path.breaks
    assert told.unknown == ()
    assert [b for b in told.breaks if not b.gates] == []
    assert {(c, t) for c, t, _ in told.already} == {(c, t) for c, t, _ in failing(before)}


def test_enough_paths_and_enough_kinds():
    assert len(PATHS) >= 12
    assert sum(1 for path in PATHS if not path.breaks) >= 5
    assert len({cause for path in PATHS for _, _, cause in path.breaks}) >= 12
    assert len({path.id for path in PATHS}) == len(PATHS)
