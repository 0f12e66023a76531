"""What the cluster's steps refuse: other owners with the values to commit, rights, things changed since, dead ends."""

import pytest

from selftests.provision.conftest import grant

FLUX = {"helm.toolkit.fluxcd.io/name": "plugin", "helm.toolkit.fluxcd.io/namespace": "flux-system"}
FIVE = {"clusters": {"moody": {"sharing": {"strategy": "time-slicing", "replicas": 5}}}}
PLUGIN = ("daemonsets.apps", "nvidia-device-plugin", "nvidia-device-plugin")


def refusals(ground, step):
    found = next(s for s in ground.plan().steps if s.step == step)
    return {r.cause: r for r in found.refusals}


def unchanged(ground):
    before = ground.objects()
    outcome = ground.provision()
    assert not outcome.complete
    assert outcome.changed == 0, outcome.lines
    assert ground.objects() == before
    return "\n".join(outcome.lines)


# ------------------------------------------------------------------ owners


@pytest.mark.parametrize(
    ("labels", "annotations", "owner"),
    [
        ({}, {}, "Helm release nvidia-device-plugin/nvidia-device-plugin"),
        (FLUX, {}, "Flux HelmRelease flux-system/plugin"),
        ({"kustomize.toolkit.fluxcd.io/name": "gpu"}, {}, "Flux Kustomization ?/gpu"),
        ({}, {"argocd.argoproj.io/tracking-id": "gpu:apps/DaemonSet:x/y"}, "Argo CD application gpu"),
    ],
    ids=["helm", "flux-release", "flux-kustomization", "argo"],
)
def test_a_plugin_of_somebody_else_is_left_to_them(finished_ground, labels, annotations, owner):
    ground = grant(finished_ground)
    ground.patch = FIVE
    ground.meddle(*PLUGIN, metadata={"labels": labels, "annotations": annotations})
    refusal = refusals(ground, "time_slicing")["conflict"]
    assert owner in refusal.text
    assert "Commit these values there" in refusal.text
    assert "replicas: 5" in refusal.values
    assert "runtimeClassName: nvidia" in refusal.values
    said = unchanged(ground)
    assert "replicas: 5" in said
    assert "refused (conflict)" in "\n".join(ground.plan().lines())


def test_a_namespace_of_flux_is_not_relabelled(cluster_ground):
    ground = cluster_ground
    ground.meddle("namespaces", "monitoring", metadata={"labels": {"kustomize.toolkit.fluxcd.io/name": "base"}})
    assert "Flux Kustomization ?/base" in refusals(ground, "metrics")["conflict"].text


def test_a_field_that_somebody_else_manages_is_told_in_the_servers_words(cluster_ground):
    """An object of our name, with another value under another manager: 409, and the manager is named."""
    ground = cluster_ground
    ground.meddle(
        "namespaces", "monitoring", metadata={"labels": {"pod-security.kubernetes.io/enforce": "baseline"}},
    )  # fmt: skip
    refusal = refusals(ground, "metrics")["conflict"]
    assert 'conflict with "kubectl-edit" using v1' in refusal.text
    assert ".metadata.labels.pod-security.kubernetes.io/enforce" in refusal.text


def test_only_the_runtime_class_is_missing(finished_ground):
    """Helm's plugin stays Helm's: the one object that is missing is made, and everything is green."""
    ground = grant(finished_ground.reset(faults=["runtime-class-absent"]))
    assert [s.step for s in ground.plan().steps if s.changes] == ["runtime_class"]
    outcome = ground.provision()
    assert outcome.changed == 1
    assert ground.red(("kubernetes",)).keys().isdisjoint({("K8S-RTC-001", "moody-good")})


def test_a_runtime_class_with_another_handler(finished_ground):
    ground = grant(finished_ground.reset(faults=["runtime-class-handler-unknown"]))
    assert "cannot be changed" in refusals(ground, "runtime_class")["K22"].text
    unchanged(ground)


def test_a_runtime_class_where_none_is_wanted(finished_ground):
    ground = grant(finished_ground)
    ground.patch = {"clusters": {"moody": {"runtime_class": {"expected": "absent"}}}}
    assert "wants none" in refusals(ground, "runtime_class")["K25"].text


# ------------------------------------------------------------------ rights


def test_an_account_that_may_only_read(cluster_ground):
    """The shipped reading role: refused before anything is begun, and the missing role is named."""
    ground = cluster_ground
    ground.cluster.store.remove("clusterrolebindings.rbac.authorization.k8s.io", "labproof-provisioner")
    assert "rbac-provision.yaml" in refusals(ground, "runtime_class")["rights"].text
    unchanged(ground)


# ------------------------------------------------------------------ dead ends


def test_an_image_that_does_not_exist(cluster_ground):
    """Ends early, names the clause and its cause, and says how to go on or back; then it goes on."""
    ground = cluster_ground
    before = ground.objects()
    images = ground.cluster.inputs.setdefault("images", {})
    images["nvcr.io/nvidia/k8s-device-plugin:v0.18.2"] = {"absent": True}
    outcome = ground.provision()
    text = "\n".join(outcome.lines)
    assert not outcome.complete
    assert "cannot come any more" in text
    assert "K8S-PLUGIN-001 (K34)" in text
    assert "was done: create DaemonSet nvidia-device-plugin/nvidia-device-plugin" in text
    assert "run it again to go on, or --undo to go back" in text
    assert "time_slicing moody: not begun" in text
    assert ground.undo().complete
    assert ground.objects() == before


def test_a_plugin_that_finds_no_driver(cluster_ground):
    ground = cluster_ground.reset(faults=["driver-not-loaded-for-plugin"])
    outcome = ground.provision()
    text = "\n".join(outcome.lines)
    assert not outcome.complete
    assert "ended 3 times" in text or "ended 4 times" in text
    assert "K8S-PLUGIN-001 (K21)" in text


# ------------------------------------------------------------------ undo


@pytest.mark.parametrize(
    ("key", "name", "namespace", "change"),
    [
        ("configmaps", "nvidia-device-plugin-configs", "nvidia-device-plugin", {"data": {"default": "version: v1\n"}}),
        (*PLUGIN, {"metadata": {"labels": {"mine": "yes"}}}),
        ("runtimeclasses.node.k8s.io", "nvidia", "", {"metadata": {"labels": {"mine": "yes"}}}),
        ("namespaces", "monitoring", "", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}),
    ],
    ids=["configuration", "daemonset", "runtime-class", "namespace-label"],
)
def test_undo_refuses_what_somebody_changed_since(cluster_ground, key, name, namespace, change):
    ground = cluster_ground
    assert ground.provision().complete
    ground.meddle(key, name, namespace, **change)
    after = ground.objects()
    outcome = ground.undo()
    assert not outcome.complete
    assert "was changed by somebody else" in outcome.lines[0]
    assert ground.objects() == after


def test_undo_does_not_delete_a_namespace_with_somebody_elses_things(cluster_ground):
    ground = cluster_ground
    assert ground.provision().complete
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs", "namespace": PLUGIN[2]}}
    ground.cluster.create(ground.cluster.kinds.key("configmaps"), theirs)
    outcome = ground.undo()
    assert not outcome.complete
    assert "Namespace nvidia-device-plugin" in outcome.lines[0]
