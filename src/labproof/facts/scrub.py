"""Scrubbing: no secret of the lab, and nothing that looks like one, gets into facts.

A secret is replaced by the name of the place that declares it, the same every time, so that two readings that held
the same secret still match. Everything a report shows comes from facts, so this is the one door.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

#: Secrets shorter than this are not replaced by value: the text would be full of holes.
SHORTEST = 6
_LOOKS_SECRET = (
    (
        re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        "key",
    ),
    (re.compile(r"(?<=PVEAPIToken=)(?P<who>[^=\s\"']+)=[0-9a-fA-F-]{8,}"), "token"),
    (re.compile(r"PVE:[^:\s]+:[0-9A-F]{8}::[A-Za-z0-9+/=]+"), "ticket"),
    (re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/-]{8,}=*"), "token"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), "token"),
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), "password"),
)


class Scrubber:
    """Replaces the given secrets in any JSON-like value.

    Args:
        secrets: secret by the name of the place that declares it.
    """

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        self._known: list[tuple[str, str]] = []
        for name, secret in (secrets or {}).items():
            if len(secret) >= SHORTEST:
                encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
                forms = {secret, quote(secret, safe=""), encoded}
                self._known += [(form, f"<secret {name}>") for form in forms]
        self._known.sort(key=lambda pair: -len(pair[0]))  # a secret inside another must not tear it

    def text(self, text: str) -> str:
        """The text without secrets."""
        for secret, name in self._known:
            if secret in text:
                text = text.replace(secret, name)
        for pattern, kind in _LOOKS_SECRET:
            text = pattern.sub(f"<{kind}>", text)
        return text

    def value(self, item: Any) -> Any:
        """The value (dicts, lists, strings, numbers) without secrets, in keys too."""
        if isinstance(item, str):
            return self.text(item)
        if isinstance(item, dict):
            return {self.text(key) if isinstance(key, str) else key: self.value(below) for key, below in item.items()}
        if isinstance(item, list):
            return [self.value(below) for below in item]
        return item
