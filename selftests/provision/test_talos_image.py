"""talos_image: image and configuration of a node, what is refused, what goes wrong, and the way back."""

import json

import pytest

from labproof.provision import drain
from labproof.provision.bench import Limits
from labproof.provision.scopes import ORDINARY

NODE = "moody-good"
SECRET = "abcdef.0123456789abcdef"  # the token in the simulated machine configuration
IMPATIENT = Limits(drain_s=1, upgrade_s=1, reboot_s=1, node_ready_s=1, poll_s=0.05)


def declared(ground, **talos):
    """lab.yaml says something else of the node."""
    ground.patch = {"nodes": {NODE: {"talos": talos}}}


def inputs(ground):
    return ground.sim.world.inputs["nodes"][NODE]


def refused(ground):
    """Causes and texts of the refusals; nothing was begun."""
    before = ground.world()
    (step,) = ground.plan().steps
    outcome = ground.provision()
    assert not outcome.complete
    assert outcome.changed == 0, outcome.lines
    assert ground.journal.entries() == []
    assert ground.world() == before
    return {refusal.cause: refusal.text for refusal in step.refusals}


def test_the_plan_says_it_all_and_no_secret(talos_ground):
    plan = talos_ground.plan()
    text = "\n".join(plan.lines()) + json.dumps(plan.as_json())
    (step,) = plan.steps
    actions = [change.action for change in step.changes]
    assert actions == ["schematic", "machine-config", "node-drain", "upgrade", "node-resume"]
    assert "metal-installer/4392dfdeec70a2d7f294c51508ac5b05977272ae5a2ea7c0c0b5288e0e34317d:v1.11.6" in text
    assert "because TALOS-EXT-001" in text
    assert "kubectl drain moody-good" in text
    assert SECRET not in text
    assert talos_ground.provision().complete
    assert SECRET not in talos_ground.journal.path.read_text()


@pytest.mark.parametrize("variation", [None, "talos-1.13", "one-node"])
def test_brought_to_green_and_back(talos_ground, variation):
    talos_ground.reset(variation)
    inputs(talos_ground)["boot_takes_s"] = 0.5  # with one node the Kubernetes API is away meanwhile
    before = talos_ground.world()
    assert talos_ground.provision().complete
    assert talos_ground.red(("host", "vm", "talos")) == {}
    assert talos_ground.plan().empty
    assert talos_ground.undo().complete
    assert talos_ground.world() == before


def test_declared_is_the_next_release(talos_ground):
    declared(talos_ground, version="v1.12.6")
    before = talos_ground.world()
    outcome = talos_ground.provision()
    assert talos_ground.sim.world.nodes[NODE].os_version == "v1.12.6", outcome.lines
    assert talos_ground.undo().complete
    assert talos_ground.world() == before


def test_only_the_configuration_is_applied_live(talos_ground):
    assert talos_ground.provision().complete
    found = inputs(talos_ground)
    found["config"] = {**found["config"], "sysctls": {}, "text": found["config"]["text"].replace(
        "    net.core.bpf_jit_harden: '1'\n", "")}  # fmt: skip
    found["config_writes"] += 1
    boot = talos_ground.sim.world.nodes[NODE].boot_id
    (step,) = talos_ground.plan().steps
    assert [change.action for change in step.changes] == ["machine-config"]
    assert talos_ground.provision().complete
    assert talos_ground.sim.world.nodes[NODE].boot_id == boot


def test_a_default_runtime_needs_a_boot_and_the_table_of_the_release(talos_ground):
    assert talos_ground.provision().complete
    talos_ground.patch = {"clusters": {"moody": {"runtime_class": {"default_runtime": "nvidia"}}}}
    inputs(talos_ground)["config"]["sysctls"] = {}
    inputs(talos_ground)["config_writes"] += 1
    assert talos_ground.provision().complete
    assert "io.containerd.cri.v1.runtime" in talos_ground.sim.world.nodes[NODE].cri_parts["20-customization.part"]
    assert talos_ground.sim.world.nodes[NODE].default_runtime == "nvidia"


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize("missing", ["node-config", "node-upgrade"])
def test_what_is_not_allowed_is_not_begun(talos_ground, missing):
    before = talos_ground.world()
    outcome = talos_ground.provision(allow=set(ORDINARY) - {missing})
    assert outcome.changed == 0
    assert f"missing --allow {missing}" in "\n".join(outcome.lines)
    assert talos_ground.world() == before


