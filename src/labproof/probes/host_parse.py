"""Text of the host probe -> HostFacts. Pure, so recordings of real hosts are test input as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable

from labproof.facts.host import (
    HostFacts,
    HugePages,
    Initramfs,
    IommuGroup,
    KernelLog,
    LxcGpuUse,
    MemoryRange,
    Module,
    PciDevice,
    QemuProcess,
    Reservation,
    TextFile,
)
from labproof.facts.reading import Reading, State, absent, failed, unsupported, value
from labproof.probes.host_pci import Links, devices_of, links_of, mounted_blocks
from labproof.probes.host_sections import Output, Section, sections_of

_RANGE = re.compile(r"^\s*([0-9a-f]+)-([0-9a-f]+) : (.*)$")
_STATUS = "labproof_status "
_TIME_STAMP = re.compile(r"^\[ *\d+\.\d+\] ")


def parse_host(text: str, name: str = "", at: float = 0.0) -> HostFacts:
    """Parse the probe's output.

    Args:
        text: standard output of `host_probe.sh`.
        name: the host's declared name.
        at: Unix seconds at which it was read, on the probing machine.
    """
    out = Output(sections_of(text), at)
    quoted = _quoted_tuple
    return HostFacts(
        name=name,
        hostname=out.word("host", "hostname", "cat /proc/sys/kernel/hostname"),
        kernel=out.word("host", "kernel", "uname -r"),
        boot_id=out.word("host", "boot_id", "cat /proc/sys/kernel/random/boot_id"),
        boot_time=out.reading("host", _boot_time, source="/proc/stat btime"),
        clock=out.reading("host", lambda s: _float(s.words().get("clock")), source="date +%s"),
        uid=out.reading("host", lambda s: _int(s.words().get("uid")), source="id -u"),
        distribution=out.reading("host", lambda s: (s.words().get("distribution") or "").strip('"') or None),
        cpu_vendor=out.word("host", "cpu_vendor", "grep vendor_id /proc/cpuinfo"),
        pve_mounted=out.reading("pve", lambda s: bool({"mounted", "local"} & s.words().keys()), source="/proc/mounts"),
        pve_version=out.word("pve", "version", "dpkg-query -W pve-manager", "pve-manager is not installed"),
        cmdline=out.reading("cmdline", lambda s: tuple(map(_harmless, " ".join(s.quoted).split())) or None),
        boot_evidence=out.reading("boot", _boot_evidence),
        boot_files=out.reading("boot_files", _files),
        secure_boot=out.reading("boot", _secure_boot, "no such EFI variable", "efivars/SecureBoot-*"),
        lockdown=out.word("boot", "lockdown", "cat /sys/kernel/security/lockdown"),
        kernel_config=out.reading("kernel_config", _kernel_config),
        installed_kernels=out.reading("kernels", quoted, source="ls /boot/vmlinuz-*"),
        firmware_tables=out.reading("firmware_tables", quoted),
        iommus=out.reading("iommus", quoted),
        iommu_groups=out.reading("iommu_groups", _groups),
        remapped_interrupts=out.reading("interrupts", lambda s: _int(s.words().get("remapped"))),
        pci=out.reading("pci", lambda s: _pci(s, out)),
        pci_drivers=out.reading("pci_drivers", quoted),
        modules=out.reading("modules", _modules, "this kernel has no loadable modules"),
        module_parameters=out.reading("parameters", lambda s: s.words()),
        kernel_modules_dir=out.reading("available", lambda s: s.words().get("directory") == "yes"),
        available_modules=out.reading("available", _available, source="modules.dep, modules.builtin"),
        modprobe_config=_modprobe(out),
        modprobe_files=out.reading("modprobe_files", _files),
        modules_load_files=out.reading("modules_load_files", _files),
        driverctl_files=out.reading("driverctl_files", _files),
        initramfs=_initramfs(out),
        kernel_log=_kernel_log(out),
        framebuffers=_framebuffers(out),
        vfio_nodes=out.reading("vfio_nodes", quoted),
        qemu=out.reading("qemu", _qemu),
        reservations=out.reading("reservations", _reservations),
        lxc_gpu_use=out.reading("lxc", _lxc),
        gpu_file_holders=_gpu_files(out),
        hugepages=out.reading("hugepages", _hugepages),
    )


_SECRET = re.compile(r"(?i)([\w.-]*(?:passw|secret|token|credential)[\w.-]*)=.*")


def _harmless(token: str) -> str:
    """A kernel argument without what may be a secret: /proc/cmdline is copied into facts and reports."""
    return _SECRET.sub(r"\1=***", token)


def _gpu_files(out: Output) -> Reading[tuple[str, ...]]:
    """Who has /dev/nvidia* open; only root sees the open files of others, so nothing is known without."""
    reading: Reading[tuple[str, ...]] = out.reading("gpu_files", lambda section: tuple(section.lines))
    host = out.sections.get("host")
    if reading.state is State.VALUE and not reading.value and host is not None and host.words().get("uid") != "0":
        return failed(reading.source, "only root sees the open files of others", "forbidden", out.at)
    return reading


def _quoted_tuple(section: Section) -> tuple[str, ...]:
    return section.quoted


def _int(text: str | None) -> int | None:
    return int(text) if text else None


def _float(text: str | None) -> float | None:
    return float(text) if text else None


def _boot_time(section: Section) -> float | None:
    words = section.words()
    if "boot_time" in words:
        return float(words["boot_time"])
    if "uptime" in words and "clock" in words:
        return float(words["clock"]) - float(words["uptime"].split()[0])
    return None


def _boot_evidence(section: Section) -> dict[str, str]:
    found: dict[str, str] = {}
    entries: dict[str, str] = {}
    for key, rest in section.pairs():
        if key == "efibootmgr":
            head, _, tail = rest.partition(" ")
            entries[head.rstrip(":*")] = tail
        else:
            found[key] = rest
    current = entries.get("BootCurrent")
    if current:
        found["boot_entry"] = entries.get(f"Boot{current}", "")
    return found


def _secure_boot(section: Section) -> bool | None:
    text = section.words().get("secure_boot", "").strip()
    return text == "1" if text else None


def _files(section: Section) -> tuple[TextFile, ...]:
    bodies: dict[str, list[str]] = {}
    times: dict[str, float] = {}
    current: list[str] = []
    for line in section.lines:
        if line.startswith("|"):
            current.append(line[1:])
        elif line.startswith("file "):
            current = bodies.setdefault(line[5:], [])
        elif line.startswith("mtime "):
            _, seconds, path = line.split(" ", 2)
            times[path] = float(seconds)
        elif line.startswith("unreadable "):
            raise ValueError(f"{line[11:]} may not be read by this account")
    return tuple(TextFile(path, tuple(lines), times.get(path)) for path, lines in bodies.items())


def _kernel_config(section: Section) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in section.quoted:
        if line.startswith("# CONFIG_") and line.endswith(" is not set"):
            found[line[2:].split()[0]] = "n"
        elif line.startswith("CONFIG_") and "=" in line:
            key, _, setting = line.partition("=")
            found[key] = setting
    return found


def _groups(section: Section) -> tuple[IommuGroup, ...]:
    found: list[IommuGroup] = []
    for key, rest in section.pairs():
        if key == "group":
            found.append(IommuGroup(int(rest), ()))
            continue
        last = found[-1]
        if key == "type":
            found[-1] = IommuGroup(last.number, last.devices, rest, last.reserved)
        elif key == "device":
            found[-1] = IommuGroup(last.number, (*last.devices, rest), last.type, last.reserved)
        elif key == "reserved":
            start, end, kind = rest.split()
            found[-1] = IommuGroup(last.number, last.devices, last.type, (*last.reserved, (start, end, kind)))
    return tuple(sorted(found, key=lambda group: group.number))


def _pci(section: Section, out: Output) -> tuple[PciDevice, ...] | None:
    links_section = out.sections.get("links")
    if links_section is None or links_section.status != 0:
        raise ValueError("the links of /sys/bus/pci/devices could not be listed (no ls?)")
    links: Links = links_of(links_section)
    net = out.sections.get("net")
    mounts = out.sections.get("mounts")
    up = [name for name, state in net.pairs() if state == "up"] if net else []
    return devices_of(section, links, up, mounted_blocks(mounts) if mounts else ())


def _modules(section: Section) -> tuple[Module, ...]:
    found = []
    for line in section.lines:
        name, count, users = (*line.split(" ", 2), "")[:3]
        names = tuple(user for user in users.split(",") if user and user != "-")
        found.append(Module(name, int(count) if count.lstrip("-").isdigit() else 0, names))
    return tuple(found)


def _available(section: Section) -> tuple[str, ...]:
    names = {line.rsplit("/", 1)[-1].removesuffix(".ko").replace("-", "_") for line in section.quoted}
    return tuple(sorted(names))


def _split_status(lines: Iterable[str], prefix: str) -> tuple[tuple[str, ...], int | None]:
    """The lines without the command's own status line, and that status."""
    body: list[str] = []
    status: int | None = None
    for line in lines:
        if line.startswith(prefix):
            status = int(line[len(prefix) :])
        else:
            body.append(line)
    return tuple(body), status


