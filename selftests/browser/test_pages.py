"""The report and the documentation in headless Chromium, at phone and desktop width, light and dark."""

import subprocess
import sys
from pathlib import Path

import pytest

from labproof.report.page import page

from ..report.made_runs import green, red
from .chromium import DARK, LIGHT, look, missing

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(bool(missing()), reason=f"browser: {missing()}")
LOOKS = [(500, LIGHT), (500, DARK), (1280, LIGHT), (1280, DARK)]
#: The theme's navigation bar is no landmark; its pages are otherwise clean.
OF_THE_THEME = {"region"}


def drifted():
    made = green()
    text = "pve5: IOMMU group t4: group 11 -> group 12"
    made["drift"] = [{"run_id": "trusted", "text": text, "meaning": "A card was moved.", "remedy": "Put it back."}]
    made["exit_status"] = 1
    return made


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("made", [red, green, drifted])
def test_the_report_is_accessible_and_fits(tmp_path, made, width, scheme):
    file = tmp_path / "index.html"
    file.write_text(page(made()), "utf-8")
    seen = look(file, width, scheme)
    assert seen["dark"] is (scheme == DARK)
    assert seen["violations"] == []
    assert seen["wide"] <= 0


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "built"
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, timeout=300)
    return folder


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
@pytest.mark.parametrize("name", ["index", "causes/P02", "causes/index", "lab-yaml", "architecture", "rights"])
def test_the_documentation_is_accessible_and_fits(site, name, scheme):
    seen = look(site / f"{name}.html", 500, scheme)
    assert [v for v in seen["violations"] if v[0] not in OF_THE_THEME] == []
    assert seen["wide"] <= 0
