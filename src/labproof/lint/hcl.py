"""A small reader of HCL: blocks, attributes and their lines. Expressions are kept as text.

It reads what the judged blocks need (facts proxmox 0.3, 2.3) and no more: no evaluation, no functions, no templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+)|(?P<comment>#[^\n]*|//[^\n]*|/\*.*?\*/)|(?P<newline>\n)"
    r"|(?P<heredoc><<-?(?P<mark>\w+)\n.*?\n[ \t]*(?P=mark)(?=\n|$))"
    r"|(?P<string>\"(?:[^\"\\\n]|\\.)*\")|(?P<word>[A-Za-z_][\w.-]*(?:\[[^\]\n]*\])?(?:\.[\w.*-]+)*)|(?P<number>-?\d[\w.]*)"
    r"|(?P<sign>[{}()\[\]=,:?])|(?P<other>.)",
    re.DOTALL,
)
_PAIRS = {"{": "}", "[": "]", "(": ")"}


class NotHcl(ValueError):
    """The text is no HCL that this reader understands."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class Attribute:
    """`name = expression`. `value` is the expression's text, strings without their quotes where they are literal."""

    name: str
    value: str
    line: int
    literal: bool


@dataclass
class Block:
    """`kind "label" ... { ... }`. A `dynamic` block carries its content's attributes, `dynamic` set."""

    kind: str
    labels: tuple[str, ...]
    line: int
    end: int
    attributes: dict[str, Attribute] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    dynamic: bool = False

    def walk(self) -> Iterator[Block]:
        """This block and all inside it."""
        yield self
        for block in self.blocks:
            yield from block.walk()

    def literal(self, name: str) -> str | None:
        """A literal attribute as text, None when it is missing or computed."""
        found = self.attributes.get(name)
        return found.value if found is not None and found.literal else None


@dataclass
class HclFile:
    """One file. `objects` are all attributes anywhere, also inside object values: what a reference may point at."""

    path: str
    body: Block
    objects: list[Attribute] = field(default_factory=list)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def read_hcl(text: str, path: str, first_line: int = 1) -> HclFile:
    """Read a file.

    Raises:
        NotHcl: brackets do not match, a string does not end, or nesting goes too deep.
    """
    tokens = list(_tokens(text, first_line))
    _check_brackets(tokens)
    file = HclFile(path, Block("", (), first_line, tokens[-1].line if tokens else first_line))
    _body(tokens, 0, file.body, 0)
    file.objects = list(_objects(tokens))
    return file


def _tokens(text: str, first_line: int) -> Iterator[_Token]:
    line = first_line
    for found in _TOKEN.finditer(text):
        kind = "heredoc" if found.lastgroup == "mark" else str(found.lastgroup)
        if kind not in ("space", "comment"):
            if kind == "other" and found[0] == '"':
                raise NotHcl("a string does not end on its line", line)
            yield _Token(kind, found[0], line)
        line += found[0].count("\n")


def _check_brackets(tokens: list[_Token]) -> None:
    opened: list[_Token] = []
    for token in tokens:
        if token.kind == "sign" and token.text in _PAIRS:
            opened.append(token)
            if len(opened) > 60:
                raise NotHcl("nested deeper than any module", token.line)
        closes = token.kind == "sign" and token.text in _PAIRS.values()
        if closes and (not opened or _PAIRS[opened.pop().text] != token.text):
            raise NotHcl(f"unexpected {token.text!r}", token.line)
    if opened:
        raise NotHcl(f"{opened[-1].text!r} is never closed", opened[-1].line)


def _body(tokens: list[_Token], at: int, into: Block, depth: int) -> int:
    """Read attributes and blocks up to the closing brace; returns the place after it."""
    while at < len(tokens):
        token = tokens[at]
        if token.text == "}" and token.kind == "sign":
            into.end = token.line
            return at + 1
        following = tokens[at + 1] if at + 1 < len(tokens) else None
        if token.kind in ("word", "string") and following is not None and following.text in ("=", ":"):
            at = _attribute(tokens, at, into)
            continue
        if token.kind == "word":
            ahead, labels = at + 1, []
            while ahead < len(tokens) and tokens[ahead].kind in ("string", "word"):
                labels.append(tokens[ahead].text.strip('"'))
                ahead += 1
            if ahead < len(tokens) and tokens[ahead].text == "{" and tokens[ahead].kind == "sign":
                block = Block(token.text, tuple(labels), token.line, token.line)
                at = _body(tokens, ahead + 1, block, depth + 1)
                into.blocks.append(_flat(block))
                continue
        at = _skip(tokens, at)
    return at


def _skip(tokens: list[_Token], at: int) -> int:
    """Past one token, or past the whole bracket it opens."""
    if tokens[at].kind != "sign" or tokens[at].text not in _PAIRS:
        return at + 1
    deep = 0
    while at < len(tokens):
        if tokens[at].kind == "sign":
            deep += (tokens[at].text in _PAIRS) - (tokens[at].text in _PAIRS.values())
        at += 1
        if deep == 0:
            break
    return at


def _attribute(tokens: list[_Token], at: int, into: Block) -> int:
    name, start = tokens[at], at + 2
    at = start
    while at < len(tokens) and not (tokens[at].kind == "newline" or tokens[at].text in ("}", ",")):
        at = _skip(tokens, at)
    into.attributes[name.text.strip('"')] = _value(name, tokens[start:at])
    return at + 1 if at < len(tokens) and tokens[at].text == "," else at


def _value(name: _Token, tokens: list[_Token]) -> Attribute:
    text = " ".join(token.text for token in tokens if token.kind != "newline")
    literal = False
    if len(tokens) == 1:
        only = tokens[0]
        literal = only.kind == "number" or only.text in ("true", "false", "null")
        if only.kind == "string":
            text, literal = only.text[1:-1], "${" not in only.text and "%{" not in only.text
    return Attribute(name.text.strip('"'), text, name.line, literal)


def _flat(block: Block) -> Block:
    if block.kind != "dynamic" or not block.labels:
        return block
    content = next((b for b in block.blocks if b.kind == "content"), block)
    return Block(block.labels[0], (), block.line, block.end, content.attributes, content.blocks, dynamic=True)


def _objects(tokens: list[_Token]) -> Iterator[Attribute]:
    for at, token in enumerate(tokens[:-2]):
        if token.kind in ("word", "string") and tokens[at + 1].text in ("=", ":"):
            yield _value(token, [tokens[at + 2]])
