"""nvidia-smi: what NVML answers in this container, or in which words and with which status it fails.

Texts and statuses: facts/transcode.md 4 and 7a. nvidia-smi writes most failures to standard output.
"""

from __future__ import annotations

from collections.abc import Sequence

from labproof.simlab.pod.access import (
    CONTROL,
    cuda_version,
    has_library,
    library_version,
    open_error,
    visible_cards,
)
from labproof.simlab.pod.process import KILLED, NotSimulatedError, ProcessIO
from labproof.simlab.pod.readings import read_card
from labproof.simlab.pod.smi_query import UnknownField, query_csv
from labproof.simlab.pod.smi_xml import report_xml
from labproof.simlab.world.states import NodeGpu, PodWorld

NVML_LIBRARY = "libnvidia-ml.so.1"

_NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n\n"
)
_NO_LIBRARY = (
    "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA Display Driver "
    "is properly installed and present in your system.\n"
    "Please also try adding directory that contains libnvidia-ml.so to your system PATH.\n"
)


class NvmlError(Exception):
    """NVML could not be used; `text` goes to stdout, `status` is the exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.text, self.status = text, status


def nvml_gpus(pod: PodWorld) -> tuple[NodeGpu, ...]:
    """Start NVML and count devices.

    Raises:
        NvmlError: W01-W08, in the order the library meets them.
    """
    node = pod.node
    if not has_library(pod, NVML_LIBRARY):
        raise NvmlError(_NO_LIBRARY, 12)  # W08
    if node.driver_version is None:
        raise NvmlError(_NO_DRIVER, 9)  # W01
    library = library_version(pod, NVML_LIBRARY)
    if library is not None and library != node.driver_version:
        branch = ".".join(library.split(".")[:2])
        text = f"Failed to initialize NVML: Driver/library version mismatch\nNVML library version: {branch}\n"
        raise NvmlError(text, 18)  # W02
    error = open_error(pod, CONTROL)
    if error == "No such file or directory":
        raise NvmlError(_NO_DRIVER, 9)
    if error == "Permission denied":
        raise NvmlError("Failed to initialize NVML: Insufficient Permissions\n", 4)
    if error:  # W03: the device cgroup lost its rules
        raise NvmlError("Failed to initialize NVML: Unknown Error\n", 255)
    gpus = visible_cards(pod)
    lost = [pci for pci in node.pci if pci.card and "79" in map(str, pci.card.inputs.get("incidents") or {})]
    if not gpus and lost:
        text = f"Unable to determine the device handle for GPU0: {lost[0].address}: Unknown Error\n"
        raise NvmlError(text + "No devices were found\n", 15)  # W05
    if not gpus:
        raise NvmlError("No devices were found\n", 6)  # W04
    return gpus


async def run(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Run nvidia-smi.

    Raises:
        NotSimulatedError: an option outside the model.
    """
    wanted, query, form, chosen = _options(argv[1:])
    try:
        gpus = nvml_gpus(pod)
    except NvmlError as failure:
        io.write_stdout(failure.text.encode())
        return failure.status
    while any(g.card.inputs.get("hangs") for g in gpus) and not io.cancelled:
        await io.sleep(5.0)  # W09: the driver waits for the card's own processor
    if io.cancelled:
        return KILLED
    # without persistence the first client waits for the driver to wake the card (facts/transcode.md 4)
    await io.sleep(0.05 if all(g.card.inputs.get("persistence") for g in gpus) else 1.2)
    if chosen is not None:
        gpus = tuple(g for n, g in enumerate(gpus) if chosen in (str(n), g.uuid, g.address, _bus_id(g)))
        if not gpus:
            io.write_stdout(b"No devices were found\n")
            return 6
    if wanted == "list":
        text = "".join(f"GPU {n}: {g.card.inputs['product']} (UUID: {g.uuid})\n" for n, g in enumerate(gpus))
    elif wanted == "xml":
        text = report_xml(pod, gpus)
    elif wanted == "query":
        try:
            text = query_csv(pod, gpus, query, form)
        except UnknownField as unknown:
            io.write_stdout(f'Field "{unknown}" is not a valid field to query.\n\n'.encode())
            return 2
    else:
        text = _table(pod, gpus)
    io.write_stdout(text.encode())
    return 0


def _bus_id(gpu: NodeGpu) -> str:
    return f"0000{gpu.address}".upper()


def _options(words: Sequence[str]) -> tuple[str, list[str], frozenset[str], str | None]:
    """What is asked for: form, fields, csv format, one GPU."""
    wanted, query, form, chosen = "table", list[str](), frozenset[str](), None
    rest = list(words)
    flags: set[str] = set()
    while rest:
        word = rest.pop(0)
        name, given, value = word.partition("=")
        if name in ("-i", "--id"):
            chosen = value if given else (rest.pop(0) if rest else "")
        elif word in ("-q", "--query", "-x", "--xml-format"):
            flags.add(word.lstrip("-")[0])
        elif word in ("-L", "--list-gpus"):
            wanted = "list"
        elif name == "--query-gpu":
            wanted, query = "query", [field.strip() for field in value.split(",")]
        elif name == "--format":
            form = frozenset(part.strip() for part in value.split(","))
        else:
            raise NotSimulatedError(f"nvidia-smi {word}")
    if flags == {"q", "x"}:
        wanted = "xml"
    elif flags:
        raise NotSimulatedError("nvidia-smi -q and -x only together")
    if wanted == "query" and "csv" not in form:
        raise NotSimulatedError("nvidia-smi --query-gpu without --format=csv")
    return wanted, query, form, chosen


def _table(pod: PodWorld, gpus: Sequence[NodeGpu]) -> str:
    """The plain table, reduced to its frame and the columns people read."""
    driver = pod.node.driver_version
    major, minor = cuda_version(driver)
    rule = f"+{'-' * 89}+\n"
    head = f"| NVIDIA-SMI {driver:<22} Driver Version: {driver:<14} CUDA Version: {f'{major}.{minor}':<8} |\n"
    lines = [rule, head, f"|{'-' * 41}+{'-' * 24}+{'-' * 22}+\n"]
    for number, gpu in enumerate(gpus):
        now = read_card(gpu.card)
        name = gpu.card.inputs["product"]
        memory = f"{now.used_mib}MiB / {now.total_mib}MiB"
        lines.append(f"| {number:>3}  {name:<34} | {_bus_id(gpu):<22} | {'':<20} |\n")
        power = f"{now.power_w:.0f}W / {int(gpu.card.inputs['power']['limit'])}W"
        state = f"N/A  {now.temperature_c:>3}C    {now.pstate}   {power:>13}"
        lines.append(f"| {state:<39} | {memory:>22} | {f'{now.gpu_percent}%      Default':>20} |\n")
    lines += [rule, "\n", rule, f"| {'Processes:':<87} |\n", rule]
    return "".join(lines)
