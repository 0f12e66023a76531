"""Sudden death and company: the next run sweeps what a killed one left; runs side by side leave each other be."""

import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labproof.clients.kubernetes import KubeSession, KubeTarget
from labproof.simlab.kube.server import kubeconfig

from .command import finish, run, start, write_lab

PODS = "/api/v1/namespaces/labproof/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/labproof/leases"
OURS = "app.kubernetes.io/managed-by=labproof"


@pytest.fixture
def admin(simlab, lines, tmp_path):
    """The owner's own access to the cluster."""
    simlab.reset([])
    lines.clear()
    path = tmp_path / "admin.kubeconfig"
    path.write_text(kubeconfig(simlab._pki, "moody", lines["kube", "moody"].port, "admin"))
    with KubeSession(KubeTarget(str(path))) as session:
        yield session


def names(session, path):
    return {item["metadata"]["name"] for item in session.list_json(path, labelSelector=OURS)["items"]}


def stamp(ago_s):
    return (datetime.now(UTC) - timedelta(seconds=ago_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def pod(name, run_id=None, deadline_in_s=900):
    labels = {"app.kubernetes.io/managed-by": "labproof", **({"labproof/run": run_id} if run_id else {})}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "labproof", "labels": labels,
                     "annotations": {"labproof/deadline": stamp(-deadline_in_s)[:19] + "Z"}},
        "spec": {"containers": [{"name": "c", "image": "docker.io/jellyfin/jellyfin:10.11", "command": ["sleep", "900"],
                                 "resources": {"limits": {"cpu": "10m", "memory": "16Mi"}}}]},
    }  # fmt: skip


def lease(run_id, renewed_ago_s):
    return {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": f"labproof-run-{run_id}", "labels": {"app.kubernetes.io/managed-by": "labproof"}},
        "spec": {"holderIdentity": run_id, "leaseDurationSeconds": 15, "renewTime": stamp(renewed_ago_s)},
    }  # fmt: skip


def age_leases(session, living=()):
    """Let a minute pass for every Lease but those of living runs."""
    for name in names(session, LEASES) - set(living):
        session.merge_patch(f"{LEASES}/{name}", {"spec": {"renewTime": stamp(60)}})


def wait_for(what, limit_s=30):
    until = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)
    return found


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def whole(reports: Path):
    """Nothing half-written is left where a reader looks, and `latest` is never a broken link."""
    for path in reports.rglob("*.json"):
        if not path.name.startswith("."):
            json.loads(path.read_text("utf-8"))
    latest = reports / "latest"
    assert latest.exists() or not latest.is_symlink()


def test_a_killed_run_is_swept_by_the_next_and_nothing_else(simlab, admin, tmp_path):
    write_lab(simlab, tmp_path)
    reports = tmp_path / "reports"

    def facts(kind):
        return list(reports.glob(f"runs/*/facts/{kind}-*.json"))

    points = [
        lambda: facts("pve"),
        lambda: [n for n in names(admin, PODS) if "-leak-" in n],
        lambda: [n for n in names(admin, PODS) if "-at-once-" in n],
    ]
    for number, point in enumerate(points):
        process = start(tmp_path)
        wait_for(point)
        time.sleep(0.05 * number)
        kill(process)
        whole(reports)
        assert facts("host"), "facts read before the kill are on disk"
        age_leases(admin)
    left = names(admin, PODS)
    assert left, "the kill came too late to leave anything"
    admin.create(PODS, pod("labproof-other", "living"))
    admin.create(LEASES, lease("living", 1))
    admin.create(PODS, pod("labproof-late", "late", deadline_in_s=-5))
    admin.create(LEASES, lease("late", 1))
    admin.create(PODS, pod("by-hand"))
    owners = {p["metadata"]["uid"] for p in admin.list_json("/api/v1/namespaces/media/pods")["items"]}
    done = run(tmp_path)
    assert done.status == 0, done.output[-3000:]
    assert names(admin, PODS) == {"labproof-other", "by-hand"}
    assert names(admin, LEASES) == {"labproof-run-living", "labproof-run-late"}
    assert {p["metadata"]["uid"] for p in admin.list_json("/api/v1/namespaces/media/pods")["items"]} == owners
    whole(reports)
    assert done.result["run_id"] == max(p.name for p in reports.glob("runs/*/"))


def test_facts_of_a_killed_run_can_be_judged(simlab, admin, tmp_path):
    write_lab(simlab, tmp_path)
    process = start(tmp_path)
    wait_for(lambda: list(tmp_path.glob("reports/runs/*/facts/talos-*.json")))
    kill(process)
    [killed] = (tmp_path / "reports").glob("runs/*/")
    done = run(tmp_path, "--facts", str(killed))
    assert done.status == 6, done.output[-3000:]
    by_layer = {}
    for verdict in done.result["verdicts"]:
        by_layer.setdefault(verdict["layer"], set()).add(verdict["verdict"])
    assert by_layer["host"] == by_layer["vm"] == by_layer["talos"] == {"pass"}
    assert by_layer["transcode"] == {"unchecked"}
    assert "absent" not in done.output


def test_the_simulated_lab_ends_with_a_killed_run(tmp_path):
    process = start(tmp_path, "--sim", "t4-jellyfin")

    def simulators():
        mark = f"labproof-overlay-{process.pid}-".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "cmdline").read_bytes():
                    found.append(folder.name)
            except OSError:
                continue
        return found

    wait_for(lambda: list(tmp_path.glob("reports/runs/*/facts/host-*.json")))
    assert simulators()
    process.kill()
    process.communicate()
    wait_for(lambda: not simulators(), 15)
    whole(tmp_path / "reports")


def test_two_runs_at_once(simlab, admin, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        write_lab(simlab, folder)
    processes = [start(folder) for folder in folders]
    for process, folder in zip(processes, folders, strict=True):
        done = finish(process, folder)
        assert done.status in (0, 7), done.output[-3000:]
        assert set(done.verdicts.values()) <= {"pass", "unchecked"}
        assert all(v["busy"] for v in done.result["verdicts"] if v["verdict"] == "unchecked")
    assert names(admin, PODS) == set()
    assert names(admin, LEASES) == set()
