"""What the installed image carries: the NVIDIA pair, of one branch, for this release, and the declared schematic."""

from __future__ import annotations

from labproof.catalogue.schematic import DEFAULT_ID, NotComputable, id_of_extensions, id_of_text
from labproof.catalogue.versions import installed_name, parse_tag, shipped_driver
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.checks.talos_view import (
    branch_of,
    driver_of,
    kmods,
    listed,
    log_evidence,
    log_lines,
    problem,
    seen,
    tag_of,
    toolkits,
)
from labproof.facts.reading import State, need
from labproof.facts.talos import TalosFacts

_LIST = "            - siderolabs/"


@clause_check(
    "TALOS-EXT-001",
    title="The NVIDIA extensions are installed, one of each",
    severity=BLOCKING,
    scope="node",
    reads=("talos",),
    causes=("T01", "T02", "T08", "T09", "T62"),
    wants=("nvidia",),
    after=("TALOS-API-001",),
)
def nvidia_extensions_are_installed(subject: Subject) -> Judgement:
    """One kernel module extension (open or proprietary) and one container toolkit."""
    facts = subject.talos_facts
    extensions = need(facts.extensions, "extensions of the node")
    modules, tools = kmods(extensions), toolkits(extensions)
    evidence = seen(facts.extensions, f"extensions: {listed(f'{e.name} {e.version}' for e in extensions)}")
    if len(modules) == 1 and len(tools) == 1:
        return Pass((evidence,))
    remedy = _upgrade_remedy(subject, facts)
    if len(modules) > 1:
        return Fail((problem(subject, "T09", evidence, remedy=remedy),))
    if modules or tools:
        return Fail((problem(subject, "T08", evidence, remedy=remedy),))
    cause, told = _why_no_extension(facts)
    return Fail((problem(subject, cause, evidence, seen(facts.schematic, told), remedy=remedy),))


def _why_no_extension(facts: TalosFacts) -> tuple[str, str]:
    """Which image has no NVIDIA extension at all: none of the factory's, the empty one, or another one."""
    schematic = facts.schematic.value
    if facts.schematic.state is State.ABSENT:
        return "T02", "no schematic: the node runs a plain installer image"
    if schematic is not None and schematic.id == DEFAULT_ID:
        # From 1.14 on the default image of an upgrade is the factory's empty one (facts talos 5).
        dropped = parse_tag(tag_of(facts)) >= (1, 14, 0)
        return ("T02" if dropped else "T62"), f"schematic {schematic.id}: the empty one"
    return "T01", f"schematic {schematic.id if schematic else 'unknown'}"


@clause_check(
    "TALOS-EXT-002",
    title="Driver and toolkit are of one branch",
    severity=BLOCKING,
    scope="node",
    reads=("talos",),
    causes=("T07",),
    wants=("nvidia",),
    after=("TALOS-EXT-001",),
)
def driver_and_toolkit_agree(subject: Subject) -> Judgement:
    """The driver part of both versions is equal, and so is the branch suffix (facts talos 2, the invariant)."""
    facts = subject.talos_facts
    extensions = need(facts.extensions, "extensions of the node")
    pair = (*kmods(extensions), *toolkits(extensions))
    evidence = seen(facts.extensions, listed(f"{e.name} {e.version}" for e in pair))
    if len({driver_of(e) for e in pair}) == 1 and len({branch_of(e) for e in pair}) == 1:
        return Pass((evidence,))
    mismatch = log_evidence(facts, log_lines(facts, "API mismatch"))
    return Fail((problem(subject, "T07", evidence, *mismatch),))


@clause_check(
    "TALOS-EXT-003",
    title="The kernel modules are built for the running Talos",
    severity=BLOCKING,
    scope="node",
    reads=("talos",),
    causes=("T12",),
    wants=("nvidia",),
    after=("TALOS-EXT-001",),
)
def kmod_is_built_for_this_release(subject: Subject) -> Judgement:
    """Modules are signed with a key of one kernel build: the version's suffix is the running release's tag."""
    facts = subject.talos_facts
    tag = tag_of(facts)
    extensions = need(facts.extensions, "extensions of the node")
    modules = kmods(extensions)
    shipped = [f"{b} {shipped_driver(tag, b)}" for e in modules if (b := branch_of(e)) and shipped_driver(tag, b)]
    note = f"; {tag} ships {listed(shipped)}" if shipped else ""
    evidence = seen(facts.extensions, f"{listed(f'{e.name} {e.version}' for e in modules)} on {tag}{note}")
    rejected = log_lines(facts, "key was rejected by service", "module with unavailable key is rejected")
    if rejected or any(not e.version.endswith(f"-{tag}") for e in modules):
        return Fail((problem(subject, "T12", evidence, *log_evidence(facts, rejected)),))
    return Pass((evidence,))


