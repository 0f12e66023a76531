"""The PVE probe against answers in PVE's shapes: parsing, missing rights, joining a VM, and what is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labproof.clients.errors import Kind, TransportFailure
from labproof.facts.reading import State
from labproof.facts.vm import parse_hostpci
from labproof.probes import vm as probe
from labproof.probes import vm_parse as parse
from selftests.host.world import lab

UPID = "UPID:pve5:003CDE3D:025BF6DA:665F0761:qmstart:1105:root@pam:"
CONFIG = {
    "name": "moody-good", "machine": "q35", "bios": "ovmf", "memory": "243712", "hostpci0": "mapping=t4,pcie=1",
    "smbios1": "uuid=3F2504E0-4F89-11D3-9A0C-0305E82C3301", "cipassword": "**canary**", "sshkeys": "canary",
    "description": "canary", "digest": "0" * 40,
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "/version": {"version": "8.4.1", "release": "8.4", "repoid": "abc", "console": "html5"},
    "/nodes": [{"node": "pve5", "status": "online"}],
    "/nodes/pve5/status": {
        "kversion": "Linux 6.8.12-9-pve",
        "current-kernel": {"release": "6.8.12-9-pve"},
        "boot-info": {"mode": "efi", "secureboot": 0},
        "memory": {"total": 270000000000, "used": 1, "free": 2, "available": 3},
        "pveversion": "pve-manager/8.4.1/x",
    },
    "/nodes/pve5/hardware/pci": [
        {"id": "0000:3b:00.0", "class": "0x030200", "vendor": "0x10de", "device": "0x1eb8", "iommugroup": 45},
        {"id": "0000:af:1f.7", "class": "0x010802", "vendor": "0x144d", "device": "0xa80a", "iommugroup": -1},
    ],
    "/cluster/resources": [
        {"id": "qemu/1105", "type": "qemu", "vmid": 1105, "node": "pve5", "name": "moody-good", "status": "running"},
        {"type": "qemu", "vmid": 9000, "node": "pve5", "name": "moody-good", "status": "stopped", "template": 1},
        {"id": "lxc/201", "type": "lxc", "vmid": 201, "node": "pve5", "name": "dns", "status": "running"},
        {"id": "qemu/7", "type": "qemu", "vmid": 700, "node": "pve4", "name": "moody-good", "status": "running"},
    ],
    "/cluster/mapping/pci": [
        {"id": "t4", "map": ["node=pve5,path=0000:3b:00.0,id=10de:1eb8,iommugroup=45"], "checks": [], "digest": "x"}
    ],
    "/cluster/backup": [{"id": "backup-1", "enabled": 1, "all": 1, "exclude": "100,101"}],
    "/access/permissions": {"/": {"Sys.Audit": 1}, "/mapping/pci": {"Mapping.Audit": 1}},
    "/nodes/pve5/qemu/1105/config": CONFIG,
    "/nodes/pve5/qemu/9000/config": {"name": "template"},
    "/nodes/pve5/qemu/1105/pending": [
        {"key": "hostpci0", "value": "mapping=t4", "pending": "mapping=t4,pcie=1"},
        {"key": "cipassword", "value": "canary", "pending": "canary"},
        {"key": "vga", "value": "std", "delete": 1},
        {"key": "cores", "value": 50},
    ],
    "/nodes/pve5/qemu/1105/status/current": {
        "status": "running", "pid": 4242, "uptime": 9, "ha": {"managed": 0}, "running-machine": "pc-q35-9.2+pve1",
    },
    "/nodes/pve5/tasks": [
        {"upid": "UPID:old", "starttime": 5, "endtime": 6, "status": "unexpected status"},
        {"upid": UPID, "starttime": 1717503841, "endtime": 1717504000, "status": "OK", "user": "root@pam"},
    ],
    f"/nodes/pve5/tasks/{UPID}/status": {"status": "stopped", "exitstatus": "WARNINGS: 1"},
    f"/nodes/pve5/tasks/{UPID}/log": [
        {"n": 2, "t": "TASK WARNINGS: 1"},
        {"n": 1, "t": "WARN: failed to reset PCI device"},
    ],
}  # fmt: skip


class Session:
    """Answers from a table; counts what is asked."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.as_whom = "labproof@pve!suite"

    def get(self, path: str, **params: Any) -> Any:
        self.asked.append((path, params))
        answer = self.answers.get(path)
        if isinstance(answer, Callable):
            raise answer(path)
        if answer is None:
            raise TransportFailure(Kind.NOT_FOUND, "PVE", f"{path} does not exist", status=500)
        return answer


def forbidden(path: str) -> TransportFailure:
    return TransportFailure(Kind.FORBIDDEN, "PVE", f"403 Permission check failed ({path}, VM.Audit)", status=403)


def read(answers: dict[str, Any] | None = None, declared=None):
    declared = declared or lab()
    session = Session({**ANSWERS, **(answers or {})})
    api = probe._Api(session)
    version = api.read("/version", parse.version_of)
    return probe._read(api, declared, declared.hosts[0], session.as_whom, version), session