def test_without_os_admin(talos_ground):
    declared(talos_ground, admin_talosconfig=None)
    assert "declare an `admin_talosconfig` with os:admin" in refused(talos_ground)["T52"]


def test_without_a_factory(talos_ground):
    lab = talos_ground.lab
    talos_ground.lab = lambda: lab().model_copy(update={"factory": None})
    assert "declare `factory" in refused(talos_ground)["T01"]


def test_an_extension_that_the_release_lacks(talos_ground):
    declared(talos_ground, extensions=["iscsi-tools", "no-such-thing", "qemu-guest-agent"])
    assert "has no extension no-such-thing for v1.11.6" in refused(talos_ground)["T05"]


def test_an_extension_that_would_be_lost(talos_ground):
    pair = ["nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production"]
    declared(talos_ground, extensions=[*pair, "qemu-guest-agent"])
    assert "iscsi-tools, which lab.yaml does not list" in refused(talos_ground)["unread"]


def test_without_a_list_what_is_there_is_kept(talos_ground):
    declared(talos_ground, extensions=[])
    assert talos_ground.provision().complete
    names = [e.name for e in talos_ground.sim.world.nodes[NODE].installed]
    assert names[:4] == [
        "iscsi-tools", "qemu-guest-agent", "nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production",
    ]  # fmt: skip


@pytest.mark.parametrize(("version", "said"), [("v1.10.7", "the older v1.10.7"), ("v1.13.9", "more than one minor")])
def test_a_release_that_no_upgrade_reaches(talos_ground, version, said):
    declared(talos_ground, version=version)
    assert said in refused(talos_ground)["unread"]


def test_a_pod_that_nobody_would_make_again(talos_ground):
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "precious", "namespace": "media"},
        "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "docker.io/jellyfin/jellyfin:10.11"}]},
    }  # fmt: skip
    talos_ground.sim.world.inputs["clusters"]["moody"]["objects"]["precious"] = pod
    inputs(talos_ground)["config_writes"] = 1  # the cluster is built anew
    assert "media/precious on moody-good belongs to no controller" in refused(talos_ground)["lone-pod"]


