"""Records what each cause looks like: judges every fault of the simulated lab and keeps the evidence of its problem.

    python -m selftests.docs.record_evidence docs/evidence.json

The cause pages of the site show it, so that a search for the words of an error finds the page. A selftest holds the
file to the faults that exist; run this again when faults were added, without the file when evidence reads differently.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

from labproof.checks.judgement import Fail
from labproof.checks.registry import LAYERS
from labproof.facts.atomic import write_text
from labproof.simlab.faults import load_faults
from labproof.simlab.server import SimLab
from selftests.matrix.harness import judge

LINES, WIDTH, ITEMS = 8, 160, 3
#: What differs between two recordings: files of a run, folders and ports of a simulation.
VOLATILE = (
    (re.compile(r"/tmp/labproof-sim-[\w-]+/"), "~/.labproof/"),
    (re.compile(r"labproof-[0-9a-f]{10}"), "labproof-run"),
    (re.compile(r"127\.0\.0\.1:\d+"), "192.0.2.10:6443"),  # RFC 5737: an address of nobody
)


def evidence_of(fault, outcome):
    """What the fault's clause saw: source and text, cut to what a page can bear."""
    for (clause, _), ruling in outcome.rulings.items():
        if clause != fault.clause or not isinstance(ruling.judgement, Fail):
            continue
        for problem in ruling.judgement.problems:
            if problem.cause == fault.cause:
                return [{"source": cut(e.source), "text": cut(e.text)} for e in problem.evidence[:ITEMS]]
    return []


def cut(text):
    """The first lines of a text, none of them endless."""
    for pattern, word in VOLATILE:
        text = pattern.sub(word, text)
    lines = text.strip().splitlines()
    kept = [line if len(line) <= WIDTH else f"{line[:WIDTH]} …" for line in lines[:LINES]]
    return "\n".join([*kept, "…"] if len(lines) > LINES else kept)


def record(target: Path) -> None:
    """Add the evidence of faults that the file does not hold yet, and take out those that are gone.

    Each lab is started once, and the file is whole after each fault: a recording that was cut off goes on.
    """
    faults = load_faults()
    before = json.loads(target.read_text("utf-8")) if target.is_file() else {}
    found = {ident: seen for ident, seen in before.items() if ident in faults}
    new = [fault for fault in faults.values() if fault.id not in found]
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(fault.lab for fault in new):
            with SimLab(name) as lab:
                for fault in (f for f in new if f.lab == name):
                    found[fault.id] = _recorded(lab, fault, Path(folder))
                    _write(target, found)
    _write(target, found)


def _write(target, found):
    held = {ident: seen for ident, seen in sorted(found.items()) if seen}
    write_text(target, json.dumps(held, indent=1, ensure_ascii=False) + "\n")


def _recorded(lab, fault, folder):
    lab.reset([fault.id], fault.variation)
    outcome = judge({"patch": lab.overlay["patch"]}, folder, lab=fault.lab, layers=fault.layers or LAYERS)
    seen = evidence_of(fault, outcome)
    if not seen:
        print(f"no evidence for {fault.id}", file=sys.stderr)
    return seen


if __name__ == "__main__":
    record(Path(sys.argv[1]))
