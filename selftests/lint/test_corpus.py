"""Small files of our own: every mistake in bad/ is found at its line, and nothing in good/ is called one."""

from pathlib import Path

import pytest
import yaml

from labproof.catalogue.causes import causes
from labproof.lint.judge import lint

CORPUS = Path(__file__).with_name("corpus")
EXPECTED = yaml.safe_load((CORPUS / "expected.yaml").read_text())
GOOD = sorted(path.name for path in (CORPUS / "good").iterdir())
BAD = sorted(path.name for path in (CORPUS / "bad").iterdir())


def found(case):
    report = lint([str(case)])
    assert report.unreadable == []
    return sorted((str(Path(f.path).relative_to(CORPUS / "bad")), f.line, f.cause) for f in report.findings)


@pytest.mark.parametrize("case", BAD)
def test_each_mistake_is_found_at_its_line_and_nothing_else(case):
    wanted = [
        (name, line, cause) for name, marks in EXPECTED.items() if name.split("/")[0] == case for line, cause in marks
    ]
    assert wanted or case == "host"
    assert found(CORPUS / "bad" / case) == sorted(wanted)


@pytest.mark.parametrize("case", GOOD)
def test_a_working_file_hears_nothing(case):
    report = lint([str(CORPUS / "good" / case)])
    assert [(f.path, f.line, f.cause, f.text) for f in report.findings] == []
    assert report.unreadable == []


def test_the_corpus_is_large_enough_and_the_manifest_complete():
    assert len(GOOD) >= 60
    assert len(BAD) >= 60
    files = {str(path.relative_to(CORPUS / "bad")) for path in (CORPUS / "bad").rglob("*") if path.is_file()}
    assert files == set(EXPECTED)
    assert {cause for marks in EXPECTED.values() for _, cause in marks} <= set(causes())


@pytest.mark.parametrize(
    "name", ["machine-hcl-template.yaml", "machine-jinja.yaml", "chart-template.yaml", "jinja-inline.yaml"]
)
def test_a_template_is_not_judged_and_says_so(name):
    report = lint([str(CORPUS / "good" / name)])
    assert report.not_judged
    assert report.exit_status() == 0
