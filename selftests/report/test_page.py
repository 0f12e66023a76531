"""The page stands alone, says the answer first, escapes whatever a lab says, and stays small."""

import re
from html.parser import HTMLParser

import pytest

from labproof.report.markdown import summary
from labproof.report.page import page, steps
from labproof.report.stack import stack_svg

from .made_runs import CHAIN, LAYERS, busy, failing, green, past_of, red, verdict

HOSTILE = "</pre></style><script>alert(1)</script><img src=x onerror=alert(2)> \"'&amp; {{ 7 * 7 }} ]]>"
#: Elements that have no end tag.
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Elements with their attributes; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text, self.wrong = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)

    def ids(self):
        return [attrs["id"] for _, attrs in self.elements if "id" in attrs]


@pytest.fixture(params=[green, red, busy], ids=["green", "red", "busy"])
def run(request):
    return request.param()


def test_it_asks_nobody_for_anything(run):
    text = page(run, past_of(run, [600.0, 610.0]))
    assert "://" not in text
    assert not re.search(r"@import|url\(", text)
    read = Page(text)
    assert {tag for tag, _ in read.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
    } == set()
    assert [a for _, attrs in read.elements for a in attrs if a.startswith("on")] == []
    assert {attrs["href"][0] for tag, attrs in read.elements if tag == "a"} == {"#"}


def test_its_tags_match_and_its_links_lead_somewhere(run):
    read = Page(page(run))
    assert (read.wrong, read.open) == ([], [])
    ids = read.ids()
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for tag, attrs in read.elements if tag == "a"} <= set(ids)


def test_the_answer_stands_on_top():
    for made, word in ((green(), "green"), (red(), "red"), (busy(), "busy")):
        text = page(made)
        heading = re.search(r"<h1>(.*?)</h1>", text)
        assert heading[1] == f"moody-good is <em>{word}</em>"
        assert heading.start() < text.index("<svg")
    made = green()
    assert "SIMULATED" not in page(made)
    made["simulated"] = True
    assert page(made).index("SIMULATED LAB") < page(made).index("<h1>")


def test_the_first_broken_layer_is_told_in_full():
    text = page(red())
    part = text[text.index('id="broken"') : text.index('<h2 id="clauses"')]
    told = [
        "First broken layer: Talos",
        "TALOS-A-001 MUST hold",
        "get kernelmodulespecs",
        "modules: nbd",
        "T10",
        "Impact of T10",
    ]
    places = [part.index(words) for words in told]
    assert places == sorted(places)
    assert '<pre class="do">machine:\n  kernel:\n    modules: []</pre>' in part
    assert "facts talos 6 T10" in part


def test_a_remedy_sets_apart_what_is_copied():
    assert steps("Run `a <b>`.\n  x: 1\n  y: 2\nDone") == (
        '<p>Run <code class="do">a &lt;b&gt;</code>.</p>\n<pre class="do">x: 1\ny: 2</pre>\n<p>Done</p>'
    )


def test_whatever_a_lab_says_is_only_text():
    made = red()
    made["lab"] = made["labproof"] = HOSTILE
    for v in made["verdicts"]:
        v.update(title=HOSTILE, statement=HOSTILE, target=HOSTILE, evidence=[{"source": HOSTILE, "text": HOSTILE}])
        for p in v["problems"]:
            p.update(title=HOSTILE, subject=HOSTILE, remedy=HOSTILE, impact=HOSTILE, source=HOSTILE)
    made["holders"] = green()["holders"]
    made["holders"][0]["holders"][0].update(app=HOSTILE, pod=HOSTILE)
    made["chains"][CHAIN]["layers"][0].update(name=HOSTILE, versions={HOSTILE: HOSTILE})
    made["measurements"] = [
        {"chain": CHAIN, "clause": "C", "name": HOSTILE, "value": 1.0, "unit": HOSTILE, "samples": [1.0, 2.0]}
    ]
    read = Page(page(made, past_of(made, [1.0, 2.0], HOSTILE)))
    assert (read.wrong, read.open) == ([], [])
    assert {tag for tag, _ in read.elements} & {"script", "img"} == set()
    assert "{{ 7 * 7 }}" in "".join(read.text)  # no template engine looked at it


def test_endless_lines_are_cut_and_say_so():
    made = green()
    made["verdicts"][0]["evidence"] = [{"source": "dmesg", "text": "x" * 10_000}]
    text = page(made)
    assert "x" * 1501 not in text
    assert "8500 more characters in run.json" in text
    bad = red()
    bad["verdicts"][2]["problems"][0]["evidence"] = [{"source": "dmesg", "text": "y" * 10_000}]
    assert "y" * 8000 in page(bad)  # a failure may be longer than a pass


