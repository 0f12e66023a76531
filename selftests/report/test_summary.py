"""summary.md is plain Markdown with anchors that stay, and the two pictures beside it are whole SVG files."""

import re
from xml.etree import ElementTree

import pytest

from labproof.report.badge import badge, sparkline
from labproof.report.markdown import fence, plain, summary
from labproof.report.page import page

from .made_runs import CHAIN, busy, green, past_of, red

HOSTILE = (
    "a|b <script>alert(1)</script> [x](javascript:alert(1)) `q` *b* _i_ # \\ & https://example.invalid/x\nsecond line"
)


@pytest.mark.parametrize("made", [green, red, busy])
def test_no_html_and_no_address(made):
    text = summary(made())
    assert not re.search(r"<[a-z/!]", text)
    assert "://" not in text
    assert re.findall(r"\]\(([^)]+)\)", text) == ["badge.svg", "index.html", "sparkline.svg", "index.html"]


def test_a_run_that_was_cut_off_says_so():
    run = green()
    assert "cut off" not in summary(run) + page(run)
    run["cut_off"] = "SIGTERM"
    assert "**The run was cut off**: SIGTERM" in summary(run)
    assert "The run was cut off: SIGTERM" in page(run)


def test_anchors_stay_from_run_to_run():
    def anchors(run):
        return re.findall(r"^#+ .*$", summary(run), re.MULTILINE)

    common = ["# GPU proof of moody-good", "## Stack", "## First broken layer"]
    assert anchors(green())[:3] == anchors(red())[:3] == anchors(busy())[:3] == common
    layers = ["## Host", "## VM", "## Talos", "## Kubernetes", "## Workload", "## Transcode", "## Not checked"]
    for run in (green(), red(), busy()):
        found = anchors(run)
        assert [heading for heading in found if heading in layers] == layers


def test_the_answer_and_the_failure_come_first():
    text = summary(red())
    told = [
        "**✗ red**",
        "✗ 1 fail",
        "`TALOS-A-001`",
        "T10 Title of T10",
        "modules: nbd",
        "`talosctl edit mc`",
        "## Host",
    ]
    places = [text.index(words) for words in told]
    assert places == sorted(places)


def test_whatever_a_lab_says_is_text_in_its_cell():
    run = red()
    for v in run["verdicts"]:
        v.update(title=HOSTILE, target=HOSTILE, statement=HOSTILE)
    run["holders"] = green()["holders"]
    run["holders"][0]["holders"][0].update(app=HOSTILE, pod=HOSTILE)
    text = summary(run)
    assert "<script" not in text
    assert "https://" not in text
    for line in text.splitlines():
        if line.startswith("| "):
            cells = re.split(r"(?<!\\)\|", line)
            assert len(cells) in (6, 7), line


def test_text_is_escaped_and_cut():
    assert plain("a_b|c") == r"a\_b\|c"
    assert plain("x" * 1000) == "x" * 300 + " …"


def test_a_block_cannot_be_ended_by_what_is_in_it():
    assert fence("a\n````\nb") == ["`````text", "a", "````", "b", "`````"]


def test_earlier_values_stand_beside_todays():
    run = green()
    assert "| Decode: Frames | 606.1 frame/s | 600, 610 |" in summary(run, past_of(run, [600.0, 610.0]))


@pytest.mark.parametrize(("made", "word"), [(green, "green"), (red, "red"), (busy, "busy")])
def test_the_badge_says_how_it_ended(made, word):
    run = made()
    run["lab"] = 'a "lab" <b> & more'
    drawn = badge(run)
    root = ElementTree.fromstring(drawn)
    assert root.attrib["aria-label"] == f'labproof a "lab" <b> & more: {word}'
    assert "".join(root.itertext()).endswith(word)
    run["simulated"] = True
    assert "SIMULATED" in badge(run)


def test_the_sparkline_has_a_bar_a_run():
    run = red()
    past = past_of(run, [1.0] * 28)
    past[3]["exit_status"] = 1
    bars = [e for e in ElementTree.fromstring(sparkline(run, past)).iter() if e.tag.endswith("rect")]
    assert len(bars) == 29
    assert [b.attrib["height"] for b in bars].count("10") == 2  # red ones are lower: not told by colour alone
    assert "27 of the last 29 runs" in sparkline(run, past)


def test_nothing_changes_between_two_renderings():
    run = red()
    past = past_of(run, [1.0, 2.0])
    assert (summary(run, past), badge(run), sparkline(run, past)) == (
        summary(run, past),
        badge(run),
        sparkline(run, past),
    )
    assert CHAIN in summary(run)