@clause_check(
    "TALOS-EXT-004",
    title="Every declared extension is installed",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T69",),
    after=("TALOS-EXT-001",),
)
def declared_extensions_are_installed(subject: Subject) -> Judgement:
    """Storage and guest agent extensions get lost when a schematic is made anew for the GPU (guide 002)."""
    facts = subject.talos_facts
    talos = subject.node.talos
    names = frozenset(e.name for e in need(facts.extensions, "extensions of the node"))
    declared = talos.extensions if talos else ()
    missing = [name for name in declared if installed_name(name, names) not in names]
    evidence = seen(facts.extensions, f"installed: {listed(sorted(names))}")
    if not missing:
        return Pass((evidence,))
    wanted = Evidence("lab.yaml", f"extensions: {listed(declared)}; missing: {listed(missing)}")
    return Fail((problem(subject, "T69", evidence, wanted, remedy=_upgrade_remedy(subject, facts)),))


@clause_check(
    "TALOS-SCHEMATIC-001",
    title="The node runs the declared schematic",
    severity=DEGRADED,
    scope="node",
    reads=("talos",),
    causes=("T03",),
    after=("TALOS-EXT-001", "TALOS-EXT-004"),
)
def schematic_is_the_declared_one(subject: Subject) -> Judgement:
    """The id is recomputed offline from the declared list; a list in another order is another clause's subject."""
    facts = subject.talos_facts
    talos = subject.node.talos
    if facts.schematic.state is State.ABSENT:
        if talos is None or not (talos.schematic or talos.extensions):
            return Pass((seen(facts.schematic, "not a factory image, and lab.yaml declares no schematic"),))
        if talos.schematic is None:
            return Pass((seen(facts.schematic, "not a factory image; the extensions are judged one by one"),))
    running = facts.schematic.value
    here = seen(facts.schematic, f"running schematic {running.id if running else 'none'}")
    problems: list[Problem] = []
    if running is not None and running.text and id_of_text(running.text) != running.id:
        problems.append(problem(subject, "T03", here, seen(facts.schematic, "its text does not hash to its id")))
    expected = _expected_id(subject)
    if running is None:
        need(facts.schematic, "schematic of the node")
    elif expected is not None and running.id != expected and not _only_list_order(subject, running.text):
        declared = Evidence("lab.yaml", f"schematic {expected}")
        problems.append(problem(subject, "T03", here, declared, remedy=_upgrade_remedy(subject, facts)))
    return verdict_of(problems, (here,))


@clause_check(
    "TALOS-SCHEMATIC-002",
    title="The schematic lists the extensions in the declared order",
    severity=HYGIENE,
    scope="node",
    reads=("talos",),
    causes=("T06",),
    after=("TALOS-EXT-001", "TALOS-EXT-004", "TALOS-SCHEMATIC-001"),
)
def schematic_lists_in_declared_order(subject: Subject) -> Judgement:
    """The id depends on the order of the list: the same set in another order never compares equal."""
    facts = subject.talos_facts
    running, expected = facts.schematic.value, _expected_id(subject)
    if running is None or expected is None or running.id == expected:
        shown = running.id if running else facts.schematic.why
        return Pass((seen(facts.schematic, f"running schematic {shown}"),))
    talos = subject.node.talos
    told = Evidence("lab.yaml", f"{expected} for {listed(talos.extensions if talos else ())}")
    if _list_in(running.text) == _full_names(subject):
        return Pass((seen(facts.schematic, "the list is equal; the schematic has further settings"),))
    here = seen(facts.schematic, f"{running.id} for {listed(_list_in(running.text))}")
    return Fail((problem(subject, "T06", here, told),))


def _upgrade_remedy(subject: Subject, facts: TalosFacts) -> str:
    """The upgrade to type, with the id of what lab.yaml declares; empty (the catalogue's) when it cannot be told."""
    expected, talos = _expected_id(subject), subject.node.talos
    if expected is None or talos is None:
        return ""
    tag, node = talos.version or tag_of(facts), subject.node.name
    platform = facts.version.value.platform if facts.version.value else "metal"
    image = f"factory.talos.dev/{platform or 'metal'}-installer/{expected}:{tag}"
    origin = (
        "declared in lab.yaml" if talos.schematic else f"of this list, in this order: {listed(_full_names(subject))}"
    )
    return (
        f"1. The schematic is the one {origin}; submit it once to the Image Factory,\n"
        "   which must answer with the id below.\n"
        f"2. `talosctl upgrade -n {node} --image {image}`\n"
        f"3. `talosctl get extensions -n {node}` must show that id; put the same image into machine.install.image."
    )


def _full_names(subject: Subject) -> tuple[str, ...]:
    talos = subject.node.talos
    return tuple(name.removeprefix("siderolabs/") for name in (talos.extensions if talos else ()))


def _expected_id(subject: Subject) -> str | None:
    """The declared id, or the one of the declared list; None when neither is declared or it cannot be told."""
    talos = subject.node.talos
    if talos is None:
        return None
    if talos.schematic is not None:
        return talos.schematic
    if not talos.extensions:
        return None
    try:
        return id_of_extensions(talos.extensions)
    except NotComputable:
        return None


def _list_in(text: str) -> tuple[str, ...]:
    """The extension list of a canonical schematic."""
    return tuple(line.removeprefix(_LIST) for line in text.splitlines() if line.startswith(_LIST))


def _only_list_order(subject: Subject, text: str) -> bool:
    """Whether the running schematic holds the declared extensions and differs only in order or further settings."""
    declared = _full_names(subject)
    return bool(declared) and bool(text) and sorted(_list_in(text)) == sorted(declared)
