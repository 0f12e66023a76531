"""What of history.jsonl a report shows: the same lab, the same world, earlier, whole lines."""

import json

from labproof.report.past import FILE, earlier_values, past_runs

from .made_runs import CHAIN, green, past_of


def written(folder, entries, tail=""):
    (folder / FILE).write_text("".join(json.dumps(e) + "\n" for e in entries) + tail)
    return folder


def test_no_history_is_no_runs(tmp_path):
    assert past_runs(tmp_path, green()) == []


def test_only_earlier_runs_of_this_lab(tmp_path):
    run = green()
    mine = past_of(run, [1.0, 2.0, 3.0])
    other = {**mine[0], "run_id": "x", "lab": "other"}
    simulated = {**mine[0], "run_id": "y", "simulated": True}
    later = {**mine[0], "run_id": "z", "started": "2027-01-01T00:00:00+00:00"}
    itself = {**mine[0], "run_id": run["run_id"], "started": run["started"]}
    folder = written(tmp_path, [mine[2], mine[0], other, simulated, later, itself, mine[1]])
    assert past_runs(folder, run) == mine


def test_half_a_line_is_passed_over(tmp_path):
    run = green()
    mine = past_of(run, [1.0])
    folder = written(tmp_path, [*mine, [], "text"], tail='{"run_id": "torn", "star')
    assert past_runs(folder, run) == mine


def test_values_of_one_measurement_on_one_chain():
    run = green()
    past = past_of(run, [1.0, 2.5])
    past[0]["measurements"] += [{"chain": "other", "name": "decode_fps", "value": 9.0}, "no record"]
    past[1]["measurements"] += [{"chain": CHAIN, "name": "decode_fps", "value": None}]
    assert earlier_values(past, CHAIN, "decode_fps") == [1.0, 2.5]
