"""A cluster of one GPU node that answers from memory: pods get slots or wait, Leases conflict, exec is a table.

It knows nothing of the probe; what the probe sends is what decides. Used where the simulated lab would be too much.
"""

from __future__ import annotations

import copy
import itertools
import re
import threading
from types import SimpleNamespace

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.kubernetes import ExecResult, PodLog
from selftests.workload.world import INSUFFICIENT, NODE, RESOURCE, UUID

T4_XML = f"""<?xml version="1.0" ?><!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd"><nvidia_smi_log>
<driver_version>570.172.08</driver_version><cuda_version>12.8</cuda_version><attached_gpus>1</attached_gpus>
<gpu id="00000000:01:00.0"><product_name>Tesla T4</product_name><uuid>{UUID}</uuid>
<pci><pci_device_id>1EB810DE</pci_device_id><pci_bus_id>00000000:01:00.0</pci_bus_id></pci>
<fb_memory_usage><total>15360 MiB</total><used>5 MiB</used><free>14900 MiB</free></fb_memory_usage>
<compute_mode>Default</compute_mode><encoder_stats><session_count>0</session_count></encoder_stats>
<temperature><gpu_temp>40 C</gpu_temp></temperature></gpu></nvidia_smi_log>"""
DEVICES = "".join(
    f"crw-rw-rw- 1 0 0 195, {n} Nov 20 19:00 {name}\n" for n, name in enumerate(("nvidia0", "nvidiactl", "nvidia-uvm"))
)


