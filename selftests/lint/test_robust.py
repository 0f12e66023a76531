"""Whatever it is given, lint answers with findings or with "unreadable", within a moment and without a traceback."""

import random
import time
from pathlib import Path

import pytest
import yaml

from labproof.lint.finding import Report
from labproof.lint.judge import judge_sources, lint
from labproof.lint.output import FORMATS, render
from labproof.lint.sources import Source, split
from labproof.lint.tree import NotYaml, documents

CORPUS = Path(__file__).with_name("corpus")
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())
LANGUAGES = ("yaml", "markdown", "hcl", "modules", "modprobe")


def judge(text, language):
    report = Report()
    judge_sources(split(Source("x", text, language)), report)
    for form in FORMATS:
        render(report, form)
    return report


def mutated(text, dice):
    """A text with pieces cut, doubled, swapped or replaced by what breaks parsers."""
    for _ in range(dice.randint(1, 4)):
        lines = text.split("\n")
        at = dice.randrange(len(lines))
        kind = dice.randrange(7)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, dice.choice(lines))
        elif kind == 2:
            lines[at] = dice.choice([" ", "\t", "- ", "? ", "&a ", "*a", "!!python/object:os.system ", "%"]) + lines[at]
        elif kind == 3:
            head = lines[at].partition(":")[0]
            odd = [
                "[]",
                "{}",
                "null",
                "~",
                "1e999",
                "0x10",
                "[[a]]",
                "{a: {b: c}}",
                "2001-99-99",
                "!!int x",
                '"',
                "'",
                "|",
                "*x",
                "<<",
            ]
            lines[at] = f"{head}: {dice.choice(odd)}"
        elif kind == 4:
            cut = dice.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:cut] + dice.choice("{}[]()\"'#:,&*!|>%@`\0\x85\u2028") + lines[at][cut:]
        elif kind == 5:
            lines[at] = lines[at].replace(":", "", 1)
        else:
            lines[at] = lines[at][: len(lines[at]) // 2]
        text = "\n".join(lines)
    return text


@pytest.mark.parametrize("seed", range(12))
def test_mutated_files(seed):
    dice = random.Random(seed)
    for _ in range(40):
        path = dice.choice(FILES)
        language = {".tf": "hcl", ".md": "markdown", ".conf": "modprobe"}.get(path.suffix, "yaml")
        judge(mutated(path.read_text(), dice), language)


ODD = (
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "x",
    "${x}",
    "all",
    [],
    {},
    [[]],
    [None],
    {"name": None},
    [{"name": []}],
    {"": {}},
    "a: [",
)


def bent(value, dice):
    """A value with one of its parts replaced by something of another kind."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(list(value))
        return {**value, key: bent(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.85:
        at = dice.randrange(len(value))
        return [*value[:at], bent(value[at], dice), *value[at + 1 :]]
    return dice.choice(ODD)


@pytest.mark.parametrize("seed", range(10))
def test_values_of_the_wrong_kind(seed):
    dice = random.Random(200 + seed)
    for _ in range(40):
        path = dice.choice([p for p in FILES if p.suffix == ".yaml"])
        try:
            parsed = list(yaml.safe_load_all(path.read_text()))
        except yaml.YAMLError:
            continue
        text = yaml.safe_dump_all([bent(document, dice) for document in parsed])
        assert judge(text, "yaml").unreadable == []


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes(seed, tmp_path):
    dice = random.Random(100 + seed)
    for suffix in (".yaml", ".md", ".tf", ".json", ".conf"):
        for _ in range(8):
            path = tmp_path / f"x{suffix}"
            path.write_bytes(dice.randbytes(dice.randint(0, 400)))
            report = lint([str(path)], [str(path)])
            assert report.exit_status() in (0, 1, 4)
            judge(path.read_bytes().decode("latin-1"), dice.choice(LANGUAGES))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        "{a: " * 20_000,
        "- " * 30_000,
        "\n".join(f"{' ' * n}a:" for n in range(500)),
        "a: &a [x]\n" + "\n".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '*a'] * 9)}]" for n in range(30)),
        "a: &a [x]\n" + "\n".join(f"b{n}: &b{n} [{f'*b{n - 1}' if n else '*a'}]" for n in range(5000)),
        "a: &a\n  b: *a\n",
        "kind: ConfigMap\ndata: {x: '" + "sharing: [" * 5000 + "'}",
        "kind: ConfigMap\napiVersion: v1\ndata:\n  x: |\n    sharing:\n      timeSlicing: " + "[" * 3000,
        "apiVersion: v1\nkind: Pod\nspec: [1]\n",
        "kind: List\nitems: {a: b}\n",
        "machine: [1]\n",
        "machine: {kernel: {modules: {name: nvidia}}, files: {a: b}, install: [1], sysctls: [2]}\n",
        "clusterName: 1\nnodes: {a: b}\ntalosVersion: []\n",
        "clusterName: x\nnodes: [1, [2], {schematic: 1, patches: x, kernelModules: y, talosImageURL: [z]}]\n",
        "customization: 1\n",
        "customization: {systemExtensions: [1], extraKernelArgs: x}\n",
        "? [a, b]\n: c\n",
        "\ufeffa: 1\n",
        "a: \x07\n",
        "--- !!binary |\n  x\n",
        "<<: *x\n",
        "<<: [1, 2]\nkind: Pod\n",
    ],
)
def test_hostile_yaml(text):
    began = time.monotonic()
    judge(text, "yaml")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "text", ["{" * 10_000, "a = " + "[" * 5_000, 'x = "', "resource", "resource {", "<<EOT\n", "a = <<EOT\nx\n", "/*"]
)
def test_hostile_hcl(text):
    judge(text, "hcl")


def test_lines_are_those_of_the_file():
    (document,) = documents("a:\n  b:\n    - c: |\n        x\n")
    assert document.at("a", "b") == 2
    assert document.at("a", "b", 0, "c") == 3
    assert document.at("a", "b", "nothing") == 2


def test_addresses_and_numbers_are_what_was_typed():
    (document,) = documents("{a: 0000:01:00.0, b: 0300, c: yes, d: 4, e: '4', f: 1_000}")
    assert document.plain == {"a": "0000:01:00.0", "b": "0300", "c": "yes", "d": 4, "e": "4", "f": "1_000"}


def test_what_is_no_yaml_says_where():
    with pytest.raises(NotYaml) as caught:
        documents("a: 1\nb: [\n", first_line=10)
    assert caught.value.line >= 11
