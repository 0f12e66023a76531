"""The workload probe and the life of its pods: what it makes, never takes, leaves, sweeps, and how it fails."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import yaml

from labproof import places
from labproof.checks.judgement import Pass
from labproof.checks.registry import clauses
from labproof.clients.errors import Kind, TransportFailure
from labproof.facts.reading import State
from labproof.facts.store import FactsStore
from labproof.facts.workload import WorkloadFacts
from labproof.inventory.chains import chains_of
from labproof.probes import pods as pods_module
from labproof.probes.pods import Busy, OwnPods
from labproof.probes.pods_lease import micro
from labproof.probes.pods_manifest import DEADLINE, MANAGED_BY, RUN_LABEL, rfc3339
from labproof.probes.workload import probe_workload
from selftests.workload.api import Api, pod_of
from selftests.workload.world import NODE, expected, judge, lab


@pytest.fixture
def api(monkeypatch, tmp_path):
    cluster = Api()
    monkeypatch.setattr(pods_module, "open_session", lambda lab, cluster_: cluster)
    monkeypatch.setattr(pods_module.tempfile, "gettempdir", lambda: str(tmp_path))
    return cluster


def probe(declared=None) -> object:
    declared = declared or lab()
    return probe_workload(declared, chains_of(declared)[0])


def ours(api: Api) -> list[str]:
    return [name for namespace, name in api.pods if namespace == "labproof"]


def test_healthy_cluster_is_judged_well_and_left_as_found(api):
    before = set(api.pods)
    reading = probe()
    assert reading.state is State.VALUE, reading.why
    facts = reading.value
    for clause in clauses().values():
        if clause.reads == ("workload",) and expected(clause.id):
            assert isinstance(judge(clause.id, facts), Pass), judge(clause.id, facts)
    assert set(api.pods) == before
    assert api.leases == {}
    assert facts.left_behind == ()
    assert len(facts.created) >= 5


def test_one_free_slot_stays_free(api):
    facts = probe().value
    assert api.most_slots_of_ours <= 2  # 4 slots, 1 held, so 3 free
    assert facts.overflow.value.asked == 4
    assert facts.overflow.value.woke_s.state is State.NOT_ASKED


def test_all_slots_are_taken_only_when_told(api):
    facts = probe(lab(probe={"max_slots": 3})).value
    assert api.most_slots_of_ours == 3
    assert facts.overflow.value.asked == 1
    assert facts.overflow.value.woke_s.state is State.VALUE


def test_full_card_is_busy_and_the_waiting_pod_is_the_proof(api):
    full = Api(held=4)
    api.pods.update(full.pods)
    facts = probe().value
    assert facts.probe.kind == "busy"
    assert "media/jellyfin-3" in facts.probe.why
    assert api.most_slots_of_ours == 0
    assert isinstance(judge("POD-OVERFLOW-001", facts), Pass)
    assert isinstance(judge("POD-LEAK-001", facts), Pass)


def test_last_free_slot_is_not_taken(api):
    api.pods.update(Api(held=3).pods)
    facts = probe().value
    assert facts.probe.kind == "busy"
    assert "max_slots" in facts.probe.why
    assert api.most_slots_of_ours == 0


def test_unshared_idle_card_nobody_waits_for_is_used(api):
    api.pods.clear()
    api.allocatable = 1
    facts = probe(lab(workloads=[], sharing={"strategy": "none", "replicas": 1})).value
    assert facts.probe.value is not None
    assert api.most_slots_of_ours == 1


def test_own_image_on_the_node_is_preferred_to_a_pull(api):
    facts = probe().value
    assert facts.image.reference == "docker.io/jellyfin/jellyfin:10.11.4"
    assert facts.image.on_node


def test_priority_above_a_holders_is_refused(api):
    api.priority = 1000
    reading = probe()
    assert reading.kind == "refused"
    assert "media/jellyfin-0" in reading.why
    assert ours(api) == []


def test_missing_namespace_says_how_to_make_it(api):
    api.namespaces.discard("labproof")
    reading = probe()
    assert reading.kind == "not_found"
    assert "kubectl create namespace labproof" in reading.why


def test_refusal_of_the_pod_is_an_outcome(api):
    api.refusal = (403, 'pods "x" is forbidden: pod rejected: RuntimeClass "nvidia" not found')
    facts = probe().value
    assert facts.probe.value.refused == "no such RuntimeClass"
    assert judge("POD-RUN-001", facts).problems[0].cause == "K23"


def test_environment_is_read_only_as_far_as_it_is_nvidias(api):
    facts = probe().value
    assert "hunter2" not in repr(facts)
    assert facts.variable("NVIDIA_DRIVER_CAPABILITIES") == "all"


def test_device_that_the_cgroup_closes(api):
    api.exec_table[r"if=/dev/nvidia-uvm"] = (1, "", "dd: failed to open '/dev/nvidia-uvm': Operation not permitted")
    assert judge("POD-UVM-001", probe().value).problems[0].cause == "W19"


def test_facts_survive_the_store(api, tmp_path):
    reading = probe()
    store = FactsStore(tmp_path / "facts", {})
    store.add_probe("workload", "c", lambda: reading)
    store.section("workload", "c", WorkloadFacts)
    assert FactsStore(tmp_path / "facts", frozen=True).section("workload", "c", WorkloadFacts) == reading


# ---------------------------------------------------------------- pods of other runs


def left(api: Api, name: str, run: str | None, deadline: float) -> None:
    labels = {MANAGED_BY: "labproof"} | ({RUN_LABEL: run} if run else {})
    api._add("labproof", pod_of(name, 0, labels=labels, annotations={DEADLINE: rfc3339(deadline)}))


def lease(api: Api, run: str, renewed: float) -> None:
    spec = {"holderIdentity": run, "leaseDurationSeconds": 15, "renewTime": micro(renewed)}
    api.leases[f"labproof-run-{run}"] = api._stamped(
        {"metadata": {"name": f"labproof-run-{run}"}, "spec": spec}, "labproof"
    )


def test_sweep_takes_the_dead_and_leaves_the_living(api):
    now = time.time()
    lease(api, "living", now)
    lease(api, "killed", now - 3600)
    left(api, "of-living", "living", now + 600)
    left(api, "late-of-living", "living", now - 1)
    left(api, "of-killed", "killed", now + 600)
    left(api, "of-nobody", "gone", now + 600)
    left(api, "by-hand", None, now - 600)
    facts = probe().value
    assert sorted(facts.swept) == ["labproof/late-of-living", "labproof/of-killed", "labproof/of-nobody"]
    assert sorted(ours(api)) == ["by-hand", "of-living"]
    assert set(api.leases) == {"labproof-run-living"}


def test_second_run_waits_for_the_gpu_and_then_says_who_has_it(api, tmp_path, monkeypatch):
    declared = lab()
    declared = declared.model_copy(
        update={"timings": declared.timings.model_copy(update={"transcode_s": 0.2, "pod_start_s": 0.1})}
    )
    chain = chains_of(declared)[0]
    with OwnPods(declared, chain.cluster, NODE) as first:
        elsewhere = tmp_path / "elsewhere"  # another machine: no lock file in common
        elsewhere.mkdir()
        monkeypatch.setattr(pods_module.tempfile, "gettempdir", lambda: str(elsewhere))
        reading = probe_workload(declared, chain)
    assert reading.kind == "busy"
    assert first.run in reading.why
    assert api.leases == {}


def test_stale_lock_is_taken_over(api):
    spec = {"holderIdentity": "killed", "leaseDurationSeconds": 15, "renewTime": micro(time.time() - 100)}
    body = {"metadata": {"name": f"labproof-gpu-{NODE}"}, "spec": spec}
    api.leases[f"labproof-gpu-{NODE}"] = api._stamped(body, "labproof")
    assert probe().state is State.VALUE
    assert api.leases == {}


def test_failure_in_the_middle_leaves_nothing(api):
    declared = lab()
    chain = chains_of(declared)[0]
    with pytest.raises(RuntimeError), OwnPods(declared, chain.cluster, NODE) as pods:
        pods.make("probe", "probe", "image", 1)
        raise RuntimeError
    assert ours(api) == []
    assert api.leases == {}


def test_two_workers_of_one_machine_exclude_each_other(api):
    declared = lab()
    declared = declared.model_copy(
        update={"timings": declared.timings.model_copy(update={"transcode_s": 0.1, "pod_start_s": 0.1})}
    )
    chain = chains_of(declared)[0]
    with OwnPods(declared, chain.cluster, NODE), pytest.raises(Busy), OwnPods(declared, chain.cluster, NODE):
        pass


@pytest.mark.parametrize("name", ["probe", "leak", "runtime-class-only", "vector-add"])
def test_manifest_can_be_applied_by_hand(name):
    body = yaml.safe_load((places.folder("manifests") / "pods" / f"{name}.yaml").read_text())
    spec = body["spec"]
    assert body["metadata"]["labels"][MANAGED_BY] == "labproof"
    assert spec["activeDeadlineSeconds"] <= 900
    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    assert "privileged" not in str(spec)
    assert "hostPath" not in str(spec)
    assert "nodeName" not in spec


def test_runtime_class_is_left_out_where_there_is_none(api):
    facts = probe(lab(runtime_class={"name": "nvidia", "expected": "absent"})).value
    assert facts.runtime_class_only.state is State.NOT_ASKED
    seen = SimpleNamespace(names=ours(api))
    assert seen.names == []


def test_pod_whose_deletion_is_refused_is_tried_again_and_named(api, monkeypatch):
    declared = lab()
    declared = declared.model_copy(update={"timings": declared.timings.model_copy(update={"pod_start_s": 0.2})})
    chain = chains_of(declared)[0]
    real, calls = api.delete, []

    def delete(path, **query):
        calls.append(path)
        if "/pods/" in path:
            raise TransportFailure(Kind.FORBIDDEN, "test", "no", status=403, answer="no")
        return real(path, **query)

    monkeypatch.setattr(api, "delete", delete)
    with OwnPods(declared, chain.cluster, NODE) as pods:
        seen = pods.make("probe", "probe", "image", 1)
        pods.remove(seen.name)
    assert pods.left_behind == [f"labproof/{seen.name}"]
    assert sum(path.endswith(seen.name) for path in calls) == 2
    assert api.leases == {}


def test_owners_pod_is_looked_at_by_exec(api):
    facts = probe(lab(probe={"via": "exec", "pod": "media/jellyfin"})).value
    assert facts.probe.value.name == "jellyfin-0"
    assert facts.via == "exec"
    assert not any("-probe-" in name for name in facts.created)
    for clause in ("POD-RUN-001", "POD-SMI-001", "POD-IDENT-001", "POD-OPEN-001", "POD-UVM-001", "POD-CAPS-001"):
        assert isinstance(judge(clause, facts), Pass), judge(clause, facts)


def test_owners_pod_that_is_not_there(api):
    facts = probe(lab(probe={"via": "exec", "pod": "media/plex"})).value
    assert facts.probe.kind == "not_found"
    assert "media/plex" in facts.probe.why


def test_renamed_resource_is_what_pods_ask_for(api):
    declared = lab(sharing={"strategy": "time-slicing", "replicas": 4, "rename": True})
    facts = probe(declared).value
    assert facts.slots.resource == "nvidia.com/gpu.shared"
    assert facts.slots.allocatable is None


def test_pod_whose_creation_was_not_answered_is_removed_too(api, monkeypatch):
    real = api.create

    def create(path, body, **query):
        made = real(path, body, **query)
        if body["metadata"]["name"].startswith("labproof-probe") and not query.get("dry_run"):
            raise TransportFailure(Kind.RESET, "test", "the peer broke the connection")
        return made

    monkeypatch.setattr(api, "create", create)
    reading = probe()
    assert reading.kind == "reset"
    assert ours(api) == []
    assert api.leases == {}