class Api:
    """The cluster; sessions of several runs may share it."""

    def __init__(self, allocatable: int = 4, held: int = 1) -> None:
        self.pods: dict[tuple[str, str], dict] = {}
        self.leases: dict[str, dict] = {}
        self.allocatable = allocatable
        self.most_slots_of_ours = 0
        self.namespaces = {"labproof", "media"}
        self.images = ["docker.io/jellyfin/jellyfin:10.11.4"]
        self.priority = 0
        self.refusal: tuple[int, str] | None = None
        self.exec_table: dict[str, tuple[int | None, str, str]] = {}
        self.requests: list[tuple[str, str]] = []
        self._ids = itertools.count(1)
        self._lock = threading.RLock()
        for number in range(held):
            self._add("media", pod_of(f"jellyfin-{number}", 1))

    # ------------------------------------------------ what a session offers

    target = SimpleNamespace(retry_pause_s=0.001)

    def close(self) -> None:
        """Sessions of a real client close their connections."""

    def get_json(self, path: str, **query: object) -> dict:
        self.requests.append(("GET", path))
        with self._lock:
            if path == f"/api/v1/nodes/{NODE}":
                amounts = {RESOURCE: str(self.allocatable)}
                images = [{"names": [name], "sizeBytes": 1_000_000} for name in self.images]
                return {"status": {"allocatable": amounts, "capacity": amounts, "images": images}}
            if "/leases/" in path:
                return copy.deepcopy(self._found(self.leases, path.rsplit("/", 1)[-1]))
            namespace, name = path.split("/")[4], path.split("/")[6]
            return copy.deepcopy(self._found(self.pods, (namespace, name)))

    def list_json(self, path: str, page: int = 500, **query: object) -> dict:
        self.requests.append(("LIST", path))
        with self._lock:
            if path.endswith("/leases"):
                return {"items": copy.deepcopy(list(self.leases.values()))}
            if path.endswith("/events"):
                return {"items": []}
            items = [p for (ns, _), p in self.pods.items() if path == "/api/v1/pods" or f"/{ns}/" in path]
            if str(query.get("fieldSelector", "")).startswith("spec.nodeName="):
                items = [p for p in items if p["spec"].get("nodeName") == NODE]
            if query.get("labelSelector"):
                key, _, wanted = str(query["labelSelector"]).partition("=")
                items = [p for p in items if (p["metadata"].get("labels") or {}).get(key) == wanted]
            return {"items": copy.deepcopy(items)}

    def create(self, path: str, body: dict, *, dry_run: bool = False) -> dict:
        self.requests.append(("DRY" if dry_run else "POST", path))
        with self._lock:
            namespace = path.split("/")[-2]
            if namespace not in self.namespaces:
                raise refused(404, f'namespaces "{namespace}" not found')
            name = body["metadata"]["name"]
            if body["kind"] == "Lease":
                if name in self.leases:
                    raise refused(409, f'leases "{name}" already exists')
                self.leases[name] = self._stamped(body, namespace)
                return copy.deepcopy(self.leases[name])
            if self.refusal is not None:
                raise refused(*self.refusal)
            if dry_run:
                return {**body, "spec": {**body["spec"], "priority": self.priority}}
            self._add(namespace, body)
            return copy.deepcopy(self.pods[namespace, name])

    def merge_patch(self, path: str, body: dict, *, dry_run: bool = False) -> dict:
        with self._lock:
            lease = self._found(self.leases, path.rsplit("/", 1)[-1])
            wanted = (body.get("metadata") or {}).get("resourceVersion")
            if wanted not in (None, lease["metadata"]["resourceVersion"]):
                raise refused(409, "the object has been modified")
            lease["spec"] |= body["spec"]
            lease["metadata"]["resourceVersion"] = str(next(self._ids))
            return copy.deepcopy(lease)

    def delete(self, path: str, *, grace_s: int | None = None, uid: str | None = None, **query: object) -> dict:
        self.requests.append(("DELETE", path))
        with self._lock:
            name = path.rsplit("/", 1)[-1]
            if "/leases/" in path:
                self._found(self.leases, name)
                return self.leases.pop(name)
            key = (path.split("/")[4], name)
            if uid not in (None, self._found(self.pods, key)["metadata"]["uid"]):
                raise refused(409, "the UID in the precondition does not match")
            gone = self.pods.pop(key)
            self._schedule()
            return gone

    def log(self, namespace: str, pod: str, container: str | None = None, **query: object) -> PodLog:
        return PodLog(b"[Vector addition of 50000 elements]\nTest PASSED\nDone\n", None)

    def exec(
        self, namespace: str, pod: str, argv: list[str], container: str | None = None, timeout_s: float = 60.0
    ) -> ExecResult:
        with self._lock:
            granted = asked(self._found(self.pods, (namespace, pod)))
        line = " ".join(argv)
        for pattern, (code, out, err) in self.exec_table.items():
            if re.search(pattern, line):
                return ExecResult(code, out.encode(), err.encode(), None, None, 0.0)
        if argv[0] == "nvidia-smi" and not granted:
            why = 'exec: "nvidia-smi": executable file not found in $PATH'
            return ExecResult(None, b"", b"", why, Kind.REJECTED, 0.0)
        answers = {
            "nvidia-smi -q -x": T4_XML,
            "nvidia-smi -L": f"GPU 0: Tesla T4 (UUID: {UUID})\n",
            "env": f"PATH=/bin\nSECRET=hunter2\nNVIDIA_DRIVER_CAPABILITIES=all\nNVIDIA_VISIBLE_DEVICES={UUID}\n",
            "id -u": "0\n",
            "ls -ln /dev": "total 0\n" + (DEVICES if granted else "") + "crw-rw-rw- 1 0 0 1, 3 Nov 20 19:00 null\n",
        }
        if argv[:2] == ["ls", "-d"]:
            there = "\n".join(p for p in argv[2:] if p.startswith("/usr/lib/x86_64-linux-gnu/"))
            return ExecResult(2, there.encode(), b"ls: cannot access ...", None, None, 0.0)
        return ExecResult(0, answers.get(line, "").encode(), b"", None, None, 0.0)

    # ------------------------------------------------ what a cluster does by itself

    def _add(self, namespace: str, body: dict) -> None:
        pod = self._stamped(body, namespace)
        pod["status"] = {"phase": "Pending"}
        self.pods[namespace, pod["metadata"]["name"]] = pod
        self._schedule()

    def _stamped(self, body: dict, namespace: str) -> dict:
        made = copy.deepcopy(body)
        number = str(next(self._ids))
        made["metadata"] |= {"namespace": namespace, "uid": f"uid-{number}", "resourceVersion": number}
        made["metadata"].setdefault("creationTimestamp", "2026-11-20T18:00:00Z")
        return made

    def _schedule(self) -> None:
        for pod in self.pods.values():
            if pod["spec"].get("nodeName"):
                continue
            held = sum(asked(p) for p in self.pods.values() if p["spec"].get("nodeName") and alive(p))
            if asked(pod) > self.allocatable - held:
                condition = {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": INSUFFICIENT,
                }
                pod["status"] = {"phase": "Pending", "conditions": [condition]}
                continue
            pod["spec"]["nodeName"] = NODE
            pod["status"] = self._running(pod)
        ours = sum(asked(p) for (ns, _), p in self.pods.items() if ns == "labproof" and p["spec"].get("nodeName"))
        self.most_slots_of_ours = max(self.most_slots_of_ours, ours)

    def _running(self, pod: dict) -> dict:
        if asked(pod) > 1:
            text = (
                "Pod was rejected: Allocate failed due to rpc error: code = Unknown desc = invalid allocation request: "
            )
            text += "maximum request size for shared resources is 1; found 2, which is unexpected"
            return {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": text}
        if "command" not in pod["spec"]["containers"][0]:  # an image's own program, which ends
            ended = {"terminated": {"exitCode": 0, "reason": "Completed"}}
            return {"phase": "Succeeded", "containerStatuses": [{"name": "main", "restartCount": 0, "state": ended}]}
        state = {"running": {"startedAt": "2026-11-20T18:00:00Z"}}
        return {"phase": "Running", "containerStatuses": [{"name": "main", "restartCount": 0, "state": state}]}

    def _found(self, things: dict, key: object) -> dict:
        if key not in things:
            raise refused(404, f'"{key}" not found')
        return things[key]


def pod_of(name: str, slots: int, **metadata: object) -> dict:
    """A pod of somebody else."""
    container = {"name": "main", "command": ["sleep"], "resources": {"limits": {RESOURCE: str(slots)}}}
    return {"kind": "Pod", "metadata": {"name": name, **metadata}, "spec": {"containers": [container]}}


def asked(pod: dict) -> int:
    return sum(int(c["resources"].get("limits", {}).get(RESOURCE, 0)) for c in pod["spec"]["containers"])


def alive(pod: dict) -> bool:
    return pod["status"]["phase"] not in ("Succeeded", "Failed")


def refused(status: int, text: str) -> TransportFailure:
    kind = {404: Kind.NOT_FOUND, 403: Kind.FORBIDDEN}.get(status, Kind.REJECTED)
    return TransportFailure(kind, "test", text, status=status, answer=text)
