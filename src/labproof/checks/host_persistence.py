"""What the next boot will do: vfio modules for this kernel, ids, the initramfs, and who comes first.

Judged by `modprobe -c`, which reads what modprobe reads and normalises names; the files themselves only explain why
an option is missing there (facts real-host pitfalls 5-9).
"""

from __future__ import annotations

import re

from labproof.checks.host_devices import base_version, seen, the_card
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.host import HostFacts, PciDevice, TextFile
from labproof.facts.reading import State, need

#: Drivers of the host that take a card of this vendor when nothing stops them.
RIVALS = {
    "10de": ("nouveau", "nvidia"),
    "8086": ("i915",),
    "1002": ("amdgpu", "radeon"),
}
#: Intel display ids that xe takes by itself (Lunar Lake, Battlemage, Panther Lake); older ones need force_probe.
XE_FAMILIES = ("8086:64", "8086:e2", "8086:b0")
#: As the kernel reads it: sscanf's %x, so that 0x10de:0x2204 binds too (recorded, captures/host/guest/ids-with-0x).
ID = re.compile(r"(?:0x)?([0-9a-f]{1,4}):(?:0x)?([0-9a-f]{1,4})(?::[0-9a-fx]+)*", re.IGNORECASE)


@clause_check(
    "HOST-VFIO-001",
    title="vfio-pci can be loaded into this kernel",
    severity=BLOCKING,
    scope="host",
    reads=("host",),
    causes=("P26",),
)
def vfio_is_available(subject: Subject) -> Judgement:
    """H11: the driver is registered, or its module exists for the running kernel."""
    host = subject.host_facts
    registered = "vfio-pci" in need(host.pci_drivers, "PCI drivers")
    drivers = seen(subject, "ls /sys/bus/pci/drivers", "vfio-pci" if registered else "no vfio-pci")
    if registered:
        return Pass((drivers,))
    release = need(host.kernel, "kernel version")
    directory = need(host.kernel_modules_dir, "/lib/modules")
    blacklisted = [t for t in host.cmdline.value or () if t.startswith("module_blacklist=") and "vfio" in t]
    there = "vfio_pci" in (host.available_modules.value or ())
    where = f"ls /lib/modules/{release}"
    text = "vfio-pci.ko is there" if there else "no vfio-pci.ko" if directory else "no such directory"
    shown = (drivers, seen(subject, where, text + (f"; {blacklisted[0]}" if blacklisted else "")))
    if there and not blacklisted:
        return Pass(shown)
    return Fail((Problem("P26", subject.host.name, shown, (("host", subject.host.name),)),))


def modprobe_lines(host: HostFacts) -> tuple[str, ...]:
    """What modprobe will do. Without modprobe there is no module to configure: nothing."""
    if host.modprobe_config.state is State.UNSUPPORTED:
        return ()
    return need(host.modprobe_config, "modprobe -c")


def bound_ids(host: HostFacts) -> set[str]:
    """`vendor:device` ids that vfio-pci takes at boot, from modprobe options and the kernel command line."""
    texts = [
        line.split(" ", 2)[2]
        for line in modprobe_lines(host)
        if line.startswith(("options vfio_pci ", "options vfio-pci "))
    ]
    texts += [t.replace("vfio_pci.ids", "ids").replace("vfio-pci.ids", "ids") for t in host.cmdline.value or ()]
    found: set[str] = set()
    for text in texts:
        for match in re.finditer(r"(?:^|\s)ids=(\S+)", text):
            ids = (ID.fullmatch(word) for word in match[1].split(","))
            found |= {f"{int(i[1], 16):04x}:{int(i[2], 16):04x}" for i in ids if i is not None}
    return found


def binding_of(host: HostFacts, device: PciDevice) -> str | None:
    """What binds the device to vfio-pci at boot, None when nothing does."""
    if device.ids in bound_ids(host):
        return f"ids={device.ids}"
    for file in host.driverctl_files.value or ():
        if file.path.rsplit("/", 1)[-1].removeprefix("pci-") == device.address and "vfio-pci" in file.lines:
            return file.path
    if device.driver_override == "vfio-pci":  # PVE never sets it: somebody's boot script did
        return "driver_override"
    return None


def _mentions(files: tuple[TextFile, ...], words: tuple[str, ...]) -> list[TextFile]:
    return [f for f in files if any(word in line for line in f.lines for word in words)]


