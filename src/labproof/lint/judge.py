"""One call of the linter: read, gather, judge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from labproof.lint.bpg_rules import judge_hcl, judge_plan
from labproof.lint.chart_rules import judge_chart
from labproof.lint.finding import Report, Unreadable
from labproof.lint.gather import gather
from labproof.lint.host_files import judge_modprobe, judge_modules
from labproof.lint.object_rules import judge_object
from labproof.lint.page_rules import judge_page
from labproof.lint.placement import judge_placement
from labproof.lint.pod_rules import judge_pod
from labproof.lint.pods import pods_of
from labproof.lint.scope import Scope
from labproof.lint.sources import Source, read_paths
from labproof.lint.talos_rules import judge_talos
from labproof.lint.together import judge_together


def lint(paths: Iterable[str], plans: Iterable[str] = (), stdin: str | None = None, talos: str | None = None) -> Report:
    """Judge files.

    Args:
        paths: files and folders; `-` for `stdin`.
        plans: files with Terraform's JSON plan.
        stdin: text of the stream that `-` stands for.
        talos: Talos version to assume, `v1.11.6`, where the files do not name one.
    """
    report = Report()
    sources = read_paths(paths, report, stdin)
    judge_sources(sources, report, talos)
    for plan in plans:
        _plan(plan, report)
    report.findings.sort()
    report.not_judged.sort()
    return report


def judge_sources(sources: Sequence[Source], report: Report, talos: str | None = None) -> None:
    """Judge texts that are already read; results go into `report`."""
    for scope in gather(sources, report, talos):
        _judge(scope)


def _judge(scope: Scope) -> None:
    for document in scope.documents:
        judge_talos(document, scope)
        judge_object(document, scope)
    for chart in scope.charts:
        judge_chart(chart, scope)
    for pod in pods_of(scope):
        judge_pod(pod, scope)
        judge_placement(pod, scope)
    by_place = {(source.path, source.first_line): source for source in scope.sources}
    for file in scope.hcl:
        judge_hcl(file, by_place[(file.path, file.body.line)], scope)
    for source in scope.sources:
        if source.language == "modules":
            judge_modules(source, scope)
        elif source.language == "modprobe":
            judge_modprobe(source, scope)
        elif source.language == "markdown":
            judge_page(source, scope)
    judge_together(scope)


def _plan(path: str, report: Report) -> None:
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as refused:
        report.unreadable.append(Unreadable(path, 1, getattr(refused, "strerror", None) or "not UTF-8 text"))
        return
    report.files += 1
    judge_plan(Source(path, text, "plan"), Scope(report))
