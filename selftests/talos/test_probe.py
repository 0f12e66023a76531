"""The Talos probe: single formats, and what becomes of failures, with a session that answers from a script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from labproof.clients import talos_messages as messages
from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.talos import DirEntry, KernelRecord, Resource
from labproof.facts.reading import State
from labproof.inventory.models import Lab
from labproof.probes import talos as probe
from labproof.probes import talos_parse as parse


def failure(kind: Kind, text: str = "it failed", answer: str | None = None) -> TransportFailure:
    return TransportFailure(kind, "Talos API 10.0.0.5:50000", text, answer=answer)


def resource(ident: str, spec: Any) -> Resource:
    return Resource("runtime", "x", ident, "1", "running", "", None, None, {}, {}, spec, "")


@dataclass
class Scripted:
    """A session: what it answers to each question, and which questions came."""

    answers: dict[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ("os:reader",)
    asked: list[str] = field(default_factory=list)

    def _answer(self, what: str, default: Any) -> Any:
        self.asked.append(what)
        answer = self.answers.get(what, default)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def version(self) -> messages.Version:
        info = messages.VersionInfo(tag="v1.11.6", sha="abc", arch="amd64")
        return self._answer("version", messages.Version(version=info, platform=messages.PlatformInfo("metal")))

    def hostname(self) -> str:
        return self._answer("hostname", "moody-good")

    def system_stat(self) -> messages.SystemStat:
        return self._answer("system_stat", messages.SystemStat(boot_time=1000))

    def service_list(self) -> tuple[messages.ServiceInfo, ...]:
        return self._answer("services", ())

    def dmesg(self) -> tuple[KernelRecord, ...]:
        return self._answer("dmesg", (KernelRecord("Linux version 6.12", "kern", "info", None, ""),))

    def list_dir(self, path: str, depth: int = 1) -> tuple[DirEntry, ...]:
        return self._answer(f"list {path}", ())

    def read_file(self, path: str) -> bytes:
        return self._answer(f"read {path}", b"")

    def cosi_list(self, namespace: str, kind: str) -> tuple[Resource, ...]:
        return self._answer(kind, ())

    def cosi_get(self, namespace: str, kind: str, name: str) -> Resource:
        return self._answer(kind, resource(name, {"stage": "running", "status": {"ready": True}, "current": "1"}))


Probe = Callable[..., Any]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, declare: Callable[..., Lab]) -> Callable[..., tuple[Any, Scripted]]:
    """`read(answers, right=...)`: the probe's reading and the session it used."""

    def run(answers: dict[str, Any] | None = None, right: str = "os:reader") -> tuple[Any, Scripted]:
        session = Scripted(answers or {})
        monkeypatch.setattr(probe, "TalosSession", lambda target: session)
        lab = declare(rights={"talos": right})
        return probe.probe_talos(lab, lab.node("moody-good")), session

    return run


def test_a_node_that_answers_under_another_name_is_not_judged(read: Probe) -> None:
    reading, session = read({"hostname": "cp-1"})
    assert reading.state is State.FAILED and reading.kind == "wrong node"
    assert session.asked == ["version", "hostname"]


def test_a_full_name_is_the_same_node(read: Probe) -> None:
    assert read({"hostname": "moody-good.lan"})[0].state is State.VALUE


@pytest.mark.parametrize("text", ["no request forwarding", "not authorized"])
def test_a_refusal_is_named(read: Probe, text: str) -> None:
    reading, _ = read({"version": failure(Kind.FORBIDDEN, f"Version: {text}", text)})
    assert reading.kind == text


def test_an_expired_certificate_is_named(monkeypatch: pytest.MonkeyPatch, declare: Callable[..., Lab]) -> None:
    def refuse(target: object) -> None:
        raise failure(Kind.AUTH, "its client certificate expired on 2026-01-01 00:00 UTC")

    monkeypatch.setattr(probe, "TalosSession", refuse)
    assert probe.probe_talos(declare(), declare().node("moody-good")).kind == "expired"


def test_after_a_timeout_nothing_more_is_asked(read: Probe) -> None:
    reading, session = read({"ExtensionStatuses.runtime.talos.dev": failure(Kind.TIMEOUT, "no answer within 20 s")})
    facts = reading.value
    assert facts.extensions.state is facts.schematic.state is State.FAILED
    assert facts.pci.state is State.FAILED and "not asked any more" in facts.pci.why
    assert len(session.asked) <= 4


def test_one_forbidden_answer_costs_one_reading(read: Probe) -> None:
    facts = read({"dmesg": failure(Kind.FORBIDDEN, "no right")})[0].value
    assert facts.kernel_log.kind == "forbidden" and facts.stage.state is State.VALUE


def test_what_is_not_there_is_absent(read: Probe) -> None:
    answers = {
        "list /run/cdi": failure(Kind.NOT_FOUND),
        "KernelParamStatuses.runtime.talos.dev": failure(Kind.NOT_FOUND),
    }
    facts = read(answers)[0].value
    assert facts.cdi_specs.state is facts.bpf_jit_harden.state is State.ABSENT