@clause_check(
    "HOST-PERSIST-001",
    title="The boot configuration binds the GPU to vfio-pci",
    severity=DEGRADED,
    scope="chain",
    reads=("host",),
    causes=("P28", "P29", "P66"),
    after=("HOST-DEVICE-001",),
)
def boot_binds_the_gpu(subject: Subject) -> Judgement:
    """H12: ids (modprobe or command line), driverctl or a driver_override cover the card."""
    host, card = subject.host_facts, the_card(subject)
    if not subject.host.bind_at_boot:
        return Pass((seen(subject, "lab.yaml", "bind_at_boot: false, PVE binds the card when the VM starts"),))
    how = binding_of(host, card)
    if how is not None:
        return Pass((seen(subject, "modprobe -c", f"{card.ids} is bound by {how}"),))
    config = seen(subject, "modprobe -c | grep vfio", _vfio_options(host))
    values = (("host", subject.host.name), ("address", card.address), ("device", card.ids))
    files = need(host.modprobe_files, "/etc/modprobe.d")
    cause = "P66"
    evidence: tuple[Evidence, ...] = (config,)
    for file in _mentions(files, ("vfio-pci", "vfio_pci")):
        options = [line for line in file.lines if re.match(r"\s*options?\s+vfio[-_]pci\b", line)]
        if not options:
            continue
        evidence = (config, seen(subject, f"cat {file.path}", "; ".join(options)))
        right = any(re.match(r"\s*options\s+vfio[-_]pci\b.*\bids=\S*" + card.ids, line) for line in options)
        cause = "P29" if right and not file.path.endswith(".conf") else "P28"
        break
    return Fail((Problem(cause, card.address, evidence, values),))


def _vfio_options(host: HostFacts) -> str:
    return "; ".join(line for line in modprobe_lines(host) if "vfio" in line) or "no line names vfio"


@clause_check(
    "HOST-PERSIST-002",
    title="The initramfs carries the module options",
    severity=DEGRADED,
    scope="host",
    reads=("host",),
    causes=("P22",),
)
def initramfs_is_current(subject: Subject) -> Judgement:
    """P22: a file of /etc/modprobe.d about these modules is newer than the running kernel's initramfs, or not in it."""
    host = subject.host_facts
    words = ("vfio", "xe ", *(rival for rivals in RIVALS.values() for rival in rivals))
    files = _mentions(need(host.modprobe_files, "/etc/modprobe.d"), words)
    files = [f for f in files if f.path.endswith(".conf") and not f.path.endswith("/pve-blacklist.conf")]
    if not files:
        return Pass((seen(subject, "grep -l vfio /etc/modprobe.d/*", "no such file, nothing to carry"),))
    if host.initramfs.state is State.ABSENT:
        return Pass((seen(subject, host.initramfs.source, f"{host.initramfs.why}: this host boots without it"),))
    image = need(host.initramfs, "initramfs")
    values = (("host", subject.host.name),)
    problems = []
    for file in files:
        inside = image.entries is None or file.path.removeprefix("/") in image.entries
        newer = file.mtime is not None and image.mtime is not None and file.mtime > image.mtime
        if not inside:
            shown = seen(subject, f"lsinitramfs {image.path}", f"{file.path} is not in it")
            problems.append(Problem("P22", file.path, (shown,), values))
        elif newer:
            late = f"changed {file.mtime - image.mtime:.0f} s after {image.path} was made"  # type: ignore[operator]
            problems.append(Problem("P22", file.path, (seen(subject, f"stat -c %Y {file.path}", late),), values))
    booted = host.boot_time.value
    pending = not problems and booted is not None and image.mtime is not None and image.mtime > booted
    text = f"{', '.join(f.path for f in files)}: older than {image.path}" + (" and in it" if image.entries else "")
    return verdict_of(
        problems, (seen(subject, f"lsinitramfs {image.path}", text),), "pending-reboot" if pending else None
    )


@clause_check(
    "HOST-PERSIST-003",
    title="No driver of the host comes before vfio-pci",
    severity=DEGRADED,
    scope="chain",
    reads=("host",),
    causes=("P66",),
    after=("HOST-DEVICE-001", "HOST-PERSIST-001"),
)
def vfio_comes_first(subject: Subject) -> Judgement:
    """H12: every installed driver that knows the card is blacklisted, or waits for vfio-pci by softdep."""
    host, card = subject.host_facts, the_card(subject)
    if not subject.host.bind_at_boot:
        return Pass((seen(subject, "lab.yaml", "bind_at_boot: false"),))
    how = binding_of(host, card)
    if how is not None and not how.startswith("ids="):
        return Pass((seen(subject, "driver_override", f"{how} names the device itself, whoever comes first"),))
    if host.available_modules.state is not State.VALUE:
        return Unchecked("which modules this kernel has was not read", host.available_modules)
    installed = [m for m in rivals_of(card) if m in need(host.available_modules)]
    free = [m for m in installed if not _held_back(host, m)]
    early = _loaded_early(host)
    listed = ", ".join(installed) or "none installed"
    evidence: tuple[Evidence, ...] = (
        seen(subject, "modprobe -c", f"drivers that know {card.ids}: {listed}; {early or _guards(host)}"),
    )
    if not free or early:
        return Pass(evidence)
    values = (("host", subject.host.name), ("address", card.address), ("device", card.ids))
    remedy = (
        f"Add `softdep {free[0]} pre: vfio-pci` (or `blacklist {free[0]}`) to /etc/modprobe.d/vfio.conf, "
        f"`update-initramfs -u -k all`, reboot {subject.host.name}."
    )
    return Fail((Problem("P66", f"{card.address} {' '.join(free)}", evidence, values, remedy),))


