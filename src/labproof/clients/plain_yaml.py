"""YAML without YAML 1.1's guesses: `0000:3b:00.0` stays a string, and so do `0300`, `on` and `2026-01-01`.

Go's writers (Talos, kubectl) follow YAML 1.2 rules; PyYAML's safe loader would read a PCI address as a
base-60 number (facts/ecosystem.md 0).
"""

import re
from typing import Any

import yaml


class _Yaml12Loader(yaml.SafeLoader):
    """The core schema of YAML 1.2: null, booleans, decimal and 0x/0o integers, floats; all else is text."""


_Yaml12Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Yaml12Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), [*_first.replace("\0", ""), ""])


def load(text: str) -> Any:
    """Parse one document, or several into a list.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    documents = list(yaml.load_all(text, Loader=_Yaml12Loader))
    return documents[0] if len(documents) == 1 else documents or None