def test_five_hundred_talkative_clauses_stay_below_a_megabyte_and_a_half():
    made = green()
    talk = [{"source": "journalctl -k", "text": '"<&>"' * 800} for _ in range(4)]
    made["verdicts"] = [
        verdict(f"C-{i:03}", LAYERS[i % 6], evidence=talk)
        if i % 5
        else failing(f"C-{i:03}", LAYERS[i % 6], severity="degraded", target=f"t{i}")
        for i in range(500)
    ]
    for v in made["verdicts"][::5]:
        v["problems"][0]["evidence"] = talk
    assert len(page(made).encode()) < 1_500_000


def test_the_same_run_gives_the_same_page(run):
    past = past_of(run, [600.0, 610.0])
    assert page(run, past) == page(run, past)


def test_verdicts_are_told_without_colour():
    drawn = str(stack_svg(red(), CHAIN))
    for words in ("✓", "1 pass", "✗", "1 fail", "first broken layer: T10", "~", "1 excepted", "blocked by TALOS-A-001"):
        assert words in drawn
    assert "Tesla T4" in drawn
    assert "PCI slot 0000:3b:00.0" in drawn
    assert "PVE 8.4.1 · kernel 6.8.12-9-pve" in drawn
    assert "Talos 1.11.6 · driver 570.172.08" in drawn
    assert "media/jellyfin holds 1" in str(stack_svg(green(), CHAIN))
    assert "3 of 4 nvidia.com/gpu free" in str(stack_svg(green(), CHAIN))


def test_a_layer_names_what_blocks_it_on_this_chain():
    run = red()
    for v in run["verdicts"][3:]:
        v["blocked_by"] = "HOST-OF-ANOTHER-CHAIN"
    run["verdicts"].append(verdict("TALOS-B-001", "kubernetes"))
    drawn = str(stack_svg(run, CHAIN))
    assert "1 blocked by TALOS-A-001" in drawn
    assert "1 blocked, 1 pass (by TALOS-A-001)" in drawn
    assert "ANOTHER" not in drawn


def test_a_finding_of_hygiene_is_told_as_such():
    run = green()
    run["verdicts"][0] = failing("HOST-A-001", "host", severity="hygiene")
    assert "1 fail (hygiene only)" in str(stack_svg(run, CHAIN))


def test_reasons_are_told_once():
    text = page(busy())
    part = text[text.index('id="unchecked"') : text.index('id="timings"')]
    assert part.count("ai/ollama (4)") == 1
    assert "2 unchecked" in part


def test_exceptions_tell_their_dates():
    text = page(red())
    part = text[text.index('id="accepted"') : text.index('id="timings"')]
    rows = re.findall(r"<tr>.*?</tr>", part, re.DOTALL)[1:]
    assert ["2027-01-01" in rows[0], "expired" in rows[0], CHAIN in rows[0]] == [True, False, True]
    assert ["2026-01-01" in rows[1], "expired" in rows[1], "nothing" in rows[1]] == [True, True, True]


def test_measurements_are_drawn_with_their_history():
    made = green()
    assert "<polyline" not in page(made)
    text = page(made, past_of(made, [600.0, 610.0, 1212.2]))
    assert text.count("<polyline") == 1
    assert "-1 %; median of 3 earlier runs 610" in text


def test_what_changed_is_told_where_the_run_was_compared():
    made = red()
    assert "What changed" not in page(made) + summary(made)
    made["drift"] = [{"run_id": "trusted", "text": "0000:3b:00.0 -> 0000:5e:00.0"}]
    head = {"run_id": "before", "started": "2026-11-19T20:32:15+00:00", "lab": "moody-good", "simulated": False}
    comparison = {
        "before": head,
        "after": head,
        "versions": [],
        "facts": [],
        "verdicts": [],
        "unknown": [],
        "measurements": [],
        "culprits": [{"sentence": f"TALOS-A-001 broke because {HOSTILE}"}],
    }
    text = page(made, [], comparison)
    read = Page(text)
    assert (read.wrong, read.open) == ([], [])
    assert "script" not in {tag for tag, _ in read.elements}
    assert text.index("Likely culprit") < text.index('id="changed"')
    assert "0000:3b:00.0 -&gt; 0000:5e:00.0" in text
    told = summary(made, [], comparison)
    part = told[told.index("## What changed") : told.index("## Host")]
    assert "drift from baseline trusted" in part
    assert text.index('id="drift"') < text.index('id="changed"')
    assert "culprit TALOS-A-001 broke" in part
    assert "<script" not in part


def test_a_run_recorded_before_holders_were_is_rendered_too():
    made = green()
    for key in ("holders", "exceptions"):
        del made[key]
    for key in ("address", "card"):
        del made["chains"][CHAIN][key]
    assert "moody-good is <em>green</em>" in page(made)
