"""The Prometheus text format, and the selectors of rules that are evaluated against it.

Only what deciding "can this rule ever select something" needs: no PromQL engine. Sources: the exposition format of
Prometheus' own documentation; facts wild 5 K80.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SERIES = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$")
_LABEL = re.compile(r'\s*([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_MATCHER = re.compile(r'\s*([A-Za-z_]\w*)\s*(=~|!~|!=|=)\s*(?:"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\')\s*,?')
_SELECTOR = re.compile(r"(?<![\w:.])(DCGM_[A-Z]+_\w+|up)\b\s*(?:\{([^}]*)\})?")
_COMPARED = re.compile(
    r"\b(DCGM_[A-Z]+_\w+)\b\s*(?:\{[^}]*\})?\s*\)*\s*(>=|<=|==|>|<)\s*([\d.eE+]+(?:\s*\*\s*[\d.eE+]+)*)"
)
#: dcgm-exporter writes such numbers where a card does not tell (its README): no value at all.
BLANK = 9.2e18


@dataclass(frozen=True)
class Series:
    """One sample of a scrape."""

    name: str
    labels: dict[str, str]
    value: float

    @property
    def blank(self) -> bool:
        """Whether the number only says that the card does not tell."""
        return abs(self.value) >= BLANK or self.value != self.value


@dataclass(frozen=True)
class Matcher:
    """`job=~"dcgm.*"`."""

    label: str
    operator: str
    text: str

    def accepts(self, labels: Mapping[str, str]) -> bool:
        """Whether a series of these labels is selected; an absent label is the empty string, as in Prometheus."""
        held = labels.get(self.label, "")
        if self.operator in ("=", "!="):
            return (held == self.text) is (self.operator == "=")
        try:
            found = re.fullmatch(self.text, held) is not None
        except re.error:  # RE2 has what Python has not; undecided is accepted
            return True
        return found is (self.operator == "=~")

    def __str__(self) -> str:
        return f'{self.label}{self.operator}"{self.text}"'


@dataclass(frozen=True)
class Selector:
    """One metric that a rule selects; `absent` when the rule fires because nothing is selected."""

    metric: str
    matchers: tuple[Matcher, ...]
    absent: bool = False

    def __str__(self) -> str:
        inner = ",".join(map(str, self.matchers))
        return f"{self.metric}{{{inner}}}" if inner else self.metric


@dataclass(frozen=True)
class Comparison:
    """A metric compared with a number: `DCGM_FI_DEV_FB_USED > 14000`."""

    metric: str
    operator: str
    number: float


def parse_series(text: str, keep: str = "") -> tuple[Series, ...]:
    """Samples of a scrape whose names begin with `keep`; lines that are none are left out."""
    found = []
    for line in text.splitlines():
        if line.startswith("#") or not line.startswith(keep):
            continue
        match = _SERIES.match(line)
        if match is None:
            continue
        try:
            number = float(match[3])
        except ValueError:
            continue
        labels = {name: _unescaped(held) for name, held in _LABEL.findall(match[2] or "")}
        found.append(Series(match[1], labels, number))
    return tuple(found)


def _unescaped(text: str) -> str:
    return text.replace(r"\"", '"').replace(r"\n", "\n").replace(r"\\", "\\")


def gpu_selectors(expression: str) -> tuple[Selector, ...]:
    """Metrics of dcgm-exporter, and `up`, that an alert's expression selects."""
    found = []
    for match in _SELECTOR.finditer(expression):
        before = expression[: match.start()].rstrip()
        absent = bool(re.search(r"\babsent(_over_time)?\s*\($", before))
        found.append(Selector(match[1], matchers(match[2] or ""), absent))
    return tuple(found)


def matchers(inner: str) -> tuple[Matcher, ...]:
    """The matchers between a selector's braces."""
    return tuple(Matcher(label, op, double or single) for label, op, double, single in _MATCHER.findall(inner))


def comparisons(expression: str) -> tuple[Comparison, ...]:
    """Comparisons of a dcgm-exporter metric with a plain number (a product of numbers counts)."""
    found = []
    for metric, operator, numbers in _COMPARED.findall(expression):
        product = 1.0
        try:
            for factor in numbers.split("*"):
                product *= float(factor)
        except ValueError:
            continue
        found.append(Comparison(metric, operator, product))
    return tuple(found)


def by_card(series: Iterable[Series]) -> dict[str, dict[str, Series]]:
    """Samples by card (UUID) and metric; of several pods on a shared card the first one stands for all."""
    found: dict[str, dict[str, Series]] = {}
    for one in series:
        uuid = one.labels.get("UUID", "")
        if uuid:
            found.setdefault(uuid, {}).setdefault(one.name, one)
    return found