@pytest.mark.parametrize(
    ("missing", "source"),
    [
        ((), "KernelModuleStatuses"),
        (("KernelModuleStatuses.runtime.talos.dev",), "LoadedKernelModules"),
        (("KernelModuleStatuses.runtime.talos.dev", "LoadedKernelModules.runtime.talos.dev"), "/sys/module"),
    ],
    ids=["1.14", "1.11", "1.10"],
)
def test_modules_come_from_what_the_release_offers(read: Probe, missing: tuple[str, ...], source: str) -> None:
    answers: dict[str, Any] = {kind: failure(Kind.UNSUPPORTED) for kind in missing}
    answers["list /sys/module"] = (DirEntry("nvidia", 1 << 31, 0, True, "", 0, 0),)
    for kind in ("KernelModuleStatuses.runtime.talos.dev", "LoadedKernelModules.runtime.talos.dev"):
        answers.setdefault(kind, (resource("nvidia", {"state": "Live"}),))
    modules = read(answers)[0].value.modules
    assert source in modules.source and [m.name for m in modules.value] == ["nvidia"]
    assert modules.value[0].state in ("live", "")


def test_files_and_configuration_are_asked_only_with_the_right(read: Probe) -> None:
    facts, session = read()
    assert facts.value.install_image.state is State.NOT_ASKED
    assert not [what for what in session.asked if what.startswith("read") or "MachineConfig" in what]
    config = {"machine": {"install": {"image": "factory.talos.dev/installer/x:v1.11.6"}}}
    answers = {"MachineConfigs.config.talos.dev": resource("v1alpha1", [config, {"kind": "KernelModuleConfig"}])}
    facts, session = read(answers, right="os:admin")
    assert facts.value.install_image.value == "factory.talos.dev/installer/x:v1.11.6"
    assert "read /etc/cri/conf.d/20-customization.part" in session.asked


def test_extensions_are_told_apart_by_name_not_by_id() -> None:
    specs = [
        {"metadata": {"name": "schematic", "version": "ab", "extraInfo": "customization: {}\n"}},
        {"metadata": {"name": "qemu-guest-agent", "version": "10.0.2"}},
        {"metadata": {"name": "modules.dep", "version": "6.12.62-talos"}},
    ]
    found, schematic = parse.extensions(specs)
    assert [e.name for e in found] == ["qemu-guest-agent"]
    assert schematic is not None and schematic.id == "ab" and schematic.text == "customization: {}\n"


@pytest.mark.parametrize("ids", [("0x10de", "0x1eb8", "0x03", "0x02"), (0x10DE, 0x1EB8, 3, 2)], ids=["text", "number"])
def test_pci_ids_as_text_or_as_numbers(ids: tuple[Any, ...]) -> None:
    spec = dict(zip(("vendor_id", "product_id", "class_id", "subclass_id"), ids, strict=True))
    device = parse.pci_device("0000:0f:00.0", spec)
    assert (device.vendor_device, device.class_code, device.driver) == ("10de:1eb8", "0302", "")


def test_driver_links_keep_hex_addresses() -> None:
    names = ["nvidia", "nvidia/0000:0f:00.0", "nvidia/bind", "pcieport/0000:00:1c.0", "nvidia/module", "x/0000:0f:00.9"]
    assert parse.driver_links(names) == (("0000:00:1c.0", "pcieport"), ("0000:0f:00.0", "nvidia"))


def test_kernel_log_is_normalised() -> None:
    texts = [
        "Linux version 6.12.62-talos",
        "eth0: link up",
        "NVRM: installed in this system is not supported by open\\x0aNVRM: nvidia.ko because\n SUBSYSTEM=pci",
        '[talos] controller failed {"error": "error loading module \\x5c"nvidia\\x5c": no such device"}',
    ]
    log = parse.kernel_log(texts)
    assert log.from_boot and log.records == 4
    assert log.lines[0].endswith("not supported by open nvidia.ko because")
    assert 'error loading module "nvidia": no such device' in log.lines[1]
    assert not parse.kernel_log(texts[1:]).from_boot


def test_a_containerd_part_is_kept_only_in_outline() -> None:
    part = """
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "nvidia"
[plugins."io.containerd.grpc.v1.cri".registry.configs."r.lan".auth]
  password = "s3cret"
"""
    tables = parse.cri_tables(part)
    assert [(t.name, t.sets_containerd, t.default_runtime) for t in tables] == [
        ("io.containerd.cri.v1.runtime", True, "nvidia"),
        ("io.containerd.grpc.v1.cri", False, ""),
    ]
    assert "s3cret" not in repr(tables)
    assert parse.command_line("a=b talos.config=https://u:pw@x/y c") == "a=b talos.config=... c"


def test_an_answer_of_another_shape_costs_one_reading(read: Probe) -> None:
    answers = {"PCIDevices.hardware.talos.dev": (resource("0000:01:00.0", None),), "dmesg": (None,)}
    facts = read(answers)[0].value
    assert facts.pci.kind == facts.kernel_log.kind == "protocol"
    assert facts.stage.state is State.VALUE


def test_a_talkative_driver_keeps_first_and_last_lines() -> None:
    log = parse.kernel_log([f"NVRM: line {number}" for number in range(5000)])
    assert len(log.lines) == parse.KEPT_LINES
    assert log.lines[0].endswith(" 0") and log.lines[-1].endswith(" 4999")


def test_a_services_newest_event_counts() -> None:
    events = tuple(
        messages.ServiceEvent(msg=f"event {at}", state="Waiting", ts=messages.Timestamp(seconds=at)) for at in (5, 9, 7)
    )
    info = messages.ServiceInfo(
        id="ext-x", state="Waiting", events=messages.ServiceEvents(events), health=messages.ServiceHealth(unknown=True)
    )
    service = parse.service(info)
    assert service.message == "event 9" and service.healthy is None
