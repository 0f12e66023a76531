"""POD-DRI, POD-VA, POD-OPENCL: what a pod gets of an Intel or AMD GPU, by opening and asking, never by a name."""

from __future__ import annotations

import re

from labproof.catalogue.media import PROFILES, MediaRow, media_row
from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, Unchecked, verdict_of
from labproof.checks.registry import BLOCKING, DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.checks.workload_view import pod_label, values_of
from labproof.facts.dri import DriNode, DriSeen, VaInfo
from labproof.facts.reading import need

ENCODE = ("VAEntrypointEncSlice", "VAEntrypointEncSliceLP", "VAEntrypointEncPicture")


def _dri(subject: Subject) -> DriSeen:
    return need(subject.workload_facts.dri, "DRM nodes in the pod")


def _where(subject: Subject) -> str:
    return f"probe pod on {subject.node.name}"


def _row(node: DriNode) -> str:
    owner = f"{node.mode} {node.uid}:{node.gid}"
    return f"{node.path} {owner} {node.vendor_device or '?'} {node.driver} {node.address}".strip()


@clause_check(
    "POD-DRI-001",
    title="The pod has the render node of the declared GPU",
    severity=BLOCKING,
    scope="chain",
    reads=("workload",),
    causes=("W29", "W45"),
    wants=("dri",),
    after=("POD-RUN-001",),
)
def pod_has_the_render_node(subject: Subject) -> Judgement:
    """By the PCI device behind each node: the number may be another card's (facts transcode W45)."""
    facts, dri = subject.workload_facts, _dri(subject)
    seen = tuple(Evidence("ls -ln /dev/dri; sysfs", _row(n)) for n in dri.nodes) or (
        Evidence(facts.dri.source, "no DRM node in the pod"),
    )
    if dri.render_node(subject.chain.gpu.device) is not None:
        return Pass(seen)
    cause = "W45" if any(n.is_render for n in dri.nodes) else "W29"
    return Fail((Problem(cause, _where(subject), seen, values_of(subject, facts.probe.value)),))


@clause_check(
    "POD-DRI-002",
    title="The pod's user can open the render node",
    severity=BLOCKING,
    scope="chain",
    reads=("workload",),
    causes=("K53", "W30", "W90"),
    wants=("dri",),
    after=("POD-DRI-001",),
)
def render_node_opens(subject: Subject) -> Judgement:
    """Opened for reading and writing: nothing adds a group to the pod, the node keeps the host's owner (V16).

    EPERM is the device cgroup (a hostPath without a plugin), EACCES the mode; then the remedy is the group's number.
    """
    facts = subject.workload_facts
    node = _dri(subject).render_node(subject.chain.gpu.device)
    if node is None:
        return Unchecked("the pod has no render node to open")
    user = f"uid {facts.uid.value}" if facts.uid.value is not None else "the pod's user"
    said = "opens for reading and writing" if node.opens else _refusal(node)
    seen = Evidence(f"open {node.path} as {user}", f"{node.mode} {node.uid}:{node.gid}, {said}")
    if node.opens:
        return Pass((seen,))
    values = values_of(subject, facts.probe.value)
    if "Operation not permitted" in said:
        return Fail((Problem("W90", _where(subject), (seen,), values),))
    return Fail((Problem("W30" if node.gid else "K53", _where(subject), (seen,), values),))


def _refusal(node: DriNode) -> str:
    failed = node.opened_read if not node.opened_read.ok else node.opened_write
    line = next((text for text in failed.stderr.splitlines() if "open" in text), "")
    return line.strip() or failed.said(160)


@clause_check(
    "POD-DRI-003",
    title="The GPU's render node is the first one",
    severity=HYGIENE,
    scope="chain",
    reads=("workload",),
    causes=("K54",),
    wants=("dri",),
    after=("POD-DRI-001",),
)
def render_node_is_the_first(subject: Subject) -> Judgement:
    """VA-API programs take renderD128 when nobody tells them; with another number each app has to be told."""
    node = _dri(subject).render_node(subject.chain.gpu.device)
    if node is None:
        return Unchecked("the pod has no render node")
    seen = Evidence("ls -ln /dev/dri; sysfs", _row(node))
    if node.path == "/dev/dri/renderD128":
        return Pass((seen,))
    values = values_of(subject, subject.workload_facts.probe.value)
    return Fail((Problem("K54", _where(subject), (seen,), values),))


@clause_check(
    "POD-DRI-004",
    title="A pod that asks for no GPU gets no DRM node",
    severity=DEGRADED,
    scope="chain",
    reads=("workload",),
    causes=("K101",),
    wants=("dri",),
)
def no_node_without_a_request(subject: Subject) -> Judgement:
    """A pod of ours without a request or a claim: whatever is under its /dev/dri came past the scheduler."""
    facts = subject.workload_facts
    leak = need(facts.leak, "pod without a request")
    paths = need(leak.dri, "DRM nodes in the pod without a request")
    seen = Evidence(f"{leak.pod.role} pod: ls -ln /dev/dri", ", ".join(paths) or "no DRM node")
    if not paths:
        return Pass((seen,))
    return Fail((Problem("K101", pod_label(leak.pod), (seen,), values_of(subject, leak.pod)),))


# ------------------------------------------------------------------ libva

_LIBVA: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("W35", re.compile(r"undefined symbol")),
    ("W32", re.compile(r"_drv_video\.so init failed|vaGetDriverNames\(\) failed")),
    ("W33", re.compile(r"va_openDriver\(\) returns -1")),
)


