"""The transcode probe over a cluster that answers from memory: what it runs where, and what stops it."""

from __future__ import annotations

from threading import Event

import pytest

from labproof.checks.judgement import Pass
from labproof.checks.registry import clauses
from labproof.clients.errors import Kind
from labproof.clients.kubernetes import ExecResult
from labproof.facts.reading import State
from labproof.inventory.chains import chains_of
from labproof.probes import pods as pods_module
from labproof.probes.transcode import probe_transcode
from selftests.transcode.world import OPENED
from selftests.workload.api import Api
from selftests.workload.world import causes_of, judge, lab

PSNR = "[Parsed_psnr_4 @ 0x1] PSNR y:47.1 u:48.0 v:48.2 average:47.6 min:44.1 max:52.0\n"
SSIM = "[Parsed_ssim_4 @ 0x1] SSIM Y:0.997 (25.7) U:0.998 (27.1) V:0.998 (27.2) All:0.9975 (25.97)\n"


class Card(Api):
    """A cluster whose ffmpeg answers like a T4's, and whose counters move as often as it is asked to encode."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[str, str]] = []
        self.broken: ExecResult | None = None
        self.working = 0
        self.paused = Event()  # never set: a wait that nothing ends early

    def exec(
        self, namespace: str, pod: str, argv: list[str], container: str | None = None, timeout_s: float = 60.0
    ) -> ExecResult:
        if argv[0] == "nvidia-smi" and argv[1].startswith("--query-gpu"):
            idle, busy = "0, 0, 0, 5, 14900, 40, P8, 0x1\n", "8, 60, 2, 300, 14600, 44, P0, 0x0\n"
            line = busy if self.working else idle
            return ExecResult(0, line.encode(), b"", None, None, 0.0)
        program = argv[0].rsplit("/", 1)[-1]
        if program == "ffmpeg":
            return self._ffmpeg(pod, argv)
        if program == "ffprobe":
            return self._ffprobe(argv)
        return super().exec(namespace, pod, argv, container, timeout_s)

    def _ffmpeg(self, pod: str, argv: list[str]) -> ExecResult:
        if argv[1:] == ["-version"]:
            return ExecResult(0, b"ffmpeg version 7.1.2-Jellyfin Copyright (c) ...\n", b"", None, None, 0.0)
        graph = argv[argv.index("-lavfi") + 1] if "-lavfi" in argv else ""
        if graph:
            return ExecResult(0, b"", (PSNR if "psnr" in graph else SSIM).encode(), None, None, 0.0)
        name = argv[-1].rsplit("-", 1)[-1].removesuffix(".mp4") or "decode"
        self.ran.append((pod, name))
        if self.broken is not None and name != "software":
            return self.broken
        if "av1_nvenc" in argv:
            return ExecResult(1, b"", b"[av1_nvenc @ 0x1] Codec not supported\n", None, None, 0.0)
        self.working += 1
        try:
            self.paused.wait(0.06)  # long enough for a sample between two polls
        finally:
            self.working -= 1
        return self._done(argv)

    def _done(self, argv: list[str]) -> ExecResult:
        software = "libx264" in argv
        frames = 30 * (10 if "-stream_loop" in argv else 1)
        encoder = argv[argv.index("-c:v") + 1] if "-c:v" in argv else "native"
        codec = "hevc" if "hevc" in encoder else "h264"
        log = f"  Stream #0:0 -> #0:0 (rawvideo (native) -> {codec} ({encoder}))\n" + ("" if software else OPENED)
        log += f"bench: utime={9.0 if software else 0.1}s stime=0.0s rtime=1.0s\n"
        out = f"frame={frames}\ndrop_frames=0\nspeed=1.0x\nprogress=end\n"
        return ExecResult(0, out.encode(), log.encode(), None, None, 0.0)

    def _ffprobe(self, argv: list[str]) -> ExecResult:
        name = argv[-1]
        codec = "hevc" if "hevc" in name else "h264"
        encoder = "libx264" if "software" in name else f"{codec}_nvenc"
        tags = f'"tags": {{"encoder": "Lavc61 {encoder}"}}'
        text = f'{{"streams": [{{"codec_name": "{codec}", "nb_read_frames": "30", {tags}}}]}}'
        return ExecResult(0, text.encode(), b"", None, None, 0.0)


@pytest.fixture
def card(monkeypatch, tmp_path):
    cluster = Card()
    monkeypatch.setattr(pods_module, "open_session", lambda lab, cluster_: cluster)
    monkeypatch.setattr(pods_module.tempfile, "gettempdir", lambda: str(tmp_path))
    return cluster


def probe(declared=None):
    declared = declared or lab()
    return probe_transcode(declared, chains_of(declared)[0])


def test_healthy_card_is_judged_well_and_left_as_found(card):
    before = set(card.pods)
    reading = probe()
    assert reading.state is State.VALUE, reading.why
    for clause in clauses().values():
        if clause.reads == ("transcode",) and "nvidia" in clause.wants:
            judgement = judge(clause.id, None, of_transcode=reading.value)
            assert isinstance(judgement, Pass), judgement
    assert set(card.pods) == before
    assert card.leases == {}


def test_one_run_at_a_time_then_one_for_each_slot(card):
    facts = probe().value
    assert [r.name for r in facts.runs] == ["software", "h264", "hevc", "decode", "transcode", "app", "av1"]
    assert card.most_slots_of_ours == 2  # three of four are free, one stays so
    assert facts.at_once.value.wanted == 2
    assert len({pod for pod, _ in card.ran}) == 2


def test_in_the_owners_pod_only_the_engines_are_proven(card):
    facts = probe(lab(probe={"via": "exec", "pod": "media/jellyfin"})).value
    assert [r.name for r in facts.runs] == ["software", "h264", "decode", "transcode"]
    assert facts.created == ()
    for clause in ("CODEC-H264-001", "CODEC-HEVC-001", "CODEC-NOFALLBACK-001", "CODEC-CONCURRENT-001"):
        assert isinstance(judge(clause, None, of_transcode=facts), Pass), clause


def test_card_below_the_floor_is_left_alone(card):
    reading = probe(lab(probe={"min_free_vram_mib": 20000}))
    assert reading.kind == "busy"
    assert "20000 MiB wanted" in reading.why
    assert card.ran == []


def test_full_card_is_busy(card):
    card.pods.update(Api(held=4).pods)
    reading = probe()
    assert reading.kind == "busy"
    assert "media/jellyfin" in reading.why


def test_encoder_that_does_not_open(card):
    log = b"[h264_nvenc @ 0x1] Cannot load libnvidia-encode.so.1\n"
    card.broken = ExecResult(1, b"", log, None, None, 0.0)
    assert causes_of(judge("CODEC-H264-001", None, of_transcode=probe().value)) == ["W13"]


def test_exec_that_breaks_off_is_no_verdict(card):
    card.broken = ExecResult(None, b"", b"", "the connection ended before the command did", Kind.RESET, 0.0)
    judgement = judge("CODEC-H264-001", None, of_transcode=probe().value)
    assert "connection ended" in judgement.reason
