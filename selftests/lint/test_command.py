"""`labproof lint` as its users run it: exit status, formats, streams, plans."""

import io
import json
import sys
from pathlib import Path

import pytest
import yaml

from labproof.cli import main
from labproof.lint.judge import lint

ROOT = Path(__file__).parents[2]
BAD = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: slices}
data:
  any: |
    sharing:
      timeSlicing:
        replicas: 4
"""


def run(capsys, *words):
    status = main(["lint", *words])
    return status, capsys.readouterr()


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "bad.yaml").write_text(BAD)
    return str(tmp_path / "bad.yaml")


def test_clean_is_0_findings_are_1_unreadable_is_4(capsys, tmp_path, bad):
    (tmp_path / "good.yaml").write_text("a: 1\n")
    assert run(capsys, str(tmp_path / "good.yaml"))[0] == 0
    assert run(capsys, bad)[0] == 1
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    status, said = run(capsys, str(tmp_path / "broken.yaml"))
    assert status == 4
    assert "broken.yaml:2: unreadable: not YAML" in said.out
    assert run(capsys, str(tmp_path / "nowhere.yaml"))[0] == 4


def test_unreadable_does_not_hide_findings(capsys, tmp_path, bad):
    (tmp_path / "z.yaml").write_bytes(b"\xff\xfe\x00")
    status, said = run(capsys, str(tmp_path))
    assert status == 4
    assert "K01" in said.out


@pytest.mark.parametrize("words", [[], ["--talos", "newest", "x"]])
def test_wrong_usage_is_2(capsys, words):
    assert run(capsys, *words)[0] == 2


def test_text_names_file_line_cause_and_remedy(capsys, bad):
    said = run(capsys, bad)[1].out
    assert f"{bad}:7: K01 blocking: the plugin exits at start" in said
    assert "resources" in said
    assert said.endswith("1 file, 1 finding\n")


def test_a_stream(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BAD.encode())))
    status, said = run(capsys, "-")
    assert status == 1
    assert "<stdin>:7: K01" in said.out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xff")))
    assert run(capsys, "-")[0] == 4


def test_json(capsys, bad):
    said = json.loads(run(capsys, bad, "--format", "json")[1].out)
    (finding,) = said["findings"]
    assert (finding["path"], finding["line"], finding["cause"], finding["severity"]) == (bad, 7, "K01", "blocking")
    assert finding["remedy"]
    assert said["exit_status"] == 1


def test_sarif_has_what_the_standard_requires(capsys, tmp_path, bad):
    (tmp_path / "with space.md").write_text("```yaml\nmachine:\n  type: ${x}\n```\n")
    said = json.loads(run(capsys, str(tmp_path), "--format", "sarif")[1].out)
    assert said["version"] == "2.1.0"
    assert said["$schema"].endswith("sarif-schema-2.1.0.json")
    (one,) = said["runs"]
    rules = one["tool"]["driver"]["rules"]
    assert one["tool"]["driver"]["name"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    assert one["results"]
    for result in one["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        place = result["locations"][0]["physicalLocation"]
        assert place["region"]["startLine"] >= 1
        assert " " not in place["artifactLocation"]["uri"]
        assert "\\" not in place["artifactLocation"]["uri"]
    (invocation,) = one["invocations"]
    assert invocation["executionSuccessful"] is True
    assert all(note["message"]["text"] for note in invocation["toolExecutionNotifications"])


def test_the_version_of_talos_can_be_given(capsys, tmp_path):
    (tmp_path / "schematic.yaml").write_text(
        "customization: {systemExtensions: {officialExtensions: [siderolabs/i915, siderolabs/xe]}}\n"
    )
    file = str(tmp_path / "schematic.yaml")
    assert run(capsys, file)[0] == 0
    assert run(capsys, file, "--talos", "1.11.6")[0] == 1
    assert run(capsys, file, "--talos", "v1.12.0")[0] == 0


def change(actions, before, after, kind="proxmox_virtual_environment_vm", **more):
    body = {"actions": actions, "before": before, "after": after, **more}
    return {"resource_changes": [{"address": f"{kind}.gpu", "type": kind, "change": body}]}


GPU = {"name": "gpu", "hostpci": [{"device": "hostpci0", "mapping": "t4"}]}


@pytest.mark.parametrize(
    ("plan", "causes"),
    [
        (change(["no-op"], GPU, GPU), []),
        (change(["update"], GPU, {**GPU, "name": "new"}), []),
        (change(["create"], None, GPU), []),
        (change(["update"], GPU, {"name": "gpu"}, after_unknown={"hostpci": True}), []),
        (change(["delete", "create"], {"name": "plain"}, {"name": "plain"}), []),
        (change(["delete", "create"], GPU, GPU, replace_paths=[["node_name"]]), ["P59"]),
        (change(["create", "delete"], GPU, {"name": "gpu"}), ["P59"]),
        (change(["delete"], GPU, None), ["P59"]),
        (change(["update"], GPU, {"name": "gpu", "hostpci": []}), ["P59"]),
        (change(["delete", "create"], {}, {}, kind="proxmox_hardware_mapping_pci"), ["P35"]),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_plan(tmp_path, plan, causes, indent):
    text = json.dumps({"format_version": "1.2", **plan}, indent=indent)
    (tmp_path / "plan.json").write_text(text)
    report = lint([], [str(tmp_path / "plan.json")])
    assert [f.cause for f in report.findings] == causes
    for finding in report.findings:
        assert ".gpu" in text.split("\n")[finding.line - 1]


def test_a_plan_that_is_none_is_unreadable(tmp_path):
    for text in ("{", "[]", "{}", "[" * 100_000):
        (tmp_path / "plan.json").write_text(text)
        assert lint([], [str(tmp_path / "plan.json")]).exit_status() == 4


def test_the_hook_runs_this_command():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["id"] == "labproof-lint"
    assert hook["entry"] == "labproof lint"
    assert hook["language"] == "python"


def test_files_of_this_repository_are_clean():
    report = lint([str(ROOT / part) for part in ("labs", "manifests", "docs", "README.md") if (ROOT / part).exists()])
    assert [(f.path, f.line, f.cause) for f in report.findings] == []
    assert report.unreadable == []
