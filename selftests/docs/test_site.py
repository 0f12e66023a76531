"""The site is built without a warning, from pages that are true, and asks no other machine for anything."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from labproof.catalogue.causes import causes
from labproof.checks.registry import LAYERS, clauses
from labproof.cli.site_pages import EVIDENCE, pages
from labproof.inventory.comments import field_comments
from labproof.inventory.schema import schema_text
from labproof.simlab.faults import load_faults

ROOT = Path(__file__).parents[2]
#: What a browser fetches by itself.
FETCHING = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.fetched, self.ids, self.h1 = [], [], set(), 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given["id"]} if given.get("id") else set()
        self.h1 += tag == "h1"
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if given.get(FETCHING.get(tag, "")):
            self.fetched.append(given[FETCHING[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "built"
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "WARNING" not in ran.stderr
    return folder


@pytest.fixture(scope="module")
def built(site):
    return {p.relative_to(site).as_posix(): _Page(p.read_text("utf-8")) for p in site.rglob("*.html")}


def test_every_cause_and_layer_has_its_page(built):
    assert {f"causes/{ident}.html" for ident in causes()} <= set(built)
    assert {f"clauses/{layer}.html" for layer in LAYERS} <= set(built)
    anchors = set().union(*(built[f"clauses/{layer}.html"].ids for layer in LAYERS))
    assert set(clauses()) <= anchors


def test_every_link_leads_somewhere(site, built):
    wrong = []
    for name, page in built.items():
        for link in page.links + page.fetched:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or name == "404.html":
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            if not target.exists():
                wrong.append(f"{name}: {link}")
            elif parts.fragment and target.suffix == ".html":
                there = built[target.resolve().relative_to(site.resolve()).as_posix()].ids
                if parts.fragment not in there:
                    wrong.append(f"{name}: {link}")
    assert wrong == []


def test_nothing_is_fetched_from_another_machine(site, built):
    assert [(n, x) for n, p in built.items() for x in p.fetched if urlsplit(x).netloc] == []
    styles = {p.name: re.findall(r"(?:url\(\s*[\"']?|@import\s+[\"'])(?:https?:)?//[^)\"']+", p.read_text("utf-8"))
              for p in site.rglob("*.css")}  # fmt: skip
    assert {name: found for name, found in styles.items() if found} == {}


def test_every_page_has_one_heading_of_the_first_rank(built):
    assert [n for n, p in built.items() if p.h1 != 1 and n not in ("404.html", "search.html")] == []


def test_a_cause_page_has_what_people_search_for():
    page = pages()["causes/P02.md"]
    parts = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert parts == ["Symptom", "Evidence", "Why", "Fix", "Try it", "Source"]
    assert "Intel VT-d" in page
    assert "--fault=vtd-off" in page


def test_every_shown_evidence_is_of_a_fault_that_exists():
    """New faults may wait for the next recording; what is shown must still be of this catalogue."""
    recorded, known = json.loads(EVIDENCE.read_text("utf-8")), load_faults()
    assert set(recorded) <= set(known)
    assert len(recorded) > 200, "record it again: python -m selftests.docs.record_evidence"


def test_the_reference_has_every_key_of_lab_yaml():
    reference, schema = pages()["lab-yaml.md"], json.loads(schema_text())
    for name, model in [("lab", schema), *schema["$defs"].items()]:
        if model.get("type") != "object":
            continue
        part = reference.split(f"{{#{name.lower()}}}", 1)[1].split("\n## ", 1)[0]
        missing = [key for key in model["properties"] if f"| `{key}` |" not in part]
        assert missing == [], name


def test_a_comment_beside_a_field_is_its_description():
    told = field_comments("class Thing(Base):\n    a: int = 1  # seconds\n    b: str\n    c: str  # noqa: A003\n")
    assert told == {"Thing": {"a": "seconds"}}
    gpu = json.loads(schema_text())["$defs"]["Gpu"]["properties"]
    assert gpu["functions"]["description"].startswith("further functions of the slot")


def test_links_of_files_beside_the_site_lead_somewhere():
    wrong = []
    for name in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text("utf-8")):
            if not urlsplit(link).scheme and not (ROOT / link).exists():
                wrong.append(f"{name}: {link}")
        for path in re.findall(r"`(docs/[\w./-]+)`", (ROOT / name).read_text("utf-8")):
            if not (ROOT / path).exists():
                wrong.append(f"{name}: {path}")
    assert wrong == []