def _vainfo(subject: Subject) -> VaInfo:
    return need(subject.workload_facts.vainfo, "vainfo")


@clause_check(
    "POD-VA-001",
    title="libva loads a driver for the GPU",
    severity=BLOCKING,
    scope="chain",
    reads=("workload",),
    causes=("W32", "W33", "W35", "W44"),
    wants=("dri", "vainfo"),
    after=("POD-DRI-002",),
)
def libva_loads_a_driver(subject: Subject) -> Judgement:
    """The driver that opens in the end counts: on Haswell iHD fails before i965 opens (media-driver#1653)."""
    facts, told = subject.workload_facts, _vainfo(subject)
    values = values_of(subject, facts.probe.value)
    lines = tuple(Evidence(told.ran.line(), line) for line in told.lines[-6:])
    if not told.driver:
        text = "\n".join(told.lines)
        cause = next((c for c, pattern in _LIBVA if pattern.search(text)), "W32")
        row = media_row(subject.chain.gpu.device)
        if cause == "W32" and row is not None and set(row.libva) <= _not_there(told.lines):
            cause = "W33"  # what failed is a driver for other chips; those for this one are not in the image
        return Fail((Problem(cause, _where(subject), lines, values),))
    seen = Evidence(told.ran.line(), f"{told.driver}, {len(told.pairs)} profile and entry point pairs")
    if not any(entrypoint == "VAEntrypointVLD" or entrypoint in ENCODE for _, entrypoint in told.pairs):
        return Fail((Problem("W44", _where(subject), (seen,), values),))
    return Pass((seen,))


def _not_there(lines: tuple[str, ...]) -> set[str]:
    """Names of the libva drivers whose file could not be opened."""
    missing, tried = set(), ""
    for line in lines:
        found = re.search(r"Trying to open \S*/(\w+)_drv_video\.so", line)
        if found:
            tried = found[1]
        elif "va_openDriver() returns -1" in line:
            missing.add(tried)
    return missing


@clause_check(
    "POD-VA-002",
    title="libva offers what the GPU can do",
    severity=DEGRADED,
    scope="chain",
    reads=("workload",),
    causes=("W91", "W92"),
    wants=("dri", "vainfo"),
    after=("POD-VA-001",),
)
def libva_offers_the_abilities(subject: Subject) -> Judgement:
    """vainfo against the table of media engines: what the generation has and the driver does not show.

    VP9 by the low-power engine is hidden without HuC, which i915 leaves off on Tiger Lake: it is expected only where
    lab.yaml wants low-power encoding (facts transcode 3.2).
    """
    facts, told = subject.workload_facts, _vainfo(subject)
    row = media_row(subject.chain.gpu.device)
    if row is None:
        device = subject.chain.gpu.device
        return Unchecked(f"no capability data for {device}: add its id to a generation in catalogue/media.yaml")
    lost_encode, lost_decode = _missing(row, told, huc=subject.cluster.transcode.low_power)
    seen = Evidence(told.ran.line(), f"{told.driver}: {row.name}, {_said(lost_encode, lost_decode)}")
    values = values_of(subject, facts.probe.value)
    problems = []
    if lost_encode:
        problems.append(Problem("W91", _where(subject), (seen,), values))
    if lost_decode:
        problems.append(Problem("W92", _where(subject), (seen,), values))
    return verdict_of(problems, (seen,))


def _missing(row: MediaRow, told: VaInfo, *, huc: bool) -> tuple[list[str], list[str]]:
    """Codecs of the table that vainfo does not show: to encode, to decode."""
    encode = [c for c in row.encode if not (c in row.huc and not huc) and not told.offers(PROFILES[c], *ENCODE)]
    decode = [c for c in row.decode if not told.offers(PROFILES[c], "VAEntrypointVLD")]
    return encode, decode


def _said(encode: list[str], decode: list[str]) -> str:
    if not encode and not decode:
        return "all codecs of the table are there"
    return f"missing to encode: {', '.join(encode) or 'none'}; to decode: {', '.join(decode) or 'none'}"


# ------------------------------------------------------------------ OpenCL


@clause_check(
    "POD-OPENCL-001",
    title="OpenCL works on the GPU",
    severity=DEGRADED,
    scope="chain",
    reads=("workload",),
    causes=("W31", "W93"),
    wants=("dri", "compute", "own-pod"),
    after=("POD-DRI-002", "POD-VA-001"),
)
def opencl_works(subject: Subject) -> Judgement:
    """A filter on an OpenCL device derived from the VA-API one; it opens the by-path entry, not the number (W31)."""
    facts = subject.workload_facts
    ran = need(facts.opencl, "OpenCL filter")
    values = values_of(subject, facts.probe.value)
    if ran.ok:
        return Pass((Evidence(ran.line(), "frames went through an OpenCL filter"),))
    lines = [
        text for text in ran.stderr.splitlines() if "OPENCL" in text or "Device creation" in text or "rror" in text
    ]
    seen = Evidence(ran.line(), " / ".join(lines[-3:]) or ran.said())
    va_works = "Initialised VAAPI connection" in ran.stderr
    groups = any(n.gid or not n.opens for n in _dri(subject).nodes)
    return Fail((Problem("W31" if va_works and groups else "W93", _where(subject), (seen,), values),))
