"""Pages of the documentation site that are made from the code: a page per cause, the clauses of each layer, lab.yaml.

`labproof catalogue --pages DIR` writes them; the site's build hook makes them while it builds. They are not committed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from labproof.catalogue.causes import Cause, causes
from labproof.checks.registry import LAYERS, Clause, clauses
from labproof.cli.catalogue_page import statements
from labproof.cli.lab_reference import lab_reference, labs_page
from labproof.report.markdown import fence, plain
from labproof.report.wording import LAYERS as HEADINGS

if TYPE_CHECKING:
    from labproof.simlab.faults import Fault

#: What each fault's clause saw, recorded by `python -m selftests.docs.record_evidence`.
EVIDENCE = Path(__file__).parent.parent / "catalogue" / "evidence.json"
SERIES = {"P": "Proxmox host and VM", "T": "Talos Linux", "N": "another node OS", "K": "Kubernetes", "W": "workload"}
#: Most recordings a cause page shows; further faults are only named.
SHOWN = 3


def pages() -> dict[str, str]:
    """Markdown by path in the site: causes/, clauses/, lab-yaml.md, labs.md."""
    faults: dict[str, list[Fault]] = {}
    from labproof.simlab.faults import load_faults

    for fault in load_faults().values():
        for ident in dict.fromkeys((fault.cause, *fault.also_causes)):
            faults.setdefault(ident, []).append(fault)
    seen = json.loads(EVIDENCE.read_text("utf-8"))
    named: dict[str, list[Clause]] = {}
    for clause in clauses().values():
        for ident in clause.causes:
            named.setdefault(ident, []).append(clause)
    found = {"causes/index.md": _causes_index(named, faults), "clauses/index.md": _clauses_index()}
    for cause in causes().values():
        found[f"causes/{cause.id}.md"] = _cause(cause, named.get(cause.id, []), faults.get(cause.id, []), seen)
    for layer in LAYERS:
        found[f"clauses/{layer}.md"] = _layer(layer)
    found["lab-yaml.md"], found["labs.md"] = lab_reference(), labs_page()
    return found


def write_pages(folder: Path) -> int:
    """Write all pages under a folder; returns how many."""
    made = pages()
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return len(made)


def _cause(cause: Cause, named: list[Clause], faults: list[Fault], seen: dict[str, list[dict[str, str]]]) -> str:
    lines = [
        "---",
        f"title: {json.dumps(f'{cause.id} {cause.title}')}",
        f"description: {json.dumps(cause.impact)}",
        "---",
        f"# {cause.id} {plain(cause.title)}",
        "",
        f"*{cause.severity}*, {SERIES[cause.id[0]]}. [All causes](index.md)",
        "",
        "## Symptom",
        "",
    ]
    if named:
        lines += ["What no longer holds, and is red in the report when this is why:", ""]
        for clause in named:
            lines.append(f"- {_link(clause)} {plain(statements().get(clause.id, clause.title), 2000)}")
    else:
        lines.append(
            "No clause names this cause yet: labproof does not find it by itself. The remedy stands all the same."
        )
    lines += ["", "## Evidence", ""]
    recorded = [f for f in faults if f.id in seen and f.cause == cause.id]
    if recorded:
        lines += ["What labproof saw when this was brought about in the simulated lab:", ""]
    for fault in recorded[:SHOWN]:
        lines += [f"{plain(fault.title)}:", ""]
        for item in seen[fault.id]:
            lines += [*fence(f"{item['source']}\n{item['text']}".strip()), ""]
    if not recorded:
        why = f" Not simulated because {plain(cause.not_simulated, 2000)}." if cause.not_simulated else ""
        unproven = f"No fault of the simulated labs brings it about (*unproven*), so there is nothing to show.{why}"
        lines += ["Not recorded yet; try it below." if faults else unproven, ""]
    lines += ["## Why", "", plain(cause.impact, 2000), "", "## Fix", ""]
    lines += ["Names in angle brackets are your lab's; a report fills them in.", "", *fence(cause.advice({})), ""]
    if faults:
        lines += ["## Try it", "", *_tries(faults), ""]
    return "\n".join([*lines, "## Source", "", plain(cause.source, 2000)]) + "\n"


def _tries(faults: list[Fault]) -> list[str]:
    lines = ["```sh"]
    for fault in faults:
        variation = f" --variation={fault.variation}" if fault.variation else ""
        layers = f' -m "{" or ".join(fault.layers)}"' if fault.layers else ""
        lines.append(f"pytest --sim={fault.lab}{variation} --fault={fault.id}{layers}")
    return [*lines, "```"]


def _causes_index(named: dict[str, list[Clause]], faults: dict[str, list[Fault]]) -> str:
    lines = [
        "# Causes",
        "",
        f"{len(causes())} known reasons why a GPU does not reach a pod. {len(set(causes()) & set(faults))} of them are",
        "*proven*: a fault of the simulated lab brings them about, and a clause names them. The search finds texts.",
        "",
    ]
    for letter, heading in SERIES.items():
        lines += [f"## {heading}", "", "| Cause | Severity | State | Clauses |", "| --- | --- | --- | --- |"]
        for cause in (c for c in causes().values() if c.id[0] == letter):
            state = "proven" if cause.id in faults else "unproven"
            links = ", ".join(_link(c) for c in named.get(cause.id, []))
            lines.append(f"| [{cause.id} {plain(cause.title)}]({cause.id}.md) | {cause.severity} | {state} | {links} |")
        lines.append("")
    return "\n".join(lines)


def _clauses_index() -> str:
    lines = [
        "# Clauses",
        "",
        "A clause is one thing that must hold, and one test in `suites/`. *blocking*: the GPU cannot work now.",
        "*degraded*: it works, but slower, fragile, or not after the next boot. *hygiene*: listed, never red.",
        "",
        "| Layer | Clauses | Run alone |",
        "| --- | --- | --- |",
    ]
    for layer in LAYERS:
        count = sum(c.layer == layer for c in clauses().values())
        lines.append(f"| [{HEADINGS.get(layer, layer)}]({layer}.md) | {count} | `pytest -m {layer}` |")
    return "\n".join(lines) + "\n"


def _layer(layer: str) -> str:
    lines = [f"# Clauses: {HEADINGS.get(layer, layer)}", "", f"`pytest -m {layer}`", ""]
    for clause in (c for c in clauses().values() if c.layer == layer):
        lines += [
            f"## {clause.id} {plain(clause.title)} {{#{clause.id}}}",
            "",
            plain(statements().get(clause.id, ""), 2000),
            "",
        ]
        lines += [f"- {clause.severity}, once per {clause.scope}; reads {', '.join(clause.reads)}"]
        lines += [f"- only where lab.yaml declares: {', '.join(clause.wants)}"] if clause.wants else []
        lines += [f"- needs the right: {clause.needs_right}"] if clause.needs_right else []
        lines += ["- why it can fail:"]
        for ident in clause.causes:
            lines.append(f"    - [{ident} {plain(causes()[ident].title)}](../causes/{ident}.md)")
        lines.append("")
    return "\n".join(lines)


def _link(clause: Clause) -> str:
    return f"[{clause.id}](../clauses/{clause.layer}.md#{clause.id})"
