"""The running kernel: no known regression for this card, and the one that was pinned."""

from __future__ import annotations

from labproof.checks.host_devices import card_of, seen
from labproof.checks.host_group import foreign_members
from labproof.checks.host_kernels import BadBuild, bad_builds
from labproof.checks.judgement import Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.registry import DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.reading import need
from labproof.inventory.chains import Target

#: P15 is the last: it concerns any card, so it is never a mere note.
REGRESSIONS = ("P11", "P12", "P13", "P14", "P15")
PIN_FILES = ("/etc/kernel/next-boot-pin", "/etc/kernel/proxmox-boot-pin")


def concerns(subject: Subject, build: BadBuild) -> bool:
    """Whether a bad build breaks this chain's card: a version alone is no symptom."""
    card = card_of(subject)
    if card is None:
        return False
    if build.concerns == "virtual-function":
        return card.physfn is not None
    if build.concerns == "intel-igpu":
        return card.address == "0000:00:02.0" and card.ids.startswith("8086:")
    if build.concerns == "amdgpu":
        return card.driver == "amdgpu"
    if build.concerns == "shared-group":
        return bool(foreign_members(subject, card))
    return True


@clause_check(
    "HOST-KERNEL-001",
    title="The kernel has no regression that hits this GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("host",),
    causes=REGRESSIONS,
    after=("HOST-DEVICE-001",),
)
def kernel_suits_the_gpu(subject: Subject) -> Judgement:
    """H15: a listed build together with the kind of card it breaks."""
    release = need(subject.host_facts.kernel, "kernel version")
    shown = seen(subject, "uname -r", release)
    problems = []
    for build in bad_builds():
        if build.matches(release) and concerns(subject, build):
            why = seen(subject, "uname -r", f"{release}: {build.why}")
            values = (("host", subject.host.name), ("address", subject.chain.gpu.address or ""))
            problems.append(Problem(build.cause, f"{subject.host.name}: {release}", (why,), values))
    return verdict_of(problems, (shown,))


@clause_check(
    "HOST-KERNEL-002",
    title="The kernel is not a build with passthrough regressions",
    severity=HYGIENE,
    scope="host",
    reads=("host",),
    causes=REGRESSIONS[:-1],
)
def kernel_is_not_listed(subject: Subject) -> Judgement:
    """H15, as a note: a listed build that does not hit any card declared on this host."""
    release = need(subject.host_facts.kernel, "kernel version")
    problems = []
    for build in bad_builds():
        hit = [c for c in subject.target.chains if concerns(_seen_from(subject, c.id), build)]
        if build.matches(release) and not hit and build.concerns != "any":
            why = seen(subject, "uname -r", f"{release}: {build.why} (concerns {build.concerns})")
            problems.append(
                Problem(build.cause, f"{subject.host.name}: {release}", (why,), (("host", subject.host.name),))
            )
    return verdict_of(problems, (seen(subject, "uname -r", release),))


def _seen_from(subject: Subject, chain_id: str) -> Subject:
    chains = tuple(c for c in subject.target.chains if c.id == chain_id)
    return Subject(subject.facts, subject.lab, Target("chain", chain_id, chains))


@clause_check(
    "HOST-KERNEL-003",
    title="The running kernel is the pinned one",
    severity=DEGRADED,
    scope="host",
    reads=("host",),
    causes=("P61",),
    wants=("host:proxmox",),
)
def pinned_kernel_runs(subject: Subject) -> Judgement:
    """P61: a pin that names an installed kernel, while another one runs."""
    host = subject.host_facts
    release = need(host.kernel, "kernel version")
    pins = {f.path: f.lines[0].strip() for f in need(host.boot_files, "boot loader files") if f.lines}
    file = next((path for path in PIN_FILES if path in pins), None)
    if file is None:
        return Pass((seen(subject, f"cat {PIN_FILES[1]}", "no kernel is pinned"),))
    pin = pins[file]
    shown = seen(subject, f"cat {file}; uname -r", f"pinned {pin}, running {release}")
    installed = need(host.installed_kernels, "installed kernels")
    # a next-boot pin is meant for the boot to come
    if pin == release or pin not in installed or file == PIN_FILES[0]:
        return Pass((shown,))
    return Fail((Problem("P61", subject.host.name, (shown,), (("host", subject.host.name),)),))