def test_whole_probe():
    pve, session = read()
    (vm,) = pve.vms
    assert (pve.version.value.version, pve.node_status.value.boot_mode) == ("8.4.1", "efi")
    assert pve.node_status.value.secure_boot is False
    assert [(d.address, d.ids, d.iommu_group) for d in pve.pci.value] == [
        ("0000:3b:00.0", "10de:1eb8", 45),
        ("0000:af:1f.7", "144d:a80a", None),
    ]
    assert vm.status.value.pid == 4242
    assert vm.config.value.hostpci[0].mapping == "t4"
    assert (vm.start_task.value.exit_status, vm.start_task.value.log[0]) == (
        "WARNINGS: 1",
        "WARN: failed to reset PCI device",
    )
    assert [(p.key, p.delete) for p in vm.pending.value] == [("hostpci0", False), ("cipassword", False), ("vga", True)]
    assert pve.backup_jobs.value[0].exclude == (100, 101)
    assert pve.mappings.value[0].entries[0]["path"] == "0000:3b:00.0"
    paths = [path for path, _ in session.asked]
    assert len(paths) == len({(p, str(q)) for p, q in session.asked}), "nothing is asked twice"
    assert ("/nodes/pve5/hardware/pci", {"pci-class-blacklist": ""}) in session.asked
    assert ("/nodes/pve5/tasks", {"vmid": 1105, "typefilter": "qmstart", "source": "all"}) in session.asked


def test_no_secret_is_kept():
    pve, _ = read()
    assert "canary" not in repr(pve)


def test_missing_rights_are_failed_readings():
    pve, _ = read({"/nodes/pve5/hardware/pci": forbidden, "/nodes/pve5/qemu/1105/config": forbidden, "/nodes": []})
    assert (pve.pci.state, pve.pci.kind) == (State.FAILED, "forbidden")
    assert pve.nodes.value == ()
    assert (pve.vms[0].config.state, pve.vms[0].config.kind) == (State.FAILED, "forbidden")
    assert pve.configs.state is State.FAILED, "one unread configuration and nobody can say who else has the card"
    assert "1105" in pve.configs.why


def test_vm_that_is_not_there():
    pve, _ = read({"/nodes/pve5/qemu/1105/config": None})
    assert pve.vms[0].config.state is State.ABSENT


def test_odd_shapes_are_failed_readings():
    pve, _ = read({"/nodes": {"not": "a list"}, "/nodes/pve5/hardware/pci": [{"no": "id"}]})
    assert pve.pci.kind == "protocol"


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ({"mapping": "t4"}, 1105),
        ({"smbios_uuid": "3f2504e0-4f89-11d3-9a0c-0305e82c3301"}, 1105),
        ({"name": "moody-*"}, 1105),
        ({"name": "moody-*", "mapping": "other"}, None),
        ({"name": "nobody"}, None),
    ],
)
def test_vm_joined_by_what_outlives_a_rebuild(match, found):
    pve, _ = read(declared=lab(vm={"id": None, "match": match}))
    reading = pve.vms[0].vmid
    assert reading.value == found
    assert reading.state is (State.VALUE if found else State.ABSENT)


def test_ambiguous_match_is_never_guessed():
    twins = [*ANSWERS["/cluster/resources"], {"type": "qemu", "vmid": 1300, "node": "pve5", "name": "moody-two"}]
    answers = {"/cluster/resources": twins, "/nodes/pve5/qemu/1300/config": {"name": "moody-two"}}
    pve, _ = read(answers, lab(vm={"id": None, "match": {"name": "moody*"}}))
    assert (pve.vms[0].vmid.state, pve.vms[0].vmid.kind) == (State.FAILED, "ambiguous")


@pytest.mark.parametrize(
    ("text", "devices", "mapping", "pcie"),
    [
        ("0000:3b:00.0,pcie=1", ("0000:3b:00.0",), None, True),
        ("host=3b:00", ("0000:3b:00",), None, False),
        ("host=af:1f.7;0000:af:1f.6,pcie=0", ("0000:af:1f.7", "0000:af:1f.6"), None, False),
        ("pcie=1,mapping=t4,driver=keep,unknown=x", (), "t4", True),
        ("10000:e1:00.0", ("10000:e1:00.0",), None, False),
    ],
)
def test_hostpci_is_parsed(text, devices, mapping, pcie):
    entry = parse_hostpci(0, text)
    assert (entry.devices, entry.mapping, entry.pcie) == (devices, mapping, pcie)


def test_whole_slot_covers_every_function():
    assert parse_hostpci(0, "2d:00").covers("0000:2d:00.3")
    assert not parse_hostpci(0, "2d:00.0").covers("0000:2d:00.3")


def test_unreachable_api_is_a_failed_reading(monkeypatch):
    import labproof.clients.pve as client

    def refuse(self, path, **params):
        raise TransportFailure(Kind.AUTH, "PVE API", "401 no such token")

    monkeypatch.setattr(client.PveSession, "get", refuse)
    declared = lab()
    reading = probe.probe_pve(declared, declared.hosts[0])
    assert (reading.state, reading.kind) == (State.FAILED, "auth")
    assert "401" in reading.why
    nothing = lab(host={"pve": None})
    assert probe.probe_pve(nothing, nothing.hosts[0]).kind == "not declared"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://pve5.lan:8006", "pve5.lan", 8006),
        ("pve5.lan", "pve5.lan", 8006),
        ("https://[2001:db8::5]:443", "2001:db8::5", 443),
    ],
)
def test_target_from_the_declared_url(url, host, port):
    declared = lab(host={"pve": {"url": url, "token_id": "labproof@pve!suite", "token_secret": "canary-secret"}})
    target = probe.pve_target(declared.hosts[0].pve, declared.timings)
    assert (target.host, target.port, target.user, target.token_name) == (host, port, "labproof@pve", "suite")
    assert "canary" not in repr(target)
