"""What the reports take from recorded facts: holders, measurements nobody judges, versions; and rendering again."""

import json
from types import SimpleNamespace

import pytest

from labproof.cli import main
from labproof.facts.ffmpeg import Progress, Quality
from labproof.facts.kubernetes import ClusterFacts
from labproof.facts.reading import NOT_ASKED, failed, value
from labproof.inventory.chains import chains_of
from labproof.inventory.load import load_lab
from labproof.places import lab_file
from labproof.report.holders import app_of, holdings
from labproof.report.measured import measurements
from labproof.report.wording import duration, spoken

from .made_runs import CHAIN, green


@pytest.fixture(scope="module")
def chains():
    return chains_of(load_lab(lab_file("t4-jellyfin"), {}, read_secrets=False))


def pod(name, slots, node="moody-good", finished=False, owner=("", "")):
    return SimpleNamespace(
        node=node, finished=finished, requests={"nvidia.com/gpu": slots}, namespace="media", name=name,
        slot_since=1795206737.0, created=0.0, owner=owner, priority=0,
    )  # fmt: skip


def cluster(pods):
    node = SimpleNamespace(name="moody-good", allocatable={"nvidia.com/gpu": 4})
    return SimpleNamespace(cluster=lambda _: value(ClusterFacts("moody", nodes=value((node,)), pods=pods)))


def test_who_holds_what(chains):
    pods = (
        pod("jellyfin-x", 1, owner=("ReplicaSet", "jellyfin-7d9f8b6c5d")),
        pod("done", 1, finished=True),
        pod("o", 1, "b"),
    )
    (record,) = holdings(cluster(value(pods)), chains)
    assert (record["node"], record["resource"], record["allocatable"]) == ("moody-good", "nvidia.com/gpu", 4)
    assert record["chains"] == [CHAIN]
    assert [(h["app"], h["slots"], h["since"]) for h in record["holders"]] == [
        ("media/jellyfin", 1, "2026-11-20T20:32:17+00:00")
    ]


def test_pods_that_could_not_be_read_are_not_nobody(chains):
    (record,) = holdings(cluster(failed("pods", "forbidden")), chains)
    assert record["pods_read"] is False
    assert holdings(SimpleNamespace(cluster=lambda _: NOT_ASKED), chains) == []


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("ReplicaSet/jellyfin-hnjndlgjgn", "jellyfin"),
        ("StatefulSet/ollama", "ollama"),
        ("Job/night-29384756", "night-29384756"),
        ("", "bare"),
    ],
)
def test_the_app_behind_a_pod(owner, name):
    assert app_of(owner, "bare") == name


def ffmpeg_run(name, speed, psnr=None):
    return SimpleNamespace(
        name=name, progress=value(Progress(True, 120, 0, 0, speed, 30.0)), psnr=value(psnr) if psnr else NOT_ASKED,
        ssim=NOT_ASKED, cost=NOT_ASKED,
        samples=value((SimpleNamespace(memory_used=100), SimpleNamespace(memory_used=195))),
    )  # fmt: skip


def test_measurements_nobody_judges(chains):
    runs = (ffmpeg_run("h264", 1.0, Quality(41.7, 39.9)), ffmpeg_run("decode", 20.2))
    here = SimpleNamespace(runs=runs, at_once=NOT_ASKED)
    facts = SimpleNamespace(transcode=lambda _: value(here))
    judged = [
        {
            "chain": CHAIN,
            "clause": "CODEC-H264-001",
            "measurements": [{"name": "h264_cpu_per_frame", "value": 3.0, "unit": "ms"}],
        }
    ]
    rows = [(m["clause"], m["name"], m["value"]) for m in measurements(facts, chains, judged)]
    assert rows == [
        ("CODEC-H264-001", "h264_cpu_per_frame", 3.0),
        ("CODEC-H264-001", "h264_psnr", 41.7),
        ("CODEC-H264-001", "h264_vram", 195.0),
        ("", "decode_speed", 20.2),  # an encode held to real time has no speed worth telling
        ("", "decode_vram", 195.0),
    ]
    assert measurements(SimpleNamespace(transcode=lambda _: NOT_ASKED), chains, []) == []


def test_versions_are_spoken():
    told = {"pve": "8.4.1", "pve_api": "8.4.1", "talos": "v1.11.6", "driver": "570.172.08-v1.11.6", "extensions": "a 1"}
    assert spoken(told) == ["PVE 8.4.1", "Talos 1.11.6", "driver 570.172.08"]
    assert spoken({"kubernetes": "v1.34.3+sim", "kubelet": "v1.34.3"}) == ["Kubernetes 1.34.3+sim"]
    assert spoken({"kubernetes": "v1.34.3", "kubelet": "v1.33.1", "containerd": "containerd://2.1.5"}) == [
        "Kubernetes 1.34.3",
        "kubelet 1.33.1",
        "containerd 2.1.5",
    ]
    assert (duration(9.64), duration(200)) == ("9.6 s", "3 min 20 s")


@pytest.mark.parametrize("given", ["latest", "one", "runs/one", "runs/one/run.json"])
def test_a_run_is_rendered_again(tmp_path, monkeypatch, capsys, given):
    folder = tmp_path / "reports" / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(green()))
    (tmp_path / "reports" / "latest").symlink_to("runs/one")
    monkeypatch.chdir(tmp_path / "reports")
    assert main(["report", given, "--reports", str(tmp_path / "reports")]) == 0
    assert capsys.readouterr().out.strip().endswith("runs/one/index.html")
    assert sorted(p.name for p in folder.iterdir()) == [
        "badge.svg",
        "index.html",
        "run.json",
        "sparkline.svg",
        "summary.md",
    ]


@pytest.mark.parametrize(
    ("text", "said"), [(None, "no run"), ("{", "cannot be read"), ('{"schema": 9}', "has schema 9")]
)
def test_what_is_no_run_is_said(tmp_path, capsys, text, said):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    assert main(["report", str(tmp_path)]) == 4
    assert said in capsys.readouterr().err
