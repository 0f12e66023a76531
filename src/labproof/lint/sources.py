"""Which files are judged, and as what: files of a folder, fenced blocks of a page, a stream."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labproof.lint.finding import NotJudged, Report, Unreadable
from labproof.lint.templates import SUFFIXES as TEMPLATE_SUFFIXES

_LARGEST = 4_000_000
_SKIPPED = {"node_modules", "venv", ".venv", "__pycache__", "vendor"}
_BY_SUFFIX = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "yaml",
    ".md": "markdown",
    ".markdown": "markdown",
    ".mdx": "markdown",
    ".tf": "hcl",
    ".hcl": "hcl",
    ".tfvars": "hcl",
}
_FENCE = re.compile(r"^(?P<indent>[ \t>]*)(?P<fence>`{3,}|~{3,})\s*(?P<language>[\w+.-]*)(?P<rest>.*)$")
_LANGUAGES = {
    "yaml": "yaml",
    "yml": "yaml",
    "json": "yaml",
    "jsonc": "yaml",
    "hcl": "hcl",
    "terraform": "hcl",
    "tf": "hcl",
}
_SHELLS = {"bash", "sh", "shell", "console", "zsh", "shell-session"}


@dataclass(frozen=True)
class Source:
    """A piece of text and where it stands.

    Attributes:
        language: yaml, hcl, markdown, shell, plain, modules or modprobe.
        first_line: the line of the file on which `text` begins.
        excerpt: a block of a page; it need not be complete.
        scope: sources of one scope speak of the same lab and are compared with each other.
    """

    path: str
    text: str
    language: str
    first_line: int = 1
    excerpt: bool = False
    scope: str = ""


def read_paths(paths: Iterable[str], report: Report, stdin: str | None = None) -> list[Source]:
    """Sources of files and folders; `-` is `stdin`. What cannot be read is noted in `report`."""
    found: list[Source] = []
    for given in paths:
        if given == "-":
            text = (stdin or "").replace("\r\n", "\n")
            found += split(Source("<stdin>", text, _language_of_stream(text)))
            report.files += 1
            continue
        path = Path(given)
        if not path.exists():
            report.unreadable.append(Unreadable(given, 1, "no such file or folder"))
        elif path.is_dir():
            for below in _files(path):
                found += _read(below, report)
        else:
            found += _read(path, report, named=True)
    return found


def split(source: Source) -> list[Source]:
    """A page becomes itself (its prose) and its fenced blocks; anything else stays what it is."""
    if source.language != "markdown":
        return [source]
    scope = f"page {source.path}"
    whole = Source(source.path, source.text, "markdown", scope=scope)
    return [whole, *_blocks(source, scope)]


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _SKIPPED)
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file() and (_language(path) is not None or path.suffix in TEMPLATE_SUFFIXES):
                yield path


def _language(path: Path) -> str | None:
    if path.suffix in _BY_SUFFIX:
        return _BY_SUFFIX[path.suffix]
    if path.parent.name == "modprobe.d":
        return "modprobe"
    if path.parent.name == "modules-load.d" or (path.name == "modules" and path.parent.name == "etc"):
        return "modules"
    return None


def _language_of_stream(text: str) -> str:
    if re.search(r"(?m)^\s*(?:resource|module|variable|terraform|provider|locals)\b[^:\n]*\{\s*$", text):
        return "hcl"
    return "markdown" if re.search(r"(?m)^(?:```|~~~)", text) else "yaml"


def _read(path: Path, report: Report, named: bool = False) -> list[Source]:
    name = path.as_posix()
    language = _language(path)
    report.files += 1
    if path.suffix in TEMPLATE_SUFFIXES:
        report.not_judged.append(
            NotJudged(name, 1, "a template: render it and lint the result, `... | labproof lint -`")
        )
        return []
    try:
        if not path.is_file():
            raise OSError("not a regular file")
        if path.stat().st_size > _LARGEST:
            report.not_judged.append(NotJudged(name, 1, f"larger than {_LARGEST // 1_000_000} MB"))
            return []
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as refused:
        report.unreadable.append(Unreadable(name, 1, refused.strerror or str(refused)))
        return []
    except UnicodeDecodeError:
        report.unreadable.append(Unreadable(name, 1, "not UTF-8 text"))
        return []
    if language is None:
        if not named:
            return []
        language = _language_of_stream(text)
    return split(Source(name, text.replace("\r\n", "\n"), language))


def _blocks(page: Source, scope: str) -> Iterator[Source]:
    lines = page.text.split("\n")
    at = 0
    while at < len(lines):
        opened = _FENCE.match(lines[at])
        at += 1
        if opened is None or (opened["fence"][0] == "`" and "`" in opened["rest"]):
            continue
        start, indent = at, opened["indent"]
        fence = re.compile(rf"^[ \t>]*{re.escape(opened['fence'][0])}{{{len(opened['fence'])},}}\s*$")
        while at < len(lines) and not fence.match(lines[at]):
            at += 1
        body = [line[len(indent) :] if line.startswith(indent) else line.lstrip() for line in lines[start:at]]
        at += 1
        text = "\n".join(body)
        yield Source(page.path, text, _language_of_block(opened["language"].lower(), text), start + 1, True, scope)


def _language_of_block(word: str, text: str) -> str:
    if word in _LANGUAGES:
        return _LANGUAGES[word]
    if word in _SHELLS:
        return "shell"
    filled = [line.strip() for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    if not filled or word not in ("", "text", "conf", "ini", "plaintext", "txt"):
        return "plain"
    if all(re.fullmatch(r"[a-z][a-z0-9_-]*", line) for line in filled) and any(x.startswith("vfio") for x in filled):
        return "modules"
    if all(re.match(r"(options|blacklist|softdep|install|alias|remove)\s", line) for line in filled):
        return "modprobe"
    if not word and re.search(r"(?m)^(?:apiVersion|kind|machine|customization|version): ?\S*", text):
        return "yaml"
    return "plain"
