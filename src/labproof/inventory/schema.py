"""JSON Schema of lab.yaml, for editors: committed as docs/lab.schema.json, tested to be current."""

from __future__ import annotations

import json
from typing import Any

from labproof.inventory.comments import comments_of_models
from labproof.inventory.models import Lab


def schema_text() -> str:
    """The schema as JSON text, keys sorted."""
    schema: dict[str, Any] = Lab.model_json_schema()
    for model, comments in comments_of_models().items():
        described = schema if model == "Lab" else schema["$defs"].get(model, {})
        for field, comment in comments.items():
            described.get("properties", {}).get(field, {}).setdefault("description", comment)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "labproof lab.yaml"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
