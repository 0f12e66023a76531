"""`labproof accept`: an exception in lab.yaml, and not one other character changed."""

import datetime

import pytest

from labproof import places
from labproof.checks.gate import Gate
from labproof.checks.registry import clauses
from labproof.cli import main
from labproof.inventory.load import load_lab
from labproof.report.accept import Refused, Wanted, accept

TODAY = datetime.date(2026, 11, 20)
SHIPPED = places.lab_file("t4-jellyfin").read_text("utf-8")
P09 = Wanted("HOST-GROUP-001", "The USB card: never used (see #12)", datetime.date(2027, 1, 31), "P09")

#: lab.yaml as different owners end it.
ENDINGS = {
    "no key": "",
    "no line end": "\n# the end",
    "comment behind": "\n# a comment at the end\n\n",
    "block": "\nexceptions:   # mine\n  - clause: HOST-IRQ-002\n    reason: old   # since 2024\n# behind\n",
    "block not indented": "\nexceptions:\n- clause: HOST-IRQ-002\n  reason: 'it''s old'\n",
    "folded": "\nexceptions:\n  - clause: HOST-IRQ-002\n    reason: >\n      it is\n      old\n\n# behind\n",
    "folded first": "\nexceptions:\n  - reason: >\n      it is\n      old\n\n    clause: HOST-IRQ-002\n\n# behind\n",
    "empty flow": "\nexceptions: []  # none yet\n",
    "flow": '\nexceptions: [{clause: HOST-IRQ-002, reason: "old, very"}]  # one\n',
    "flow with comma": "\nexceptions: [\n  {clause: HOST-IRQ-002, reason: old},  # one\n]\n",
    "document end": "\n...\n",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_nothing_but_the_exception_is_added(tmp_path, ending, line_end):
    before = (SHIPPED.rstrip("\n") + "\n" + ending).replace("\n", line_end)
    file = tmp_path / "lab.yaml"
    file.write_bytes(before.encode())
    file.chmod(0o640)
    accept(file, P09, TODAY)
    after = file.read_bytes().decode()
    lab = load_lab(file, read_secrets=False)
    assert lab.exceptions[-1].model_dump(exclude_none=True) == {
        "clause": "HOST-GROUP-001", "cause": "P09", "reason": P09.reason, "until": P09.until,
    }  # fmt: skip
    assert len(lab.exceptions) == (2 if "IRQ" in ending else 1)
    left = iter(after)
    assert all(sign in left for sign in before.replace("[]", "")), "something of the owner's was changed"
    assert after.count("#") == before.count("#") + 1, "the reason's own"
    assert ("\r\n" in after) == (line_end == "\r\n")
    assert after.count("\n") == after.count(line_end)
    assert file.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["lab.yaml"]


def test_a_link_stays_a_link(tmp_path):
    real = tmp_path / "real.yaml"
    real.write_text(SHIPPED, "utf-8")
    link = tmp_path / "lab.yaml"
    link.symlink_to(real)
    accept(link, P09, TODAY)
    assert link.is_symlink()
    assert "P09" in real.read_text("utf-8")


def test_the_same_exception_is_renewed_not_doubled(tmp_path):
    file = tmp_path / "lab.yaml"
    file.write_text(SHIPPED, "utf-8")
    accept(file, P09, TODAY)
    first = file.read_text("utf-8")
    later = Wanted("HOST-GROUP-001", "still unused", datetime.date(2027, 6, 30), "P09")
    assert "renewed" in accept(file, later, TODAY)
    renewed = first.replace('"The USB card: never used (see #12)"', "still unused")
    assert file.read_text("utf-8") == renewed.replace("2027-01-31", "2027-06-30")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("HOST-GRUOP-001", "x"), "did you mean HOST-GROUP-001"),
        (Wanted("HOST-GROUP-001", "x", cause="P9"), "did you mean P09"),
        (Wanted("HOST-GROUP-001", "x", chain="pve5/0000:3c:00.0"), "did you mean pve5/0000:3b:00.0"),
        (Wanted("HOST-GROUP-001", " "), "needs a reason"),
        (Wanted("HOST-GROUP-001", "x", datetime.date(2026, 11, 19)), "is over"),
    ],
)
def test_what_means_nothing_is_refused_and_nothing_written(tmp_path, wanted, words):
    file = tmp_path / "lab.yaml"
    file.write_text(SHIPPED, "utf-8")
    with pytest.raises(Refused, match=words):
        accept(file, wanted, TODAY)
    assert file.read_text("utf-8") == SHIPPED


@pytest.mark.parametrize(
    "reason", ["yes", "- x", "a: b", "# no", '"quoted"', "12", "ends with :", "ümlaut", "{x}", "*x"]
)
def test_any_reason_comes_back_as_it_was_typed(tmp_path, reason):
    file = tmp_path / "lab.yaml"
    file.write_text(SHIPPED, "utf-8")
    accept(file, Wanted("HOST-GROUP-001", reason), TODAY)
    assert load_lab(file, read_secrets=False).exceptions[0].reason == reason


def test_a_lab_that_is_not_valid_is_left_alone(tmp_path, capsys):
    file = tmp_path / "lab.yaml"
    file.write_text(SHIPPED + "\nhots: []\n", "utf-8")
    assert main(["accept", "HOST-GROUP-001", "--reason", "x", "--lab", str(file)]) == 2
    assert "hots" in capsys.readouterr().err
    assert main(["accept", "HOST-GROUP-001", "--reason", "x", "--until", "soon", "--lab", str(file)]) == 2
    assert file.read_text("utf-8") == SHIPPED + "\nhots: []\n"


@pytest.mark.parametrize(("until", "verdict"), [("2026-11-17", "fail"), ("2026-11-18", "excepted"), (None, "excepted")])
def test_an_exception_that_has_run_out_is_red_again(broken, until, verdict):
    run = broken("group-shared-with-usb")  # its facts are of 2026-11-18
    exception = {"clause": "HOST-GROUP-001", "reason": "unused", "cause": "P09", "until": until}
    lab = run.lab.model_validate({**run.lab.model_dump(mode="json"), "exceptions": [exception]})
    gate = Gate(run.facts, lab, ("host",))
    clause = clauses()["HOST-GROUP-001"]
    assert [gate.rule(clause, target).verdict for target in gate.expected_targets(clause)] == [verdict]
