"""What Allure shows of a run: numbered layers, targets in titles, remedies in descriptions, categories by cause.

allure-pytest writes the results; this module gives it labels and texts, and adds the three files it reads beside them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labproof import __version__
from labproof.facts.atomic import write_text
from labproof.report.wording import ending, numbered

if TYPE_CHECKING:
    import pytest

    from labproof.checks.registry import Clause

#: Our severities in Allure's words.
SEVERITIES = {"blocking": "blocker", "degraded": "normal", "hygiene": "minor"}
#: Order matters: Allure puts a result into every category that matches.
_VERDICTS = (
    ("Unchecked: could not be judged", ["broken"], ".*"),
    ("Blocked by a broken layer below", ["skipped"], r"[\s\S]*blocked by [\s\S]*"),
    ("Accepted in lab.yaml", ["skipped"], r"[\s\S]*(XFAIL|xfail|accepted)[\s\S]*"),
)


def label_item(item: pytest.Item, clause: Clause, target: str) -> None:
    """Give a collected test its place, title and description; the tree sorts by text, so layers carry their number.

    The description is a mark set now: `allure.dynamic.description` in a set-up is overwritten by the docstring
    (tried: ecosystem 2).
    """
    import pytest

    layer = numbered(clause.layer)
    labels = {
        "epic": layer,
        "feature": f"{layer}: {target}",
        "story": clause.id,
        "parentSuite": layer,
        "suite": target,
        "severity": SEVERITIES.get(str(clause.severity), "normal"),
    }
    for kind, text in labels.items():
        item.add_marker(pytest.mark.allure_label(text, label_type=kind))
    function = getattr(item, "function", None)
    if function is not None:
        plain = clause.title.replace("{", "(").replace("}", ")")
        function.__allure_display_name__ = f"{clause.id} {plain} [{{param_id}}]"
    item.add_marker(pytest.mark.allure_description(_before(clause, item)))


def describe_item(item: pytest.Item, record: dict[str, Any]) -> None:
    """Once it is judged: what MUST hold, and for a failure cause, evidence, remedy and source, as Markdown.

    Called while the item is set up; allure-pytest reads marks and parameters after that.
    """
    import allure
    import pytest

    allure.dynamic.parameter("target", record["target"])
    item.add_marker(pytest.mark.allure_description(description(record)), append=False)


def description(record: dict[str, Any]) -> str:
    """Markdown of one verdict."""
    from labproof.report.markdown import fence, plain

    parts = [plain(record["statement"] or record["title"], 4000), f"Verdict: **{record['verdict']}**"]
    if record["reason"]:
        parts.append(plain(record["reason"], 4000))
    if record["exception"]:
        parts.append(f"Accepted: {plain(record['exception'])}")
    for p in record["problems"]:
        parts.append(f"### {p['cause']} {plain(p['title'])} ({plain(p['subject'])})\n\n{plain(p['impact'], 4000)}")
        parts += ["\n".join(fence(f"{e['source']}\n{e['text']}")) for e in p["evidence"][:4]]
        parts.append("**Remedy**\n\n" + "\n".join(fence(p["remedy"])))
        parts.append(f"Source: {plain(p['source'])}")
    if not record["problems"]:
        parts += ["\n".join(fence(f"{e['source']}\n{e['text']}")) for e in record["evidence"][:4]]
    return "\n\n".join(parts)


def _before(clause: Clause, item: pytest.Item) -> str:
    from labproof.catalogue.causes import causes

    text = (getattr(getattr(item, "function", None), "__doc__", None) or clause.title).strip().split("\n\n", 1)[0]
    known = causes()
    named = "\n".join(f"- {c}: {known[c].title}" for c in clause.causes if c in known)
    return f"{' '.join(text.split())}\n\nWhat can break it:\n\n{named}"


def write_surroundings(folder: Path, result: dict[str, Any]) -> None:
    """environment.properties, categories.json and executor.json, beside the results."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "environment.properties", _environment(result))
    write_text(folder / "categories.json", json.dumps(categories(result), indent=1) + "\n")
    executor = {"name": "labproof", "type": "labproof", "buildName": result["run_id"], "reportName": result["lab"]}
    write_text(folder / "executor.json", json.dumps(executor, indent=1) + "\n")


def categories(result: dict[str, Any]) -> list[dict[str, Any]]:
    """A category for each cause that was found, then one for each kind of verdict that is no pass."""
    causes = {
        p["cause"]: p["title"]
        for v in result["verdicts"]
        if v["verdict"] in ("fail", "excepted")
        for p in v["problems"]
    }
    found = [
        {
            "name": f"{cause} {title}",
            "matchedStatuses": ["failed", "skipped"],
            "messageRegex": rf"[\s\S]*cause: {cause} [\s\S]*",
        }
        for cause, title in sorted(causes.items())
    ]
    return [*found, *({"name": n, "matchedStatuses": s, "messageRegex": r} for n, s, r in _VERDICTS)]


def _environment(result: dict[str, Any]) -> str:
    told = {
        "labproof": __version__,
        "lab": result["lab"],
        "simulated": "yes" if result["simulated"] else "no",
        "ended": ending(result)[0],
        "run": result["run_id"],
    }
    for chain, content in result["chains"].items():
        of = f" of {chain}" if len(result["chains"]) > 1 else ""  # Allure shows the first twenty characters of a name
        for layer in content["layers"]:
            told.update({f"{layer['layer']} {key}{of}": text for key, text in layer["versions"].items()})
    return "".join(f"{_property(key, True)}={_property(text, False)}\n" for key, text in told.items())


def _property(text: str, key: bool) -> str:
    """Java properties: backslashes, line ends and everything beyond ASCII escaped, in keys also `=`, `:`, blanks."""
    found = []
    for character in str(text):
        if character in "\n\r\t" or not character.isascii():
            found += [f"\\u{unit:04x}" for unit in _utf16(character)]
        elif character == "\\" or (key and character in "=: #!"):
            found.append(f"\\{character}")
        else:
            found.append(character)
    return "".join(found)


def _utf16(character: str) -> list[int]:
    raw = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2)]
