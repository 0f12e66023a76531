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
#: So much of a secret's beginning, where a text was cut in the middle of it, is replaced like the whole.
_CUT_SHORTEST = 8
_LOOKS_SECRET = (
    (
        re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        "key",
    ),
    (re.compile(r"(?<=PVEAPIToken=)(?P<who>[^=\s\"']+)=[0-9a-fA-F-]{8,}"), "token"),
    # The same without the scheme before it, as PVE prints it when the token is made: user@realm!name=uuid.
    (re.compile(r"(?P<who>[\w.+-]+@[\w.-]+![\w.-]+)=[0-9a-fA-F]{8}-[0-9a-fA-F-]{8,}"), "token"),
    # A cookie carries the ticket with its signs percent-encoded.
    (re.compile(r"(?i)\bPVE(?::|%3A)[^:\s]+?(?::|%3A)[0-9A-F]{8}(?::|%3A){2}(?:[\w+/=-]|%[0-9A-F]{2})+"), "ticket"),
    (re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/-]{8,}=*"), "token"),
    (re.compile(r"(?i)(?<=authorization: basic )[A-Za-z0-9+/]{4,}=*"), "password"),
    (re.compile(r"(?i)(?<=CSRFPreventionToken: )[0-9A-F]{8}:[A-Za-z0-9+/_-]+=*"), "token"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), "token"),
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), "password"),
    # `password=x`, `--api-key x` is left: a word that follows a blank is too often just the next word.
    (
        re.compile(
            r"(?i)(?P<said>(?:password|passwd|passphrase|api[_-]?key|client[_-]?secret|access[_-]?token)=)"
            r"(?:\"[^\"\n]{4,}\"|'[^'\n]{4,}'|[^\s\"'<>,;&]{4,})"
        ),
        "password",
    ),
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
                forms = {secret, quote(secret, safe=""), encoded, secret.encode().decode("latin-1")}
                self._known += [(form, f"<secret {name}>") for form in forms]
        self._long = [pair for pair in self._known if len(pair[0]) > _CUT_SHORTEST]
        self._keys: dict[str, str] = {}  # the same few field names come thousands of times
        self._known.sort(key=lambda pair: -len(pair[0]))  # a secret inside another must not tear it

    def text(self, text: str) -> str:
        """The text without secrets."""
        for secret, name in self._known:
            if secret in text:
                text = text.replace(secret, name)
        for pattern, kind in _LOOKS_SECRET:
            text = pattern.sub(rf"\g<said><{kind}>" if "said" in pattern.groupindex else f"<{kind}>", text)
        return self._without_cut(text)

    def _without_cut(self, text: str) -> str:
        """The text without the beginning of a known secret at its end: probes keep only so much of a long line."""
        for secret, name in self._long:
            at = text.find(secret[:_CUT_SHORTEST], max(0, len(text) - len(secret)))
            if at >= 0 and secret.startswith(text[at:]):
                text = text[:at] + name
        return text

    def value(self, item: Any) -> Any:
        """The value (dicts, lists, strings, numbers) without secrets, in keys too."""
        if isinstance(item, str):
            return self.text(item)
        if isinstance(item, dict):
            return {self._key(key): self.value(below) for key, below in item.items()}
        if isinstance(item, list):
            return [self.value(below) for below in item]
        return item

    def _key(self, key: Any) -> Any:
        if not isinstance(key, str):
            return key
        if key not in self._keys:
            self._keys[key] = self.text(key)
        return self._keys[key]
