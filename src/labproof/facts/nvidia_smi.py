"""`nvidia-smi -q -x` as typed fields, and `nvidia-smi -L`.

The XML's element names changed with its DTD: v11 (515), v12 (525-550), v13 (newer) [facts transcode 4]. This is the
one module that knows them. A field is a Reading: a number or word, absent (this DTD has no such element),
unsupported (`N/A`, `[Not Supported]`: the card does not have it) or failed (`Unknown Error`, `ERR!`,
`Insufficient Permissions`: it has it and could not say).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar
from xml.etree import ElementTree

from labproof.facts.reading import Reading, absent, failed, unsupported, value

T = TypeVar("T")
SOURCE = "nvidia-smi -q -x"


@dataclass(frozen=True)
class SmiGpu:
    """One `<gpu>`; memory in MiB, power in W, temperatures in degrees Celsius, shares in percent."""

    bus_id: Reading[str]  # 0000:01:00.0, lower case, as lspci -D writes it
    vendor_device: Reading[str]  # 10de:1eb8
    product_name: Reading[str]
    architecture: Reading[str]
    uuid: Reading[str]
    virtualization_mode: Reading[str]  # Pass-Through inside a VM that got the whole card
    persistence_mode: Reading[str]
    compute_mode: Reading[str]
    performance_state: Reading[str]
    gsp_firmware: Reading[str]
    recovery_action: Reading[str]  # None | Reset | Reboot ... (drivers from about 560 on)
    memory_total: Reading[int]
    memory_used: Reading[int]
    memory_free: Reading[int]
    gpu_util: Reading[int]
    encoder_util: Reading[int]
    decoder_util: Reading[int]
    encoder_sessions: Reading[int]
    ecc_mode: Reading[str]
    ecc_uncorrectable_volatile: Reading[int]
    ecc_uncorrectable_aggregate: Reading[int]
    memory_repair_pending: Reading[bool]  # a page retirement or a row remapping waits for a reset
    memory_repair_failed: Reading[bool]  # row remapping failed: the card is to be replaced
    temperature: Reading[int]
    slowdown_temperature: Reading[int]
    power_draw: Reading[float]
    power_limit: Reading[float]
    link_gen_current: Reading[int]
    link_gen_max: Reading[int]
    link_width_current: Reading[int]
    link_width_max: Reading[int]
    slowdowns: Reading[tuple[str, ...]]  # active clock event reasons: hw_slowdown, hw_thermal_slowdown ...


@dataclass(frozen=True)
class SmiReport:
    """The whole answer."""

    dtd: str  # nvsmi_device_v12.dtd, empty when not told
    driver_version: Reading[str]
    cuda_version: Reading[str]
    attached_gpus: Reading[int]
    gpus: tuple[SmiGpu, ...]


def parse_smi_xml(text: str) -> Reading[SmiReport]:
    """The report, or a failed reading when the text is not a whole nvidia-smi document.

    Never raises: a truncated answer, a message instead of XML and an entity bomb all end in a failed reading.
    """
    if "<!ENTITY" in text:
        return failed(SOURCE, "the answer declares XML entities, nvidia-smi never does")
    try:
        root = ElementTree.fromstring(text.strip())  # noqa: S314 - entity declarations are refused above
    except ElementTree.ParseError as broken:
        first = next((line.strip() for line in text.splitlines() if line.strip()), "nothing")
        return failed(SOURCE, f"not a whole XML document ({broken.msg}); it begins: {first[:160]}")
    if root.tag != "nvidia_smi_log":
        return failed(SOURCE, f"not nvidia-smi's XML: root element <{root.tag}>")
    dtd = re.search(r'SYSTEM\s+"([^"]+)"', text)
    report = SmiReport(
        dtd.group(1) if dtd else "",
        _word(root, "driver_version"),
        _word(root, "cuda_version"),
        _number(root, "attached_gpus"),
        tuple(_gpu(element) for element in root.findall("gpu")),
    )
    return value(report, SOURCE)


def parse_smi_list(text: str) -> tuple[tuple[int, str, str], ...]:
    """(index, product name, UUID) of every line `GPU 0: Tesla T4 (UUID: GPU-...)` of `nvidia-smi -L`."""
    found = re.findall(r"^GPU (\d+): (.+?) \(UUID: ((?:GPU|MIG)-[^)\s]+)\)", text, re.MULTILINE)
    return tuple((int(index), name, uuid) for index, name, uuid in found)


def normal_bus_id(text: str) -> str:
    """`00000000:3B:00.0` as `0000:3b:00.0`; a domain wider than 16 bits (VMD, HPE) keeps its digits."""
    match = re.fullmatch(r"(?:([0-9a-f]+):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", text.strip().lower())
    if not match:
        return text.strip().lower()
    domain = int(match.group(1) or "0", 16)
    return f"{domain:04x}:{match.group(2)}:{match.group(3)}.{match.group(4)}"


def _gpu(gpu: ElementTree.Element) -> SmiGpu:
    bus = _word(gpu, "pci/pci_bus_id")
    if bus.value is None and gpu.get("id"):
        bus = value(str(gpu.get("id")), f"{SOURCE} gpu@id")
    return SmiGpu(
        bus_id=_map(bus, normal_bus_id),
        vendor_device=_map(_word(gpu, "pci/pci_device_id"), _vendor_device),
        product_name=_word(gpu, "product_name"),
        architecture=_word(gpu, "product_architecture"),
        uuid=_word(gpu, "uuid"),
        virtualization_mode=_word(gpu, "gpu_virtualization_mode/virtualization_mode"),
        persistence_mode=_word(gpu, "persistence_mode"),
        compute_mode=_word(gpu, "compute_mode"),
        performance_state=_word(gpu, "performance_state"),
        gsp_firmware=_word(gpu, "gsp_firmware_version"),
        recovery_action=_word(gpu, "gpu_recovery_action"),
        memory_total=_number(gpu, "fb_memory_usage/total"),
        memory_used=_number(gpu, "fb_memory_usage/used"),
        memory_free=_number(gpu, "fb_memory_usage/free"),
        gpu_util=_number(gpu, "utilization/gpu_util"),
        encoder_util=_number(gpu, "utilization/encoder_util"),
        decoder_util=_number(gpu, "utilization/decoder_util"),
        encoder_sessions=_number(gpu, "encoder_stats/session_count"),
        ecc_mode=_word(gpu, "ecc_mode/current_ecc"),
        ecc_uncorrectable_volatile=_ecc(gpu, "volatile"),
        ecc_uncorrectable_aggregate=_ecc(gpu, "aggregate"),
        memory_repair_pending=_any_yes(
            gpu,
            "retired_pages/pending_retirement",
            "retired_pages/pending_blacklist",
            "remapped_rows/remapped_row_pending",
        ),
        memory_repair_failed=_any_yes(gpu, "remapped_rows/remapped_row_failure"),
        temperature=_number(gpu, "temperature/gpu_temp"),
        slowdown_temperature=_number(gpu, "temperature/gpu_temp_slow_threshold"),
        # power_readings up to 525; gpu_power_readings after; v13 tells average and instant apart
        power_draw=_first(
            _float(gpu, path)
            for path in (
                "gpu_power_readings/power_draw",
                "gpu_power_readings/instant_power_draw",
                "gpu_power_readings/average_power_draw",
                "power_readings/power_draw",
            )
        ),
        power_limit=_first(
            _float(gpu, path)
            for path in (
                "gpu_power_readings/current_power_limit",
                "power_readings/enforced_power_limit",
                "power_readings/power_limit",
            )
        ),
        link_gen_current=_number(gpu, "pci/pci_gpu_link_info/pcie_gen/current_link_gen"),
        link_gen_max=_number(gpu, "pci/pci_gpu_link_info/pcie_gen/max_link_gen"),
        link_width_current=_number(gpu, "pci/pci_gpu_link_info/link_widths/current_link_width"),
        link_width_max=_number(gpu, "pci/pci_gpu_link_info/link_widths/max_link_width"),
        slowdowns=_slowdowns(gpu),
    )


_UNANSWERED = re.compile(r"unknown error|err!|insufficient permissions|requires reset|gpu is lost", re.IGNORECASE)
_NOT_SUPPORTED = re.compile(
    r"^\[?(n/a|not supported|not available|function not found|requested functionality has been deprecated|none)\]?$",
    re.IGNORECASE,
)


def _word(parent: ElementTree.Element, path: str) -> Reading[str]:
    source = f"{SOURCE} {path}"
    element = parent.find(path)
    if element is None:
        return absent(source, "this nvidia-smi has no such element")
    text = (element.text or "").strip()
    if _UNANSWERED.search(text):
        return failed(source, f"nvidia-smi answered {text!r}", "unanswered")
    # `None` is a word of its own in gpu_recovery_action, elsewhere it means "has none"
    if not text or (_NOT_SUPPORTED.match(text) and not (text == "None" and path == "gpu_recovery_action")):
        return unsupported(source, f"nvidia-smi answered {text!r}")
    return value(text, source)


def _map(reading: Reading[str], convert: Callable[[str], T]) -> Reading[T]:
    if reading.value is None:
        return Reading(reading.state, None, reading.source, reading.why, reading.at, reading.kind)
    try:
        return value(convert(reading.value), reading.source, reading.at)
    except ValueError:
        return failed(reading.source, f"not understood: {reading.value!r}", "format")


def _float(parent: ElementTree.Element, path: str) -> Reading[float]:
    return _map(_word(parent, path), _leading_number)


def _number(parent: ElementTree.Element, path: str) -> Reading[int]:
    return _map(_word(parent, path), lambda text: int(_leading_number(text)))


def _leading_number(text: str) -> float:
    match = re.match(r"-?\d+(?:\.\d+)?", text)
    if not match:
        raise ValueError(text)
    return float(match.group())


def _vendor_device(text: str) -> str:
    """`0x1EB810DE` (device, then vendor) as `10de:1eb8`."""
    digits = text.lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{8}", digits):
        raise ValueError(text)
    return f"{digits[4:]}:{digits[:4]}"


def _first(readings: Iterable[Reading[T]]) -> Reading[T]:
    """The first that holds a value, else the first that says something better than "absent", else the first."""
    found = list(readings)
    for reading in found:
        if reading.value is not None:
            return reading
    return next((r for r in found if r.state != "absent"), found[0])


def _ecc(gpu: ElementTree.Element, period: str) -> Reading[int]:
    """Uncorrectable errors: v11 sums them under double_bit/total, later DTDs list them by memory."""
    old = _number(gpu, f"ecc_errors/{period}/double_bit/total")
    if old.value is not None:
        return old
    element = gpu.find(f"ecc_errors/{period}")
    source = f"{SOURCE} ecc_errors/{period}/*uncorrectable*"
    if element is None:
        return absent(source, "this nvidia-smi has no such element")
    # sram_uncorrectable_parity and _secded are summands of v13 on newer chips; threshold flags are no counts
    counts = [
        _number(element, child.tag)
        for child in element
        if "uncorrectable" in child.tag and "threshold" not in child.tag
    ]
    known = [r.value for r in counts if r.value is not None]
    if not known:
        return next(iter(counts), unsupported(source, "no counter of uncorrectable errors"))
    return value(sum(known), source)


def _any_yes(gpu: ElementTree.Element, *paths: str) -> Reading[bool]:
    readings = [_word(gpu, path) for path in paths]
    words = [r.value.lower() for r in readings if r.value is not None]
    if not words:
        return _map(_first(readings), lambda text: text.lower() == "yes")
    return value("yes" in words, readings[0].source)


def _slowdowns(gpu: ElementTree.Element) -> Reading[tuple[str, ...]]:
    for name in ("clocks_event_reasons", "clocks_throttle_reasons"):
        parent = gpu.find(name)
        if parent is None:
            continue
        prefix = name.removesuffix("s") + "_"
        if not len(parent):
            return unsupported(f"{SOURCE} {name}", (parent.text or "empty").strip())
        active = (child.tag.removeprefix(prefix) for child in parent if (child.text or "").strip() == "Active")
        return value(tuple(active), f"{SOURCE} {name}")
    return absent(f"{SOURCE} clocks_event_reasons", "this nvidia-smi has no such element")
