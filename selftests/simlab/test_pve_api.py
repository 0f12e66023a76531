"""The simulated PVE API against proxmoxer: rights, envelopes, texts, tasks, pending changes."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from proxmoxer import ProxmoxAPI
from proxmoxer.core import ResourceException

from labproof.simlab.pve.rights import Identity, privileges
from labproof.simlab.pve.start import start_timeout_s
from labproof.simlab.server import SimLab

STALE = "PCI device mapping invalid (hardware probably changed)"
Connect = Callable[..., Any]


@pytest.fixture(scope="module")
def lab() -> Iterator[SimLab]:
    """One lab for the module."""
    with SimLab("t4-jellyfin") as started:
        yield started


@pytest.fixture
def connect(lab: SimLab) -> Connect:
    """Connect to pve5 of a world with these faults, by the shipped token or as root@pam."""

    def open_api(*faults: str, user: str = "token") -> Any:
        pve = lab.reset(list(faults))["patch"]["hosts"]["pve5"]["pve"]
        return _session(lab, pve, user)

    return open_api


def _session(lab: SimLab, pve: dict[str, str], user: str) -> Any:
    host, port = pve["url"].removeprefix("https://").split(":")
    common = {"port": int(port), "verify_ssl": pve["ca"]}
    if user == "token":
        name, _, token = pve["token_id"].partition("!")
        secret = Path(pve["token_secret"].removeprefix("file:")).read_text()
        return ProxmoxAPI(host, user=name, token_name=token, token_value=secret, **common)
    return ProxmoxAPI(host, user=user, password=lab._pve["pve5"].password(user), **common)


def refused(call: Callable[[], object]) -> ResourceException:
    """The error a call ends with."""
    with pytest.raises(ResourceException) as caught:
        call()
    return caught.value


def grant(lab: SimLab, path: str, who: str, *wanted: str) -> None:
    """Give more rights in the running world."""
    pve = lab.world.hosts["pve5"].inputs["pve"]
    pve["roles"]["Test"] = list(wanted)
    pve["acl"].setdefault(path, {})[who] = "Test"


def test_it_says_that_it_is_simulated(connect: Connect) -> None:
    """repoid is the in-band mark."""
    assert connect().version.get() == {"version": "8.4.1", "release": "8.4", "repoid": "sim"}


def test_the_shipped_token_reads_everything_the_suite_reads(connect: Connect) -> None:
    """Least privilege is enough for every read."""
    api = connect()
    node = api.nodes("pve5")
    assert [n["node"] for n in api.nodes.get()] == ["pve5"]
    assert node.status.get()["boot-info"] == {"mode": "efi", "secureboot": 0}
    card = next(d for d in node.hardware.pci.get() if d["id"] == "0000:3b:00.0")
    assert (card["vendor"], card["device"], card["class"], card["iommugroup"]) == ("0x10de", "0x1eb8", "0x030200", 11)
    assert "driver" not in card
    config = node.qemu(1105).config.get()
    assert (config["memory"], config["hostpci0"], len(config["digest"])) == ("243712", "mapping=t4,pcie=1", 40)
    assert node.qemu(1105).status.current.get()["running-machine"] == "pc-q35-9.2+pve1"
    assert api.cluster.mapping.pci.get(**{"check-node": "pve5"})[0]["checks"] == []
    task = node.tasks.get(vmid=1105, typefilter="qmstart")[0]
    assert node.tasks(task["upid"]).status.get()["exitstatus"] == "OK"
    assert node.tasks(task["upid"]).log.get()[-1]["t"] == "TASK OK"
    assert {r["vmid"] for r in api.cluster.resources.get(type="vm")} == {1101, 1105}
    assert api.access.permissions.get(path="/vms/1105")["/vms/1105"]["VM.Audit"] == 1


def test_bridges_are_hidden_until_asked_for(connect: Connect) -> None:
    """facts proxmox 2.1: the default class blacklist is 05;06;0b."""
    pci = connect().nodes("pve5").hardware.pci
    assert not any(d["class"].startswith(("0x05", "0x06")) for d in pci.get())
    assert any(d["class"] == "0x060400" for d in pci.get(**{"pci-class-blacklist": ""}))


def test_without_iommu_every_group_is_minus_one(connect: Connect) -> None:
    """facts proxmox 2.2."""
    pci = connect("vtd-off").nodes("pve5").hardware.pci.get()
    assert {d["iommugroup"] for d in pci} == {-1}


def test_missing_rights_are_empty_lists_or_403(lab: SimLab, connect: Connect) -> None:
    """Lists are filtered, single objects refused with PVE's text."""
    api = connect()
    lab.world.hosts["pve5"].inputs["pve"]["acl"] = {}
    assert api.nodes.get() == []
    assert api.cluster.resources.get(type="vm") == []
    assert api.cluster.mapping.pci.get() == []
    error = refused(api.nodes("pve5").qemu(1105).config.get)
    assert (error.status_code, "Permission check failed (/vms/1105, VM.Audit)" in str(error)) == (403, True)