def _modprobe(out: Output) -> Reading[tuple[str, ...]]:
    raw = out.reading("modprobe", _quoted_tuple)
    if raw.state is not State.VALUE or raw.value is None:
        return raw
    lines, status = _split_status(raw.value, "status ")
    return value(lines, raw.source, raw.at) if status == 0 else failed(raw.source, f"exit status {status}", at=raw.at)


def _initramfs(out: Output) -> Reading[Initramfs]:
    section = out.sections.get("initramfs")
    if section is None or section.status is None:
        return failed("lsinitramfs", "the probe ended before it came to this", "truncated", out.at)
    path = section.words().get("path")
    if path is None:
        where = section.source.removeprefix("lsinitramfs ")
        return absent(where, f"{where} is not there", out.at)
    stamp = next((rest.split()[0] for key, rest in section.pairs() if key == "mtime"), None)
    lines, status = _split_status(section.quoted, "status ")
    entries = lines if section.status == 0 and status == 0 else None
    return value(Initramfs(path, _float(stamp), entries), section.source, out.at)


def _kernel_log(out: Output) -> Reading[KernelLog]:
    """The journal of this boot; the ring buffer where there is no journal."""
    tried: list[str] = []
    for name in ("journal", "dmesg"):
        section = out.sections.get(name)
        if section is None or section.status is None:
            tried.append(f"{name}: not reached")
            continue
        if section.status == 127:
            tried.append(f"{section.source.split()[0]} is not installed")
            continue
        lines, status = _split_status(section.quoted, _STATUS)
        if status != 0 or not lines:
            tried.append(f"`{section.source}` gave nothing" + (f" (exit status {status})" if status else ""))
            continue
        text = tuple(_TIME_STAMP.sub("", line) for line in lines)
        return value(KernelLog(text, any("Linux version" in line for line in text)), section.source, out.at)
    if all(line.endswith("is not installed") for line in tried):
        return unsupported("journalctl -k -b", "; ".join(tried))
    return failed("journalctl -k -b", "; ".join(tried), "unreadable", out.at)


