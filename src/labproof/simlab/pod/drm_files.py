"""What /sys and /proc tell a container about the node's DRM devices and about the programs that work on them.

sysfs is the node's own in every container, whatever was injected; fdinfo only shows processes of the same container.
Formats: facts/transcode.md 2.6 (drm-usage-stats, i915 from kernel 5.19, not below graphics version 8, not under GuC
submission before 6.5); paths of frequency and residency as i915 and xe write them.
"""

from __future__ import annotations

import re
import time

from labproof.simlab.pod.chips import chip_of
from labproof.simlab.world.states import Card, DrmDevice, PodWorld, Process

_ENGINES = {"i915": ("render", "copy", "video", "video-enhance"), "xe": ("rcs", "bcs", "vcs", "vecs", "ccs")}
_IDLE_MHZ, _TOP_MHZ = 100, 1300


def drm_files(pod: PodWorld) -> dict[str, bytes]:
    """Readable files below /sys/class/drm and /proc/<pid>."""
    found: dict[str, str] = {}
    for device in pod.node.drm:
        vendor, _, digits = device.vendor_device.partition(":")
        for path in (device.card_node, device.render_node):
            base = f"/sys/class/drm/{path.rpartition('/')[2]}/device"
            for sibling in (device.card_node, device.render_node):
                name = sibling.rpartition("/")[2]
                found[f"{base}/drm/{name}/uevent"] = f"MAJOR=226\nDEVNAME=dri/{name}\nDEVTYPE=drm_minor\n"
            found[f"{base}/vendor"] = f"0x{vendor}\n"
            found[f"{base}/device"] = f"0x{digits}\n"
            found[f"{base}/uevent"] = (
                f"DRIVER={device.driver}\nPCI_CLASS=30000\nPCI_ID={vendor.upper()}:{digits.upper()}\n"
                f"PCI_SLOT_NAME={device.address}\n"
            )
        found |= _power(device)
    for number, process in pod.processes.items():
        found[f"/proc/{number}/cmdline"] = "".join(f"{word}\0" for word in process.argv)
        for descriptor, path in process.opened.items():
            opened = next((d for d in pod.node.drm if path in (d.card_node, d.render_node)), None)
            if opened is not None:
                found[f"/proc/{number}/fdinfo/{descriptor}"] = fdinfo(opened, process, number, pod.node.kernel)
    found["/proc/1/cmdline"] = "/init\0"
    return {path: text.encode() for path, text in found.items()}


def _power(device: DrmDevice) -> dict[str, str]:
    busy = bool(device.card.sessions or device.card.decoding) and not device.card.inputs.get("never_wakes")
    idle = f"{residency_ms(device.card, busy=busy)}\n"
    mhz = f"{_TOP_MHZ if busy else _IDLE_MHZ}\n"
    base = f"/sys/class/drm/{device.card_node.rpartition('/')[2]}"
    if device.driver == "xe":
        gt = f"{base}/device/tile0/gt0"
        return {f"{gt}/freq0/act_freq": mhz, f"{gt}/gtidle/idle_residency_ms": idle}
    return {f"{base}/gt_act_freq_mhz": mhz, f"{base}/power/rc6_residency_ms": idle}


def residency_ms(card: Card, *, busy: bool) -> int:
    """The power state's residency: it grows with the clock, except while something works on the card."""
    now = time.monotonic()
    if card.looked_at and not busy:
        card.idle_ms += (now - card.looked_at) * 1000.0
    card.looked_at = now
    return int(card.idle_ms)


def counts_engines(device: DrmDevice, kernel: str) -> bool:
    """Whether this kernel writes engine counters for clients of this device."""
    if device.driver == "xe":
        return True
    chip = chip_of(device.card.inputs)
    numbers = tuple(int(n) for n in re.findall(r"\d+", kernel)[:2])
    if chip is None or chip.generation < 8 or numbers < (5, 19):
        return False
    return numbers >= (6, 5) or not device.guc


def fdinfo(device: DrmDevice, process: Process, number: int, kernel: str) -> str:
    """/proc/<pid>/fdinfo/<fd> of a render node."""
    lines = ["pos:\t0", "flags:\t02100002", "mnt_id:\t28", f"drm-driver:\t{device.driver}",
             f"drm-client-id:\t{number + 7}", f"drm-pdev:\t{device.address}"]  # fmt: skip
    if counts_engines(device, kernel):
        for engine in _ENGINES[device.driver]:
            done = int(process.engines.get(engine, 0.0))
            if device.driver == "xe":
                lines += [f"drm-cycles-{engine}:\t{done // 52}", f"drm-total-cycles-{engine}:\t{time.monotonic_ns()}"]
            else:
                lines.append(f"drm-engine-{engine}:\t{done} ns")
    return "\n".join(lines) + "\n"
