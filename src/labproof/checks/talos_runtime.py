"""What pods meet on the node: containerd's nvidia handler, and the kernel parameter its device filter needs."""

from __future__ import annotations

from labproof.catalogue.versions import does
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.talos_view import listed, problem, seen, tag_of, toolkits
from labproof.facts.reading import State, need

CUSTOMIZATION = "20-customization.part"
PART = "nvidia-container-runtime.part"
PREFIXED_PART = "10-nvidia-container-runtime.part"
TABLE = "io.containerd.cri.v1.runtime"
TABLE_OF_CONTAINERD_1 = "io.containerd.grpc.v1.cri"


@clause_check(
    "TALOS-RUNTIME-001",
    title="containerd knows the nvidia runtime",
    severity=BLOCKING,
    scope="node",
    reads=("talos",),
    causes=("T32",),
    wants=("nvidia",),
    after=("TALOS-EXT-001",),
)
def containerd_has_the_nvidia_runtime(subject: Subject) -> Judgement:
    """The toolkit extension brings a configuration part; os:reader sees its name, which is enough."""
    facts = subject.talos_facts
    parts = need(facts.cri_parts, "containerd configuration parts")
    evidence = seen(facts.cri_parts, listed(parts))
    if any(part.endswith(PART) for part in parts):
        return Pass((evidence,))
    return Fail((problem(subject, "T32", evidence),))


@clause_check(
    "TALOS-RUNTIME-002",
    title="The owner's containerd part is read last",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T35",),
    wants=("nvidia",),
    after=("TALOS-RUNTIME-001",),
)
def customization_is_read_last(subject: Subject) -> Judgement:
    """Parts are merged by name: before 1.9.2 the extension's own part sorts behind the owner's 20- part."""
    facts = subject.talos_facts
    parts = need(facts.cri_parts, "containerd configuration parts")
    evidence = seen(facts.cri_parts, listed(parts))
    if CUSTOMIZATION in parts and PART in parts and not does(tag_of(facts), "prefixed_cri_part"):
        return Fail((problem(subject, "T35", evidence),))
    return Pass((evidence,))


@clause_check(
    "TALOS-RUNTIME-003",
    title="The owner's containerd part takes effect",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T33", "T34"),
    needs_right="os:admin",
    after=("TALOS-API-001",),
)
def customization_takes_effect(subject: Subject) -> Judgement:
    """20-customization.part names containerd's table of this release, and a runtime that exists."""
    facts = subject.talos_facts
    if facts.cri_customization.state is State.ABSENT:
        return Pass((seen(facts.cri_customization, "there is no customization"),))
    tables = need(facts.cri_customization, CUSTOMIZATION)
    extensions = need(facts.extensions, "extensions of the node")
    right = TABLE if does(tag_of(facts), "cri_v1_table") else TABLE_OF_CONTAINERD_1
    default = next((table.default_runtime for table in tables if table.name == right), "")
    shown = listed(f"{table.name} (default runtime {table.default_runtime or 'not set'})" for table in tables)
    evidence = seen(facts.cri_customization, shown)
    if default == "nvidia" and not toolkits(extensions):
        return Fail((problem(subject, "T33", evidence, seen(facts.extensions, "no nvidia-container-toolkit")),))
    # Other keys in a table of another release are harmless (facts wild 2).
    if any(t.sets_containerd and t.name in (TABLE, TABLE_OF_CONTAINERD_1) and t.name != right for t in tables):
        told = Evidence(facts.version.source, f"{tag_of(facts)} reads {right}")
        return Fail((problem(subject, "T34", evidence, told),))
    return Pass((evidence,))


@clause_check(
    "TALOS-SYSCTL-001",
    title="The kernel accepts the runtime's device filter",
    severity=BLOCKING,
    scope="node",
    reads=("talos",),
    causes=("T36",),
    wants=("nvidia", "injection:legacy"),
    after=("TALOS-EXT-001",),
)
def bpf_hardening_is_relaxed(subject: Subject) -> Judgement:
    """Up to 1.12 libnvidia-container's eBPF program fails to load under the hardened default (facts talos 2, T36)."""
    facts = subject.talos_facts
    tag = tag_of(facts)
    if not does(tag, "bpf_jit_harden_1"):
        return Pass((seen(facts.version, f"{tag} needs no relaxed net.core.bpf_jit_harden"),))
    absent = facts.bpf_jit_harden.state is State.ABSENT  # Talos then leaves the hardened default of 2
    current = 2 if absent else need(facts.bpf_jit_harden, "net.core.bpf_jit_harden")
    evidence = seen(facts.bpf_jit_harden, f"net.core.bpf_jit_harden = {current}{' (not set)' if absent else ''}, {tag}")
    return Pass((evidence,)) if current == 1 else Fail((problem(subject, "T36", evidence),))