def _framebuffers(out: Output) -> Reading[tuple[MemoryRange, ...]]:
    raw = out.reading("iomem", _quoted_tuple)
    if raw.state is not State.VALUE or raw.value is None:
        return Reading(raw.state, None, raw.source, raw.why, raw.at, raw.kind)
    found = [match for line in raw.value if (match := _RANGE.match(line))]
    if found and all(int(match[1], 16) == 0 == int(match[2], 16) for match in found):
        return failed(raw.source, "its addresses are zero for this account: root is needed", "forbidden", raw.at)
    ranges = (MemoryRange(int(m[1], 16), int(m[2], 16), m[3]) for m in found)
    named = re.compile(r"BOOTFB|simple-?framebuffer|simplefb|efifb|vesafb", re.IGNORECASE)
    return value(tuple(r for r in ranges if named.search(r.name)), raw.source, raw.at)


def _qemu(section: Section) -> tuple[QemuProcess, ...]:
    records: list[dict[str, list[str]]] = []
    for key, rest in section.pairs():
        if key == "pid":
            records.append({"pid": [rest]})
        elif records:
            records[-1].setdefault(key, []).append(rest)
    found = []
    for record in records:
        vmid = (record.get("vmid") or record.get("id") or [""])[0]
        name = (record.get("name") or [""])[0].split(",")[0]
        found.append(
            QemuProcess(
                int(record["pid"][0]),
                int(vmid) if vmid.isdigit() else None,
                name,
                tuple(record.get("arg", ())),
                tuple(sorted(record.get("fd", ()))),
            )
        )
    return tuple(found)


def _reservations(section: Section) -> tuple[Reservation, ...]:
    """Lines `<address> <vmid> pid:<pid>` or `... time:<epoch>` (qemu-server PCI.pm)."""
    found = []
    for line in section.quoted:
        words = line.split()
        if len(words) < 3 or not words[1].isdigit():
            continue
        kind, _, number = words[2].partition(":")
        pid = int(number) if kind == "pid" else None
        until = float(number) if kind == "time" else None
        found.append(Reservation(words[0], int(words[1]), pid, until))
    return tuple(found)


def _lxc(section: Section) -> tuple[LxcGpuUse, ...]:
    found = []
    for ctid, rest in section.pairs():
        running, _, line = rest.partition(" ")
        if ctid.isdigit():
            found.append(LxcGpuUse(int(ctid), line, running == "yes"))
    return tuple(found)


def _hugepages(section: Section) -> tuple[HugePages, ...]:
    found = []
    for size, rest in section.pairs():
        total, free = rest.split()
        found.append(HugePages(int(size.removesuffix("kB")), int(total), int(free)))
    return tuple(found)