def rivals_of(card: PciDevice) -> tuple[str, ...]:
    """Drivers that would take this card."""
    return ("xe",) if card.ids.startswith(XE_FAMILIES) else RIVALS.get(card.ids[:4], ())


def _held_back(host: HostFacts, module: str) -> bool:
    for line in modprobe_lines(host):
        words = line.replace("-", "_").split()
        if words[:2] == ["blacklist", module]:
            return True
        if words[:2] == ["softdep", module] and {"vfio_pci", "vfio"} & set(words[2:]):
            return True
        if words[:2] == ["install", module] and words[2:] and words[2].endswith(("/false", "/true")):
            return True
    for token in host.cmdline.value or ():
        key, _, names = token.partition("=")
        if key in (
            "modprobe.blacklist",
            "module_blacklist",
            "rd.driver.blacklist",
        ) and module in names.replace("-", "_").split(","):
            return True
    return False


def _loaded_early(host: HostFacts) -> str:
    """vfio-pci in /etc/initramfs-tools/modules is loaded before any driver of the real root."""
    for file in host.modules_load_files.value or ():
        if file.path == "/etc/initramfs-tools/modules" and any(
            line.split()[0].replace("-", "_") == "vfio_pci" for line in file.lines if line.split()
        ):
            return f"{file.path} loads vfio-pci first"
    return ""


def _guards(host: HostFacts) -> str:
    lines = [line for line in modprobe_lines(host) if line.startswith(("blacklist", "softdep"))]
    rivals = {rival for known in RIVALS.values() for rival in known}
    return (
        "; ".join(line for line in lines if line.replace("-", "_").split()[1] in rivals) or "no blacklist, no softdep"
    )


@clause_check(
    "HOST-PERSIST-004",
    title="The boot configuration binds every declared function",
    severity=HYGIENE,
    scope="chain",
    reads=("host",),
    causes=("P23", "P24"),
    after=("HOST-DEVICE-001", "HOST-PERSIST-001"),
)
def boot_binds_every_function(subject: Subject) -> Judgement:
    """H12 for the functions lab.yaml declares: `ids=` has to list them all."""
    host, card = subject.host_facts, the_card(subject)
    declared = set(subject.chain.gpu.functions)
    functions = [d for d in need(host.pci) if d.slot == card.slot and d.address != card.address and d.ids in declared]
    evidence = tuple(
        seen(subject, "modprobe -c", f"{d.address} {d.ids}: {binding_of(host, d) or 'not bound'}") for d in functions
    )
    problems = []
    for device, shown in zip(functions, evidence, strict=True):
        if subject.host.bind_at_boot and binding_of(host, device) is None:
            cause = "P23" if device.pci_class.startswith("0403") else "P24"
            values = (("host", subject.host.name), ("address", device.address), ("device", device.ids))
            problems.append(Problem(cause, device.address, (shown,), values))
    return verdict_of(problems, evidence or (seen(subject, "lab.yaml", "no further functions are declared"),))


@clause_check(
    "HOST-MODULES-001",
    title="No obsolete vfio_virqfd is listed for loading",
    severity=HYGIENE,
    scope="host",
    reads=("host",),
    causes=("P27",),
)
def no_obsolete_module(subject: Subject) -> Judgement:
    """P27: part of vfio since kernel 6.2; below that it is a module of its own and right to list."""
    host = subject.host_facts
    files = need(host.modules_load_files, "/etc/modules")
    release = need(host.kernel, "kernel version")
    listed = [f.path for f in files if any(line.split()[:1] == ["vfio_virqfd"] for line in f.lines)]
    shown = seen(subject, "grep vfio_virqfd /etc/modules /etc/modules-load.d/*", ", ".join(listed) or "not listed")
    if listed and base_version(release)[:2] >= (6, 2):
        return Fail(
            (
                Problem(
                    "P27",
                    listed[0],
                    (shown, seen(subject, "uname -r", release)),
                    (("host", subject.host.name),),
                ),
            )
        )
    return Pass((shown,))
