"""history.jsonl: a line a run, whatever crashed; pruned without losing what is needed."""

import json
import multiprocessing
import os
import time

import pytest

from labproof.report import history
from labproof.report.past import past_runs


def result(number, lab="moody-good", simulated=True, **more):
    started = f"2026-11-{1 + number // 24:02d}T{number % 24:02d}:00:00+00:00"
    return {
        "run_id": f"run-{number:03d}", "started": started, "lab": lab,
        "simulated": simulated, "seconds": 1.0, "exit_status": 0, "first_broken": [], "versions": {"pve": "8.4.1"},
        "verdicts": [{"clause": "HOST-IOMMU-001", "target": "pve5", "verdict": "pass"}],
        "measurements": [{"chain": "c", "clause": "CODEC-H264-001", "name": "h264_fps", "value": 10.0 + number,
                          "unit": "frame/s", "samples": [1.0]}],
        **more,
    }  # fmt: skip


def run_folder(reports, number, **more):
    folder = reports / "runs" / f"run-{number:03d}"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(result(number, **more)), "utf-8")
    history.append(reports, result(number, **more))
    return folder


def test_a_line_holds_what_later_comparisons_need(tmp_path):
    history.append(tmp_path, result(1))
    (entry,) = history.read(tmp_path)
    assert entry["verdicts"] == {"HOST-IOMMU-001|pve5": "pass"}
    assert entry["counts"] == {"pass": 1}
    assert entry["measurements"] == [
        {"chain": "c", "clause": "CODEC-H264-001", "name": "h264_fps", "value": 11.0, "unit": "frame/s"}
    ]
    assert [e["run_id"] for e in past_runs(tmp_path, result(2))] == ["run-001"], "the page reads the same lines"


@pytest.mark.parametrize("torn", [b'{"run_id": "run-0', b"\x00\x00", b"[1, 2]", b'{"run_id": 7}'])
def test_half_a_line_is_skipped_and_taken_away_by_the_next_run(tmp_path, torn):
    history.append(tmp_path, result(1))
    with (tmp_path / history.FILE).open("ab") as file:
        file.write(torn)
    assert [e["run_id"] for e in history.read(tmp_path)] == ["run-001"]
    history.append(tmp_path, result(2))
    lines = (tmp_path / history.FILE).read_bytes().splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == ["run-001", "run-002"]


def test_a_whole_line_without_its_end_is_kept(tmp_path):
    history.append(tmp_path, result(1))
    file = tmp_path / history.FILE
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    history.append(tmp_path, result(2))
    assert [e["run_id"] for e in history.read(tmp_path)] == ["run-001", "run-002"]


def _append_many(reports, first):
    for number in range(first, first + 20):
        history.append(reports, result(number))


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(tmp_path, first)) for first in (0, 20, 40)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(history.read(tmp_path)) == 60
    assert len((tmp_path / history.FILE).read_bytes().splitlines()) == 60


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / history.FILE).mkdir()
    with pytest.raises(history.HistoryNotWritten, match="directory"):
        history.append(tmp_path, result(1))


def test_pruning_keeps_the_newest_of_each_lab_and_what_is_trusted(tmp_path):
    for number in range(6):
        run_folder(tmp_path, number)
    for number in (10, 11):
        run_folder(tmp_path, number, simulated=False)
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "baseline.json").write_text('{"run_id": "run-000"}', "utf-8")
    running = tmp_path / "runs" / "run-running"
    running.mkdir()
    dead = tmp_path / "runs" / "run-dead"
    dead.mkdir()
    os.utime(dead, (time.time() - 2 * history.UNFINISHED_S,) * 2)
    gone = history.prune(tmp_path, 2)
    assert gone == ["run-001", "run-002", "run-003", "run-dead"]
    kept = sorted(p.name for p in (tmp_path / "runs").iterdir() if p.is_dir())
    assert kept == ["run-000", "run-004", "run-005", "run-010", "run-011", "run-running"]
    assert [e["run_id"] for e in history.read(tmp_path)] == ["run-000", "run-004", "run-005", "run-010", "run-011"]


def test_the_newest_and_the_latest_run_are_never_pruned(tmp_path):
    for number in range(3):
        run_folder(tmp_path, number)
    run_folder(tmp_path, 5, lab="other")
    (tmp_path / "latest").symlink_to("runs/run-000")
    history.prune(tmp_path, 1)
    assert {e["run_id"] for e in history.read(tmp_path)} == {"run-000", "run-002", "run-005"}
    with pytest.raises(ValueError, match="at least 1"):
        history.prune(tmp_path, 0)