ILL = {
    "rook-ceph": ("ceph.rook.io/v1", "CephCluster", {"status": {"ceph": {"health": "HEALTH_WARN"}}}, "HEALTH_WARN"),
    "longhorn": (
        "longhorn.io/v1beta2", "Volume", {"status": {"state": "attached", "robustness": "degraded"}}, "degraded",
    ),
    "cloudnative-pg": (
        "postgresql.cnpg.io/v1", "Cluster", {"spec": {"instances": 3}, "status": {"readyInstances": 2}}, "2 of 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("operator", ILL)
def test_storage_that_is_not_healthy(talos_ground, operator):
    version, kind, rest, said = ILL[operator]
    cluster = talos_ground.sim.world.inputs["clusters"]["moody"]
    cluster["operators"] = {**cluster.get("operators", {}), operator: True}
    thing = {"apiVersion": version, "kind": kind, "metadata": {"name": "main", "namespace": "media"}, **rest}
    cluster["objects"]["storage"] = thing
    inputs(talos_ground)["config_writes"] = 1
    assert said in refused(talos_ground)["storage"]


def test_an_account_that_may_not_drain(talos_ground):
    talos_ground.sim.world.inputs["clusters"]["moody"]["rbac"]["drain"] = False
    inputs(talos_ground)["config_writes"] = 1
    assert "manifests/rbac-drain.yaml" in refused(talos_ground)["rights"]


def test_never_the_only_control_plane_from_inside_its_cluster(talos_ground, monkeypatch):
    talos_ground.reset("one-node")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert "the only control plane" in refused(talos_ground)["inside"]


def test_never_the_node_that_labproof_runs_on(talos_ground, monkeypatch):
    pods = talos_ground.sim.world.clusters["moody"].store.each("pods")
    name = next(p["metadata"]["name"] for p in pods if p["spec"].get("nodeName") == NODE)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setattr(drain.socket, "gethostname", lambda: name)
    assert "labproof runs on moody-good itself" in refused(talos_ground)["inside"]


# ------------------------------------------------------------------ goes wrong


def stopped(ground, **options):
    outcome = ground.provision(**options)
    assert not outcome.complete
    text = "\n".join(outcome.lines)
    assert "run it again to go on, or --undo to go back" in text
    return text


def test_an_upgrade_that_boots_the_old_image(talos_ground):
    before = talos_ground.world()
    inputs(talos_ground)["boots_old_image"] = True
    text = stopped(talos_ground)
    assert "its new image did not come up and the old one was booted (T04)" in text
    assert talos_ground.world()["nodes"][NODE]["cordoned"] is True
    assert talos_ground.undo().complete
    assert talos_ground.world() == before
    inputs(talos_ground)["boots_old_image"] = False
    assert talos_ground.provision().complete


def test_a_new_image_that_does_not_get_ready_is_rolled_back(talos_ground):
    inputs(talos_ground)["new_image_never_settles"] = True
    text = stopped(talos_ground, limits=IMPATIENT)
    assert "time is not in sync" in text
    assert "It was rolled back and runs v1.11.6 as before" in text
    names = [e.name for e in talos_ground.sim.world.nodes[NODE].installed]
    assert "nonfree-kmod-nvidia-production" not in names


def test_a_node_that_never_comes_back(talos_ground):
    inputs(talos_ground)["hangs_at_reboot"] = True
    text = stopped(talos_ground, limits=IMPATIENT)
    assert "did not come back within 1 s" in text
    assert "was done: talosctl apply-config" in text
    inputs(talos_ground).update(hangs_at_reboot=False, away_until=0)
    assert talos_ground.provision().complete
    assert talos_ground.world()["nodes"][NODE]["cordoned"] is None


def test_an_installer_that_fails_without_an_error_of_the_api(talos_ground):
    talos_ground.reset("talos-1.13")
    inputs(talos_ground)["boot_partition_full"] = True
    assert "no space left on device" in stopped(talos_ground)


def test_a_budget_that_allows_no_disruption(talos_ground):
    labels = {"app.kubernetes.io/name": "films"}
    films = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "films", "namespace": "media"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                 "spec": {"nodeSelector": {"drmoo.io/gpu": "nvidia-t4"},
                          "containers": [{"name": "c", "image": "docker.io/jellyfin/jellyfin:10.11"}]}}},
    }  # fmt: skip
    budget = {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "films", "namespace": "media"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}},
    }  # fmt: skip
    objects = talos_ground.sim.world.inputs["clusters"]["moody"]["objects"]
    objects |= {"films": films, "films-budget": budget}
    inputs(talos_ground)["config_writes"] = 1
    text = stopped(talos_ground, limits=IMPATIENT)
    assert "media/films" in text
    assert "would violate the pod's disruption budget" in text
    assert "stays cordoned" in text
    del objects["films-budget"]
    inputs(talos_ground)["config_writes"] += 1
    assert talos_ground.provision().complete
    assert talos_ground.world()["nodes"][NODE]["cordoned"] is None


# ------------------------------------------------------------------ back


@pytest.mark.parametrize("what", ["configuration", "image"])
def test_undo_refuses_what_somebody_changed_since(talos_ground, what):
    assert talos_ground.provision().complete
    if what == "configuration":
        config = inputs(talos_ground)["config"]
        config["text"] += "# me\n"
    else:
        inputs(talos_ground)["talos"]["extensions"] = ["iscsi-tools"]
    inputs(talos_ground)["config_writes"] += 1
    after = talos_ground.world()
    outcome = talos_ground.undo()
    assert not outcome.complete
    assert "was changed by somebody else" in outcome.lines[0]
    assert talos_ground.world() == after


def test_a_node_that_its_owner_cordoned_stays_so(talos_ground):
    talos_ground.sim.world.inputs["clusters"]["moody"]["nodes"][NODE]["cordoned"] = True
    inputs(talos_ground)["config_writes"] = 1
    assert talos_ground.world()["nodes"][NODE]["cordoned"] is True
    assert talos_ground.provision().complete
    assert talos_ground.world()["nodes"][NODE]["cordoned"] is True