def test_the_shipped_token_writes_nothing(connect: Connect) -> None:
    """No power, no configuration, no mapping."""
    api = connect()
    vm = api.nodes("pve5").qemu(1105)
    for call in (
        vm.status.stop.post, lambda: vm.config.put(cores=4), lambda: api.cluster.mapping.pci.post(id="x",
        map="node=pve5"),
        lambda: vm.config.put(hostpci0="mapping=t4"),
    ):  # fmt: skip
        assert refused(call).status_code == 403


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({}, "No ticket"),
        (
            {"Authorization": "PVEAPIToken=labproof@pve!suite=00000000-0000-0000-0000-000000000000"},
            "invalid token value!",
        ),
        ({"Authorization": "PVEAPIToken=labproof@pve!other=x"}, "no such token 'other' for user 'labproof@pve'"),
        ({"Cookie": "PVEAuthCookie=PVE:root@pam:00000000::x"}, "permission denied - invalid PVE ticket"),
    ],
)
def test_bad_credentials_are_401(lab: SimLab, connect: Connect, header: dict[str, str], text: str) -> None:
    """With the reason in the status line, and no secret in it."""
    connect()
    pve = lab.overlay["patch"]["hosts"]["pve5"]["pve"]
    answer = requests.get(f"{pve['url']}/api2/json/nodes", headers=header, verify=pve["ca"], timeout=5)
    assert (answer.status_code, answer.reason) == (401, text)


def test_writes_by_ticket_need_the_csrf_token(lab: SimLab, connect: Connect) -> None:
    """facts proxmox 2.5."""
    connect()
    pve = lab.overlay["patch"]["hosts"]["pve5"]["pve"]
    ticket = requests.post(
        f"{pve['url']}/api2/json/access/ticket", verify=pve["ca"], timeout=5,
        data={"username": "root@pam", "password": lab._pve["pve5"].password("root@pam")},
    ).json()["data"]  # fmt: skip
    cookies = {"PVEAuthCookie": ticket["ticket"]}
    where = f"{pve['url']}/api2/json/nodes/pve5/qemu/1105/status/stop"
    without = requests.post(where, cookies=cookies, verify=pve["ca"], timeout=5)
    assert (without.status_code, without.reason) == (401, "Permission denied - invalid csrf token")
    with_token = {"CSRFPreventionToken": ticket["CSRFPreventionToken"]}
    done = requests.post(where, cookies=cookies, headers=with_token, verify=pve["ca"], timeout=5)
    assert done.json()["data"].split(":")[5:8] == ["qmstop", "1105", "root@pam"]


