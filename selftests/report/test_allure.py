"""Allure results of a real run: numbered layers, targets in titles, remedies in descriptions; and the single file."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from labproof.cli import main
from labproof.report.allure import categories, description, write_surroundings
from labproof.report.allure_page import NoAllure, fetched_from, find_allure, single_file, without_tracking

from .made_runs import failing, red

ROOT = Path(__file__).parents[2]
#: The shape of what Allure 3.18 puts into its pages (ecosystem finding 7), its host replaced by nobody's.
TRACKING = (
    '<script async src="https://www.googletagmanager.com/gtag/js?id=G-NOBODY"></script>\n'
    "<script>window.dataLayer=window.dataLayer||[];function gtag(){dataLayer.push(arguments);}gtag('js',1);</script>"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The host layer of the simulated lab with one fault, with every kind of output asked for."""
    folder = tmp_path_factory.mktemp("run")
    subprocess.run(["git", "init", "-q", str(folder / "wiki")], check=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LABPROOF_", "PYTEST_"))}
    names = {f"GIT_{who}_{what}": "owner@lab.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    words = ["-m", "host", "--sim=t4-jellyfin", "--fault=vtd-off", "--alluredir=allure", "--publish=wiki"]
    words.append("--junitxml=junit.xml")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(ROOT / "suites"), "-p", "no:cacheprovider", *words],
        cwd=folder, env={**clean, **names}, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def results(run):
    return [json.loads(p.read_text()) for p in (run[0] / "allure").glob("*-result.json")]


def labels(result, kind):
    return [label["value"] for label in result["labels"] if label["name"] == kind]


def test_every_result_has_its_place(results):
    assert len(results) > 20
    for result in results:
        assert labels(result, "epic") == ["1 Host"]
        assert labels(result, "parentSuite") == ["1 Host"]
        (story,) = labels(result, "story")
        assert result["name"].startswith(f"{story} ")
        (target,) = (p["value"].strip("'") for p in result["parameters"])
        assert result["name"].endswith(f"[{target}]")
        assert labels(result, "feature") == [f"1 Host: {target}"]
        assert labels(result, "severity")[0] in ("blocker", "normal", "minor")


def test_titles_tell_results_apart(results):
    names = [result["name"] for result in results]
    assert len(names) == len(set(names))


def test_a_failure_tells_its_remedy(results):
    failed = [r for r in results if r["status"] == "failed"]
    assert failed
    for result in failed:
        assert "MUST" in result["description"]
        assert "### P02" in result["description"]
        assert "**Remedy**" in result["description"]
        assert "Source:" in result["description"]
    passed = next(r for r in results if r["status"] == "passed")
    assert "Verdict: **pass**" in passed["description"]


def test_categories_match_what_the_results_say(run, results):
    made = json.loads((run[0] / "allure" / "categories.json").read_text())
    assert made[0]["name"].startswith("P02 ")

    def matching(result):
        message = result.get("statusDetails", {}).get("message", "")
        return [
            c["name"]
            for c in made
            if result["status"] in c["matchedStatuses"] and re.fullmatch(c["messageRegex"], message, re.DOTALL)
        ]

    for result in results:
        found = matching(result)
        if result["status"] == "failed":
            assert found == [made[0]["name"]]
        elif result["status"] == "skipped":
            assert found == ["Blocked by a broken layer below"]
        else:
            assert found == []


def test_surroundings(run):
    environment = (run[0] / "allure" / "environment.properties").read_text("ascii")
    assert "lab=moody-good\nsimulated=yes\nended=red\n" in environment
    assert "host\\ pve=" in environment
    assert json.loads((run[0] / "allure" / "executor.json").read_text())["name"] == "labproof"


def test_properties_are_escaped(tmp_path):
    made = red()
    made["lab"] = "küche\nx=\\y 😀"
    write_surroundings(tmp_path, made)
    assert "lab=k\\u00fcche\\u000ax=\\\\y \\ud83d\\ude00\n" in (tmp_path / "environment.properties").read_text("ascii")


def test_junit_keeps_its_properties(run):
    text = (run[0] / "junit.xml").read_text()
    assert '<property name="cause" value="P02"' in text
    assert '<property name="verdict" value="blocked"' in text


def test_the_run_was_published(run):
    folder, said = run
    assert "published: " in said
    assert (folder / "wiki" / "index.html").read_text() == (folder / "reports" / "latest" / "index.html").read_text()


def test_a_description_is_only_text():
    record = failing("HOST-A-001", "host")
    record["problems"][0]["title"] = "<script>alert(1)</script>"
    assert "<script" not in description(record)


def test_an_accepted_cause_has_its_category_too():
    assert [c["name"].split()[0] for c in categories(red())][:2] == ["P53", "T10"]


def test_tracking_is_taken_out():
    page = f"<html><head>{TRACKING}<script>var own = 'gtag';</script></head><body></body></html>"
    assert without_tracking(page) == "<html><head>\n<script>var own = 'gtag';</script></head><body></body></html>"


@pytest.mark.parametrize(
    ("page", "hosts"),
    [
        (TRACKING, {"www.googletagmanager.com/gtag/js?id=G-NOBODY"}),
        ("<link rel=stylesheet href=//fonts.invalid/a.css>", {"fonts.invalid/a.css"}),
        ("<style>@import 'https://a.invalid/x'; b { background: url( \"http://b.invalid/y\") }</style>",
         {"a.invalid/x", "b.invalid/y"}),
        ("<img src='data:image/png;base64,//8='><a href='https://docs.invalid'>read</a>", set()),
        ("<script>var text = '<img src=\"https://in.invalid/a.png\">'</script>", set()),
    ],
)  # fmt: skip
def test_what_a_browser_would_load(page, hosts):
    assert fetched_from(page) == hosts


def test_without_allure_it_is_skipped_loudly(run, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(run[0]))
    assert main(["report", "--allure", str(run[0] / "allure")]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "SKIPPED" in told.err
    assert "npm install" in told.err
    assert not (run[0] / "allure.html").exists()


def test_without_results_it_fails(tmp_path, capsys):
    assert main(["report", "--allure", str(tmp_path)]) == 1
    assert "no Allure results" in capsys.readouterr().err


def test_the_single_file_asks_nobody_for_anything(run, tmp_path, monkeypatch):
    if "NODE_PATH" in os.environ:  # where `tox -e browser` puts Allure 3
        programs = Path(os.environ["NODE_PATH"]) / ".bin"
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    try:
        find_allure()
    except NoAllure as missing:
        pytest.skip(str(missing))
    text = single_file(run[0] / "allure", tmp_path / "allure.html").read_text()
    assert fetched_from(text) == set()
    assert "googletagmanager" not in text
