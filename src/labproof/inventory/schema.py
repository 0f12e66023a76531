"""JSON Schema of lab.yaml, for editors: committed as docs/lab.schema.json, tested to be current."""

from __future__ import annotations

import json

from labproof.inventory.models import Lab


def schema_text() -> str:
    """The schema as JSON text, keys sorted."""
    schema = Lab.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "labproof lab.yaml"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