def test_the_ca_has_no_key_usage(lab: SimLab) -> None:
    """As PVE makes it: Python 3.13 refuses it unless VERIFY_X509_STRICT is cleared."""
    from cryptography import x509

    ca = Path(lab.overlay["patch"]["hosts"]["pve5"]["pve"]["ca"]).read_bytes()
    with pytest.raises(x509.ExtensionNotFound):
        x509.load_pem_x509_certificate(ca).extensions.get_extension_for_class(x509.KeyUsage)
    host, port = lab.overlay["patch"]["hosts"]["pve5"]["pve"]["url"].removeprefix("https://").split(":")
    context = ssl.create_default_context(cadata=ca.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    import socket

    with socket.create_connection((host, int(port))) as plain, pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(plain, server_hostname=host)


def test_a_token_never_sets_a_raw_device(lab: SimLab, connect: Connect) -> None:
    """facts proxmox 2.5: not even with every privilege; a mapping it may use is fine."""
    api = connect()
    grant(lab, "/", "labproof@pve", "VM.Config.HWType", "VM.Audit", "Mapping.Use")
    grant(lab, "/", "labproof@pve!suite", "VM.Config.HWType", "VM.Audit", "Mapping.Use")
    vm = api.nodes("pve5").qemu(1105)
    error = refused(lambda: vm.config.put(hostpci0="0000:3b:00.0,pcie=1"))
    assert error.status_code == 500
    assert "only root can set 'hostpci0' config for non-mapped devices" in str(error)
    vm.config.put(hostpci0="mapping=t4,pcie=1,rombar=0")
    assert {
        "key": "hostpci0",
        "value": "mapping=t4,pcie=1",
        "pending": "mapping=t4,pcie=1,rombar=0",
    } in vm.pending.get()


def test_a_running_vm_keeps_its_devices_until_a_restart(connect: Connect) -> None:
    """Pending is applied by stop and start, not before (facts proxmox 3.1)."""
    vm = connect(user="root@pam").nodes("pve5").qemu(1105)
    vm.config.put(delete="hostpci0", digest=vm.config.get()["digest"])
    assert "hostpci0" not in vm.config.get()
    assert vm.config.get(current=1)["hostpci0"] == "mapping=t4,pcie=1"
    assert {"key": "hostpci0", "value": "mapping=t4,pcie=1", "delete": 1} in vm.pending.get()
    vm.config.put(revert="hostpci0")
    assert not any("delete" in row for row in vm.pending.get())
    assert "checksum mismatch (file change by other user?)" in str(
        refused(lambda: vm.config.put(cores=4, digest="0" * 40))
    )


def test_starting_a_running_vm_fails_in_its_task(connect: Connect) -> None:
    """The request is accepted, the task ends with the text."""
    node = connect(user="root@pam").nodes("pve5")
    upid = node.qemu(1105).status.start.post()
    assert node.tasks(upid).status.get()["exitstatus"] == "VM 1105 already running"


@pytest.mark.parametrize(
    ("fault", "status", "log"),
    [
        ("mapping-stale", f"{STALE}: 'iommugroup' does not match for 't4' (11 != 45)", ""),
        ("mapping-without-subsystem",
         f"{STALE}: missing expected property 'subsystem-id' for device '0000:3b:00.0'", ""),
        ("mapping-for-other-node", "PCI device mapping not found for 't4'", ""),
        ("card-gone", f"{STALE}: pci device '0000:3b:00.0' not found",
        ""),
        ("vtd-off", f"{STALE}: 'iommugroup' does not match for 't4' (-1 != 11)", ""),
        ("vfio-module-missing", "Cannot find vfio-pci module!", ""),
        ("pcie-without-q35", "q35 machine model is not enabled at /usr/share/perl5/PVE/QemuServer/PCI.pm line 519.",
        ""),
        ("legacy-igd", "legacy IGD assignment requires VGA mode to be 'none'", ""),
        ("gpu-held-by-other-vm", "PCI device '0000:3b:00.0' already in use by VMID '1106'", ""),
        ("nvidia-held-on-host", "can't unbind/bind PCI group to VFIO '0000:3b:00.0'", ""),
        ("no-interrupt-remapping", "start failed: QEMU exited with code 1",
        "failed to set iommu for container: Operation not permitted"),
        ("rmrr-on-the-card", "start failed: QEMU exited with code 1", "failed to setup container for group 11"),
        ("card-dead", "start failed: QEMU exited with code 1", "stuck in D3"),
        ("host-memory-short", "start failed: QEMU exited with code 1", "-12 (Cannot allocate memory)"),
        ("start-timeout", "start failed: command '/usr/bin/kvm -id 1105 ...' failed: got timeout", ""),
        ("hugepages-without-numa", "numa needs to be enabled to use hugepages", ""),
        ("reset-not-supported", "WARNINGS: 1", "failed to reset PCI device '0000:3b:00.0', but trying to continue"),
    ],
)  # fmt: skip
def test_starts_fail_with_pves_own_text(connect: Connect, fault: str, status: str, log: str) -> None:
    """Only inputs were touched; the task of the boot-time start says what PVE says (facts proxmox 2.6)."""
    node = connect(fault).nodes("pve5")
    task = node.tasks.get(vmid=1105, typefilter="qmstart")[0]
    assert task["status"] == status
    assert log in "\n".join(line["t"] for line in node.tasks(task["upid"]).log.get())
    assert (node.qemu(1105).status.current.get()["status"] == "running") is status.startswith(("OK", "WARNINGS"))


def test_a_raw_device_without_iommu_gets_the_other_text(lab: SimLab, connect: Connect) -> None:
    """With a mapping PVE stops earlier, at the group number."""
    api = connect("vtd-off", user="root@pam")
    node = api.nodes("pve5")
    node.qemu(1105).config.put(hostpci0="0000:3b:00.0,pcie=1")
    upid = node.qemu(1105).status.start.post()
    assert node.tasks(upid).status.get()["exitstatus"] == "cannot prepare PCI pass-through, IOMMU not present"


def test_vm_start_takes_the_whole_group_from_the_host(connect: Connect, lab: SimLab) -> None:
    """facts proxmox 1.4: a NIC in the group is torn away without an error."""
    api = connect("group-shared-with-nic", user="root@pam")
    assert lab.world.hosts["pve5"].drivers.bound["0000:3b:01.0"] == "igb"
    api.nodes("pve5").qemu(1105).config.put(hostpci0="0000:3b:00.0,pcie=1")
    api.nodes("pve5").qemu(1105).status.start.post()
    assert lab.world.hosts["pve5"].drivers.bound["0000:3b:01.0"] == "vfio-pci"


def test_start_timeout_is_pves_formula() -> None:
    """facts proxmox 3.2: 238 * 4 + 5."""
    config = {"memory": "243712", "hostpci0": "mapping=t4", "net0": "virtio=x"}
    assert start_timeout_s(config) == 957
    assert start_timeout_s({"memory": "2048"}) == 30
    assert start_timeout_s({"memory": "2048", "hugepages": "1024"}) == 150


@pytest.mark.parametrize(
    ("who", "path", "held"),
    [
        (Identity("root@pam"), "/vms/1", True),
        (Identity("a@pve"), "/vms/1", True),
        (Identity("a@pve"), "/vms/2", False),  # a deeper entry replaces the higher one
        (Identity("a@pve!t", privileges_separated=True), "/vms/1", False),  # the token has no entry of its own
        (Identity("a@pve!t", privileges_separated=False), "/vms/1", True),
        (Identity("b@pve!t", privileges_separated=True), "/vms/1", False),  # its user has none
        (Identity("root@pam!t", privileges_separated=True), "/vms/1", False),
        (Identity("root@pam!t", privileges_separated=False), "/vms/1", True),
    ],
)
def test_privileges(who: Identity, path: str, held: bool) -> None:
    """Separated tokens have what both they and their user have."""
    acl = {"/": {"a@pve": "PVEAuditor", "b@pve!t": "PVEAuditor"}, "/vms/2": {"a@pve": "NoAccess"}}
    assert ("VM.Audit" in privileges({"acl": acl}, who, path)) is held
