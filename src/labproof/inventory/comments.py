"""What the models of lab.yaml say of each field behind a `#`, for editors and the reference page.

A comment beside the field is where an engineer writes and reads it; the schema takes it from there, so that it is
written once.
"""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from pathlib import Path


def field_comments(source: str) -> dict[str, dict[str, str]]:
    """Comment of each annotated field that has one at its line's end, by class name and field name.

    Args:
        source: text of a Python module.
    """
    by_line = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not token.string.startswith(("# noqa", "# type:", "# fmt:"))
    }
    found: dict[str, dict[str, str]] = {}
    for model in ast.parse(source).body:
        if not isinstance(model, ast.ClassDef):
            continue
        for field in model.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.end_lineno in by_line:
                found.setdefault(model.name, {})[field.target.id] = by_line[field.end_lineno]
    return found


def comments_of_models() -> dict[str, dict[str, str]]:
    """The comments of all models of lab.yaml, whichever modules they are in."""
    import labproof.inventory.models  # noqa: F401 - brings every model of lab.yaml into being
    from labproof.inventory.declared import Declared

    models: list[type[Declared]] = [Declared]
    for model in models:
        models += model.__subclasses__()
    found: dict[str, dict[str, str]] = {}
    for path in {inspect.getfile(model) for model in models}:
        found |= field_comments(Path(path).read_text("utf-8"))
    return found
