"""The reference of lab.yaml from the same schema that editors read, and the shipped labs, as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from labproof import places
from labproof.inventory.schema import schema_text
from labproof.report.markdown import plain

HEAD = """# lab.yaml

What you declare about your lab. What is not declared is never contacted, and no clause about it is expected.
An unknown key is an error with its line. A value may be `${NAME}` (an environment variable) or `file:PATH`: no secret
has to stand in the file.

`labproof init` writes one from what it finds; `labproof schema` prints the JSON Schema that this page is made from.
With `# yaml-language-server: $schema=PATH` as its first line, editors complete and check it.
"""


def lab_reference() -> str:
    """Markdown of every key: type, default, what it means."""
    schema: dict[str, Any] = json.loads(schema_text())
    models = {name: model for name, model in schema["$defs"].items() if model.get("type") == "object"}
    lines = [*HEAD.splitlines(), "", "## The reference lab", "", "```yaml"]
    lines += places.lab_file("t4-jellyfin").read_text("utf-8").splitlines()
    lines += ["```", "", "## The whole file {#lab}", "", *_model(schema, models)]
    for name in _in_order(schema, models):
        lines += ["", f"## {name} {{#{name.lower()}}}", "", *_model(models[name], models)]
    return "\n".join(lines) + "\n"


def labs_page() -> str:
    """Markdown of the reference labs: what they are, their variations, their lab.yaml."""
    lines = [
        "# Reference labs",
        "",
        "Each is judged end to end in the simulation, healthy and broken. `lab.yaml` is what its owner declares; copy",
        "it and put your names in. A variation is the same lab with other hardware or versions, consistent in itself.",
        "",
    ]
    for path in sorted(places.folder("labs").glob("*/lab.yaml")):
        text = path.read_text("utf-8")
        told = [line.lstrip("# ") for line in text.splitlines() if line.startswith("# ") and "$schema" not in line]
        lines += [f"## {path.parent.name}", "", plain(" ".join(told).removeprefix("Reference lab: "), 1000), ""]
        lines += [f"`pytest --sim={path.parent.name}`", ""]
        lines += _variations(path.parent)
        lines += ["```yaml", *(x for x in text.splitlines() if not x.startswith("#")), "```", ""]
    return "\n".join(lines)


def _variations(lab: Path) -> list[str]:
    lines = []
    for path in sorted((lab / "variations").glob("*.yaml")):
        title = yaml.safe_load(path.read_text("utf-8")).get("title", "")
        lines.append(f"| `--variation={path.stem}` | {plain(title)} |")
    return ["| Variation | What |", "| --- | --- |", *lines, ""] if lines else []


def _in_order(schema: dict[str, Any], models: dict[str, Any]) -> list[str]:
    """Models in the order in which the file meets them."""
    found: list[str] = []
    waiting = [schema]
    while waiting:
        for field in waiting.pop(0).get("properties", {}).values():
            for name in _models_of(field):
                if name in models and name not in found:
                    found.append(name)
                    waiting.append(models[name])
    return found


def _models_of(field: Any) -> list[str]:
    if isinstance(field, dict):
        here = [field["$ref"].rpartition("/")[2]] if "$ref" in field else []
        return here + [name for value in field.values() for name in _models_of(value)]
    return [name for item in field for name in _models_of(item)] if isinstance(field, list) else []


def _model(model: dict[str, Any], models: dict[str, Any]) -> list[str]:
    required = model.get("required", [])
    lines = [
        plain(model.get("description", ""), 2000),
        "",
        "| Key | Type | Default | Meaning |",
        "| --- | --- | --- | --- |",
    ]
    for key, field in model["properties"].items():
        default = "**required**" if key in required else _default(field.get("default"))
        lines.append(f"| `{key}` | {_type(field, models)} | {default} | {plain(field.get('description', ''), 2000)} |")
    return lines


def _default(value: Any) -> str:
    if value in (None, [], {}, ""):
        return ""
    return f"`{json.dumps(value)}`" if not isinstance(value, dict) else "as below"


def _type(field: dict[str, Any], models: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name in models else name
    if "anyOf" in field:
        return " or ".join(_type(x, models) for x in field["anyOf"] if x.get("type") != "null")
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    kind = str(field.get("type", "any"))
    if kind == "array":
        item = field.get("items", {})
        return f"list of {_type(item, models)}" if item else "list"
    if kind == "object":
        return "mapping"
    limits = [f"{word} {field[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in field]
    if "pattern" in field:
        limits.append(f"like `{field['pattern']}`".replace("|", "&#124;"))
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    return " ".join([words.get(kind, kind), *limits])
