"""`labproof forecast` as it is typed: exit statuses, one message for each error, text and JSON."""

import json
import subprocess
import sys

import pytest

from labproof.cli import main
from labproof.facts import meta

from .conftest import BELOW_PODS, saved


@pytest.fixture(scope="module")
def pascal(tmp_path_factory):
    """A run of the lab with a Tesla P4, as `pytest` leaves it (reports folder)."""
    folder = tmp_path_factory.mktemp("reports-of-a-run")
    ran = subprocess.run(
        [
            sys.executable, "-m", "pytest", "--pyargs", "labproof.suites", "-q", "-p", "no:cacheprovider",
            "--sim", "t4-jellyfin", "--variation", "tesla-p4", "-m", "host or vm or talos or kubernetes",
        ],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (folder / "reports/latest/run.json").is_file(), ran.stdout + ran.stderr
    return folder / "reports"


@pytest.fixture
def typed(pascal, capsys):
    def run(*words):
        status = main(["forecast", "--reports", str(pascal), *words])
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def test_the_last_run_is_judged(typed):
    status, out, err = typed("--to", "talos=1.13.9")
    assert (status, err) == (1, "")
    assert "talos moody-good: v1.11.6 -> v1.13.9" in out
    assert "BLOCKING  TALOS-DRIVER-001 on pve5/0000:3b:00.0" in out
    assert "T16 The driver release does not support this card" in out
    assert "595.91.07" in out
    assert "do:     " in out
    assert "field report" in out
    assert "1 will break." in out


def test_nothing_breaks(typed):
    status, out, _ = typed("--to", "talos=1.12.6")
    assert status == 0
    assert "Nothing known breaks." in out


def test_a_run_is_named_by_folder_facts_or_id(typed, pascal):
    whole = typed("--to", "talos=1.13.9", "--json")
    run = (pascal / "latest").resolve()
    for name in (run, run / "facts", run.name):
        assert typed("--to", "talos=1.13.9", "--json", "--facts", str(name)) == whole


def test_json_holds_cause_remedy_source_and_sureness(typed):
    status, out, _ = typed("--to", "talos=1.13.9", "--to", "pve=9", "--json")
    told = json.loads(out)
    assert (status, told["schema"], told["exit_status"]) == (1, 1, 1)
    assert {s["component"] for s in told["steps"]} == {"talos", "pve", "kernel"}
    (broken,) = told["breaks"]
    assert (broken["clause"], broken["target"], broken["severity"]) == (
        "TALOS-DRIVER-001",
        "pve5/0000:3b:00.0",
        "blocking",
    )
    (problem,) = broken["problems"]
    assert problem["cause"] == "T16"
    assert problem["sure"] == "field report"
    assert problem["source"]
    assert problem["remedy"]
    assert problem["evidence"][0]["text"].startswith("nonfree-kmod-nvidia-production 595.91.07-v1.13.9")
    assert told["cannot_tell"] == []


def test_what_stands_behind_a_blocker_is_told(typed):
    status, out, _ = typed("--to", "talos=1.13.9", "--to", "kubernetes=1.37", "--json")
    told = json.loads(out)
    assert status == 1
    assert [(b["clause"], b["blocked_by"]) for b in told["behind"]] == [("K8S-SKEW-001", "TALOS-DRIVER-001")]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--to", "talos=9.9.9"], 4, "newer than the data, known up to v1.14.0"),
        (["--to", "talos=1.10.4"], 4, "would be a downgrade"),
        (["--to", "cuda=13"], 4, "unknown component"),
        (["--to", "talos=1.13.9", "--facts", "no-such-run"], 5, "no facts: no run or folder called 'no-such-run'"),
    ],
)
def test_an_error_is_one_message(typed, words, status, says):
    got, out, err = typed(*words)
    assert (got, out) == (status, "")
    assert err.startswith("labproof forecast: ")
    assert says in err
    assert err.count("\n") == 1


def test_no_run_at_all(tmp_path, capsys):
    assert main(["forecast", "--to", "talos=1.13.9", "--reports", str(tmp_path)]) == 5
    assert capsys.readouterr().err.startswith("labproof forecast: no facts: ")


def test_a_run_whose_facts_are_gone(pascal, tmp_path, capsys):
    (tmp_path / "run.json").write_text((pascal / "latest" / "run.json").read_text("utf-8"), "utf-8")
    assert main(["forecast", "--to", "talos=1.13.9", "--facts", str(tmp_path)]) == 5
    assert "no saved facts" in capsys.readouterr().err


def test_wrong_usage_is_argparses(capsys):
    with pytest.raises(SystemExit) as left:
        main(["forecast"])
    assert left.value.code == 2


def test_a_layer_that_was_never_read_gives_status_six(judged, tmp_path, capsys):
    outcome, lab = judged(layers=BELOW_PODS[:1])
    folder = saved(outcome)._store.folder
    meta.write(folder, meta.Meta(outcome.facts.now, lab, "lab.yaml"))
    assert main(["forecast", "--to", "talos=1.13.9", "--facts", str(folder)]) == 6
    assert "Talos API of moody-good: talos facts of moody-good were not recorded" in capsys.readouterr().out
