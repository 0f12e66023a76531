"""Which look into a container fits the chain's card: NVIDIA's tools, or DRM nodes, libva and OpenCL."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from labproof.facts.pod_command import Ran
from labproof.facts.reading import NOT_ASKED, Reading, State, failed, value
from labproof.facts.workload import Floors
from labproof.inventory.chains import Chain
from labproof.inventory.models import Probe
from labproof.probes.dri_inspect import list_dri, read_dri, read_vainfo
from labproof.probes.va_commands import opencl_command
from labproof.probes.workload_inspect import Inspected, inspect, read_uid

Run = Callable[[Sequence[str]], Ran]


def is_nvidia(chain: Chain) -> bool:
    """Whether the chain's card is NVIDIA's; all others are looked at through their DRM nodes."""
    return chain.gpu.device.startswith("10de:")


def inspect_card(chain: Chain, run: Run, probe: Probe) -> Inspected:
    """Read what the container sees of the chain's card.

    Args:
        run: runs one argv in the container.
        probe: programs to use, and for NVIDIA the floors to hold what is left of the card against.
    """
    if is_nvidia(chain):
        return inspect(run, probe)
    nothing: Reading[object] = Reading(State.NOT_ASKED, why="not an NVIDIA card")
    dri = read_dri(run)
    node = dri.value.render_node(chain.gpu.device) if dri.value is not None else None
    vainfo, opencl = NOT_ASKED, NOT_ASKED
    if node is not None and probe.vainfo:
        vainfo = read_vainfo(run, probe, node.path)
    if node is not None and chain.cluster is not None and chain.cluster.compute and probe.via == "pod":
        ran = run(opencl_command(probe, node.path))
        opencl = value(ran, ran.line(), ran.started) if ran.rc is not None else failed(ran.line(), ran.said(), "exec")
    # VA-API has no session limit and shares the host's memory: nothing to keep free
    floors = value(Floors(None, None, None, ""), "no floors for this kind of card")
    return Inspected(
        nothing, nothing, nothing, read_uid(run), nothing, nothing, floors, dri, vainfo, opencl,  # type: ignore[arg-type]
    )  # fmt: skip


def nodes_without_a_request(chain: Chain, run: Run) -> Reading[tuple[str, ...]]:
    """DRM nodes in a pod that asked for no GPU; asked where the chain's card has such nodes."""
    if is_nvidia(chain):
        return NOT_ASKED
    listed = list_dri(run)
    if listed.value is None:
        return failed(listed.source, listed.why, listed.kind)
    return value(tuple(path for path, *_ in listed.value), listed.source, listed.at)
