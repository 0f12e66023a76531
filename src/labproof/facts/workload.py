"""Facts of the workload layer: what our own pods (or the pod the owner named) saw of the GPU."""

from __future__ import annotations

from dataclasses import dataclass

from labproof.facts.dri import DriSeen, VaInfo
from labproof.facts.nvidia_smi import SmiReport
from labproof.facts.pod_command import Ran
from labproof.facts.pod_outcome import PodOutcome
from labproof.facts.reading import NOT_ASKED, Reading


@dataclass(frozen=True)
class SlotHolder:
    """A pod that holds slots of the resource, or takes the GPU by its RuntimeClass without holding one (slots 0)."""

    namespace: str
    pod: str
    node: str
    slots: int
    since: str  # RFC 3339, metadata.creationTimestamp
    phase: str
    priority: int
    ours: bool  # made by labproof, by label
    controller: str  # kind of the owner reference: ReplicaSet, DaemonSet, Job ...; empty for a bare pod

    @property
    def name(self) -> str:
        """namespace/pod."""
        return f"{self.namespace}/{self.pod}"


@dataclass(frozen=True)
class Slots:
    """Who holds what of one resource on one node, counted from the API.

    Attributes:
        allocatable, capacity: as the node says; None when the node does not list the resource at all.
        holders: non-terminal pods that ask for it (Succeeded and Failed pods hold nothing).
        unaccounted: pods that name the GPU RuntimeClass and ask for nothing (DaemonSets, which are the GPU stack
            itself, left out).
    """

    resource: str
    node: str
    allocatable: int | None
    capacity: int | None
    holders: tuple[SlotHolder, ...] = ()
    unaccounted: tuple[SlotHolder, ...] = ()

    @property
    def held(self) -> int:
        """Slots held."""
        return sum(holder.slots for holder in self.holders)

    @property
    def free(self) -> int:
        """Slots nobody holds; 0 when more are held than there are."""
        return max(0, (self.allocatable or 0) - self.held)

    def by_whom(self) -> str:
        """`media/jellyfin-0 (1), ...` for the owner."""
        return ", ".join(f"{h.name} ({h.slots})" for h in self.holders) or "nobody"


@dataclass(frozen=True)
class PodSeen:
    """One pod of ours and what became of it.

    Attributes:
        role: what it was for: probe, leak, runtime-class-only, vector-add, over-request, overflow, filler.
        name: its name, empty when the API refused to create it.
        image: image reference asked for.
        asked: slots asked for.
        outcome: where it stood when we looked last.
        refused: the API server's refusal (`labproof.facts.refusal.Because`), empty when it was created.
        text: the refusal's message.
        log: its log, for pods that are judged by it.
        seconds: from creation to the outcome.
    """

    role: str
    name: str
    namespace: str
    image: str
    asked: int
    outcome: PodOutcome | None
    refused: str = ""
    text: str = ""
    log: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class DeviceSeen:
    """A device node in the container and what opening it as the container's user gave."""

    path: str
    mode: str  # crw-rw-rw-
    uid: int
    gid: int
    opened_read: Ran
    opened_write: Ran

    @property
    def opens(self) -> bool:
        """Whether it opens for reading and for writing."""
        return self.opened_read.ok and self.opened_write.ok


@dataclass(frozen=True)
class SmiSeen:
    """`nvidia-smi -q -x`: the run and what it said."""

    ran: Ran
    report: Reading[SmiReport]


@dataclass(frozen=True)
class LeakSeen:
    """What a pod that asked for nothing saw."""

    pod: PodSeen
    devices: Reading[tuple[str, ...]]  # /dev/nvidia* in it
    listed: Reading[Ran]  # nvidia-smi -L in it
    dri: Reading[tuple[str, ...]] = NOT_ASKED  # nodes under /dev/dri in it; Intel and AMD chains only


@dataclass(frozen=True)
class OverflowSeen:
    """One pod more than there are free slots.

    Attributes:
        free_before: free slots when it began.
        ours: slots our fillers held while the overflow pod waited.
        asked: slots the overflow pod asked for (more than 1 where the last free slot had to stay free).
        pod: the overflow pod while there was no slot for it.
        woke_s: seconds from the release of a slot to running; failed when it did not; not asked when trying would
            have taken the last slot.
        fillers: the pods that filled the slots.
    """

    free_before: int
    ours: int
    asked: int
    pod: PodSeen
    woke_s: Reading[float]
    fillers: tuple[PodSeen, ...] = ()


@dataclass(frozen=True)
class VramSeen:
    """Card memory taken for a moment in the probe pod. MiB.

    Attributes:
        wanted: what lab.yaml says must be there (`probe.vram_mib`).
        free_before: what the driver called free; None when it did not tell.
        held_by_others: pods that hold slots of this card's node besides ours.
        ran: the program that took it; not asked when there was too little, or when it would have been others' memory.
        peak: most that the driver counted as used meanwhile; None when no sample fell into it.
    """

    wanted: int
    free_before: int | None
    held_by_others: str
    ran: Reading[Ran] = NOT_ASKED
    peak: int | None = None


@dataclass(frozen=True)
class Floors:
    """What the card had left before we began; work starts only when `short_of` is empty."""

    free_vram_mib: int | None
    encoder_sessions: int | None
    temperature_c: int | None
    short_of: str


@dataclass(frozen=True)
class ImageChoice:
    """Which image the pods use and why; size in bytes, None when the node does not list it."""

    reference: str
    on_node: bool
    size: int | None
    why: str


@dataclass(frozen=True)
class WorkloadFacts:
    """What was observed for one chain. `via` is `pod` for pods of our own, `exec` for the owner's pod."""

    name: str
    node: str
    resource: str
    namespace: str
    via: str
    run: str
    at: float
    slots: Slots
    image: ImageChoice
    probe: Reading[PodSeen]
    nvidia_smi: Reading[SmiSeen] = NOT_ASKED
    listed: Reading[Ran] = NOT_ASKED  # nvidia-smi -L
    env: Reading[tuple[tuple[str, str], ...]] = NOT_ASKED  # NVIDIA_* and CUDA_* only
    uid: Reading[int] = NOT_ASKED
    devices: Reading[tuple[DeviceSeen, ...]] = NOT_ASKED
    libraries: Reading[tuple[str, ...]] = NOT_ASKED  # paths of driver libraries that exist
    floors: Reading[Floors] = NOT_ASKED
    dri: Reading[DriSeen] = NOT_ASKED  # Intel and AMD chains only, and so the next two
    vainfo: Reading[VaInfo] = NOT_ASKED
    opencl: Reading[Ran] = NOT_ASKED  # a filter of ffmpeg on an OpenCL device derived from the VA-API one
    vector_add: Reading[PodSeen] = NOT_ASKED
    vram: Reading[VramSeen] = NOT_ASKED
    leak: Reading[LeakSeen] = NOT_ASKED
    runtime_class_only: Reading[LeakSeen] = NOT_ASKED
    overflow: Reading[OverflowSeen] = NOT_ASKED
    over_request: Reading[PodSeen] = NOT_ASKED
    created: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    swept: tuple[str, ...] = ()

    def variable(self, name: str) -> str | None:
        """The value of an environment variable of the container; None when unset or not read."""
        return dict(self.env.value or ()).get(name)
