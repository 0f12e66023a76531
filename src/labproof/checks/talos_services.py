"""The node's services and its way to `running`: one that never comes up makes the node reboot every 70 minutes."""

from __future__ import annotations

from labproof.catalogue.versions import does
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, clause_check
from labproof.checks.subject import Subject
from labproof.checks.talos_view import bound_to_nvidia, listed, log_evidence, log_lines, problem, seen, tag_of
from labproof.facts.reading import State, need
from labproof.facts.talos import Service, TalosFacts

PERSISTENCED = "ext-nvidia-persistenced"
CDI_GEN = "ext-nvidia-cdi-gen"
NVIDIA_SERVICES = (PERSISTENCED, CDI_GEN, "ext-nvidia-fabricmanager")
BOOT_LIMIT_S = 4200  # a boot sequence that is not done by then ends in a reboot (facts talos 5, BootTimeout)
_TOOLS = ("nvidia-cdi-hook", "nvidia-ctk")


@clause_check(
    "TALOS-SERVICE-001",
    title="The NVIDIA persistence daemon runs",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T11", "T42"),
    wants=("nvidia",),
    after=("TALOS-EXT-003", "TALOS-DRIVER-001", "TALOS-MODULE-001"),
)
def persistence_daemon_runs(subject: Subject) -> Judgement:
    """It waits for /sys/bus/pci/drivers/nvidia: on a node whose driver holds no card it waits for ever (T11)."""
    facts = subject.talos_facts
    daemon = _service(facts, PERSISTENCED)
    evidence = seen(facts.services, _told(daemon, PERSISTENCED))
    if daemon is not None and daemon.state == "Running":
        return Pass((evidence,))
    waiting = log_evidence(facts, log_lines(facts, PERSISTENCED), 1)
    return Fail((problem(subject, "T42" if bound_to_nvidia(facts) else "T11", evidence, *_uptime(facts), *waiting),))


@clause_check(
    "TALOS-SERVICE-002",
    title="Every other extension service is up",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T46", "T58", "T68"),
    after=("TALOS-API-001",),
)
def extension_services_are_up(subject: Subject) -> Judgement:
    """Each of them keeps the boot sequence from ending, so each can reboot a node that holds GPU jobs."""
    facts = subject.talos_facts
    services = need(facts.services, "services of the node")
    extra = [s for s in services if s.id.startswith("ext-") and s.id not in NVIDIA_SERVICES]
    evidence = seen(facts.services, listed(f"{s.id} {s.state}" for s in extra))
    problems: list[Problem] = []
    for service in extra:
        if _is_up(service):
            continue
        cause = "T68"
        if service.id == "ext-qemu-guest-agent" and "virtio-ports" in service.message:
            cause = "T46"
        elif service.id == "ext-rpc-statd" and tag_of(facts).startswith("v1.12."):
            cause = "T58"
        told = seen(facts.services, _told(service, service.id))
        problems.append(problem(subject, cause, told, *_uptime(facts), about=f"{subject.node.name} {service.id}"))
    return verdict_of(problems, (evidence,))


@clause_check(
    "TALOS-STAGE-001",
    title="The node has finished its boot",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T68",),
    after=("TALOS-SERVICE-001", "TALOS-SERVICE-002", "TALOS-CDI-001"),
)
def machine_is_running(subject: Subject) -> Judgement:
    """Kubernetes calls the node Ready while Talos still boots; only the machine's stage tells (facts talos 5)."""
    facts = subject.talos_facts
    stage = need(facts.stage, "machine status")
    unmet = f"; unmet: {listed(stage.unmet)}" if stage.unmet else ""
    evidence = seen(facts.stage, f"stage {stage.stage}, ready {str(stage.ready).lower()}{unmet}")
    if stage.stage == "running" and stage.ready:
        return Pass((evidence, *_uptime(facts)))
    stuck = [s for s in facts.services.value or () if not _is_up(s)]
    told = tuple(seen(facts.services, _told(s, s.id)) for s in stuck[:3])
    return Fail((problem(subject, "T68", evidence, *told, *_uptime(facts)),))


@clause_check(
    "TALOS-CDI-001",
    title="The CDI specification of the card is there",
    severity=BLOCKING,
    scope="node",
    reads=("talos",),
    causes=("T38", "T39"),
    wants=("nvidia", "injection:cdi"),
    after=("TALOS-DEVICE-002", "TALOS-SERVICE-001"),
)
def cdi_specification_exists(subject: Subject) -> Judgement:
    """From 1.13 a one-shot service writes /run/cdi/nvidia.yaml; its hooks run on the host from /usr/bin."""
    facts = subject.talos_facts
    tag = tag_of(facts)
    if not does(tag, "cdi"):
        told = seen(facts.version, f"{tag}: cdi_spec_dirs has the read-only /etc/cdi, and no service writes a spec")
        return Fail((problem(subject, "T39", told),))
    generator = _service(facts, CDI_GEN)
    state = seen(facts.services, _told(generator, CDI_GEN))
    specs = facts.cdi_specs.value or ()
    if facts.cdi_specs.state is not State.ABSENT:
        need(facts.cdi_specs, "CDI specifications of the node")
    found = seen(facts.cdi_specs, listed(specs))
    if generator is None or generator.state != "Finished" or "nvidia.yaml" not in specs:
        return Fail((problem(subject, "T39", state, found),))
    tools = need(facts.host_tools, "tools in /usr/bin")
    missing = [name for name in _TOOLS if name not in tools]
    if missing:
        told = seen(facts.host_tools, f"/usr/bin lacks {listed(missing)}")
        return Fail((problem(subject, "T38", told, found),))
    return Pass((state, found))


def _service(facts: TalosFacts, ident: str) -> Service | None:
    services = need(facts.services, "services of the node")
    return next((s for s in services if s.id == ident), None)


def _is_up(service: Service) -> bool:
    """As the boot sequence sees it; a one-shot service ends as Finished."""
    return service.state in ("Running", "Finished", "Skipped") and service.healthy is not False


def _told(service: Service | None, ident: str) -> str:
    if service is None:
        return f"{ident}: no such service"
    return f"{ident} {service.state}: {service.message}" if service.message else f"{ident} {service.state}"


def _uptime(facts: TalosFacts) -> tuple[Evidence, ...]:
    """How long the node is up; a boot that never ends is cut off at 4200 s, again and again."""
    booted = facts.boot_time.value
    if booted is None:
        return ()
    seconds = int(facts.at - booted)
    note = " (a boot that does not finish is cut off at 4200 s)" if seconds < BOOT_LIMIT_S + 100 else ""
    return (seen(facts.boot_time, f"up for {seconds} s{note}"),)
