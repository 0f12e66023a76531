"""What the apps' own answers are made of, with a server that only remembers what it was asked."""

import json

import pytest

from labproof.clients.errors import Kind, TransportFailure
from labproof.facts.apps import AppFacts
from labproof.inventory.branches import App
from labproof.inventory.models import Lab
from labproof.probes import app_frigate, app_inference, app_jellyfin, app_ollama, app_sessions
from labproof.probes.apps import _belongs, _headers

LAB = Lab(lab="x")
ITEM = "f27caa37e5142225cceded48f6553502"


class Server:
    """Answers by path; a callable answer is asked each time, an exception is raised."""

    where = "http://app"

    def __init__(self, **answers):
        self.answers = {path.replace("__", "/"): told for path, told in answers.items()}
        self.asked = []

    def ask(self, path, query=None, *, method="GET", body=None):
        self.asked.append((method, path, dict(query or {}), body))
        told = self.answers.get(path, TransportFailure(Kind.NOT_FOUND, "app", path, status=404))
        told = told() if callable(told) else told
        if isinstance(told, Exception):
            raise told
        return told if isinstance(told, bytes) else json.dumps(told).encode()


def app(kind, **expect):
    return App(name=kind, kind=kind, workload=f"media/{kind}", expect=expect)


def look(module, server, declared, **facts):
    return module(server, declared, LAB, AppFacts(declared.name, declared.kind, **facts))


# ---------------------------------------------------------------- Jellyfin


def jellyfin(log, name="FFmpeg.Transcode-2026-11-20_x_1.log"):
    logs = iter([[], [{"Name": name}]])
    return Server(**{
        "System__Configuration__encoding": {"HardwareAccelerationType": "NVENC", "EnableHardwareEncoding": True},
        "System__Logs": lambda: next(logs),
        "System__Logs__Log": log.encode(),
        f"Videos__{ITEM}__master.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:X\nmain.m3u8?PlaySessionId=p&ApiKey=secret\n",
        f"Videos__{ITEM}__main.m3u8": b"#EXTM3U\n#EXTINF:4\nhls1/main/0.ts?PlaySessionId=p\n",
        f"Videos__{ITEM}__hls1__main__0.ts": b"GGGG",
        "Videos__ActiveEncodings": b"",
    })  # fmt: skip


LOG = """{"Path":"/media/a.mkv"}

/usr/lib/jellyfin-ffmpeg/ffmpeg -i file:"/media/a.mkv" -codec:v:0 h264_nvenc -f hls x.m3u8

Stream mapping:
  Stream #0:0 -> #0:0 (hevc (native) -> h264 (h264_nvenc))
"""


def test_jellyfins_session_is_read_from_its_log_and_ended():
    server = jellyfin(LOG)
    seen = look(app_jellyfin.look, server, app("jellyfin", item=ITEM)).jellyfin.value
    assert (seen.acceleration, seen.hardware_encoding, seen.ended) == ("nvenc", True, True)
    assert [m.encoder for m in seen.mappings] == ["h264_nvenc"]
    begun = next(q for m, p, q, _ in server.asked if p.endswith("master.m3u8"))
    ended = next(q for m, p, q, _ in server.asked if m == "DELETE")
    assert ended == {"deviceId": begun["DeviceId"], "playSessionId": begun["PlaySessionId"]}
    assert begun["DeviceId"].startswith("labproof")
    assert not any("ApiKey" in query for _, _, query, _ in server.asked)


def test_without_an_item_nothing_is_played():
    server = jellyfin(LOG)
    look(app_jellyfin.look, server, app("jellyfin"))
    assert [path for _, path, _, _ in server.asked] == ["System/Configuration/encoding"]


def test_a_failed_segment_still_ends_the_session_and_reads_the_log():
    server = jellyfin("{}\n\nffmpeg -i x -codec:v:0 h264_nvenc\n\nCannot load libnvidia-encode.so.1\n")
    server.answers[f"Videos/{ITEM}/hls1/main/0.ts"] = TransportFailure(
        Kind.UNAVAILABLE, "app", "500 Error processing request.", status=500
    )
    seen = look(app_jellyfin.look, server, app("jellyfin", item=ITEM)).jellyfin.value
    assert seen.ended
    assert "Cannot load libnvidia-encode.so.1" in seen.telling


def test_a_direct_stream_is_no_transcode():
    server = jellyfin(LOG, "FFmpeg.Remux-2026-11-20_x_1.log")
    seen = look(app_jellyfin.look, server, app("jellyfin", item=ITEM)).jellyfin.value
    assert seen.direct
    assert not seen.log_name


# ---------------------------------------------------------------- Ollama


def ollama(*loaded):
    rows = [{"name": name, "size": size, "size_vram": vram} for name, size, vram in loaded]
    return Server(
        api__tags={"models": [{"name": "a:latest"}, {"name": "b:7b"}]},
        api__ps=lambda: {"models": rows},
        api__generate={"eval_count": 16, "eval_duration": 400_000_000},
    )


def posted(server):
    return [body for method, _, _, body in server.asked if method == "POST"]


def test_a_loaded_model_is_only_looked_at():
    server = ollama(("a:latest", 100, 100))
    seen = look(app_ollama.look, server, app("ollama", model="a")).ollama.value
    assert seen.loaded[0].on_gpu == 1.0
    assert posted(server) == []


def test_another_model_in_memory_is_not_put_out():
    server = ollama(("b:7b", 100, 100))
    seen = look(app_ollama.look, server, app("ollama", model="a")).ollama.value
    assert "b:7b" in seen.left_alone
    assert posted(server) == []


def test_a_model_loaded_by_us_is_unloaded_again():
    server = ollama()
    seen = look(app_ollama.look, server, app("ollama", model="a")).ollama.value
    assert seen.loaded_by_us
    assert seen.tokens_per_s == 40.0
    assert [body["keep_alive"] for body in posted(server)] == ["60s", 0]


def test_a_model_that_is_not_there_is_not_loaded():
    server = ollama()
    assert look(app_ollama.look, server, app("ollama", model="c")).ollama.value.loaded == ()
    assert posted(server) == []


# ---------------------------------------------------------------- the others


def test_frigates_cameras_own_arguments_win():
    config = {
        "ffmpeg": {"hwaccel_args": "preset-nvidia"},
        "detectors": {"onnx": {"type": "onnx"}},
        "cameras": {
            "a": {},
            "b": {"ffmpeg": {"hwaccel_args": "preset-vaapi"}},
            "c": {"ffmpeg": {"hwaccel_args": "x", "inputs": [{"hwaccel_args": ["-hwaccel", "cuda"]}]}},
            "off": {"enabled": False},
        },
    }
    stats = {
        "gpu_usages": {"nvidia-gpu": {"gpu": "", "mem": ""}},
        "detectors": {"onnx": {"inference_speed": 9.4}},
        "service": {"version": "0.16", "storage": {"/dev/shm": {"total": 64.0, "min_shm": 120.5}}},
    }
    seen = look(app_frigate.look, Server(api__stats=stats, api__config=config), app("frigate")).frigate.value
    assert {c.name: c.hwaccel for c in seen.cameras} == {
        "a": "preset-nvidia",
        "b": "preset-vaapi",
        "c": "-hwaccel cuda",
    }
    assert (seen.gpus[0].gpu, seen.detectors[0].type, seen.shm_needed_mb) == ("", "onnx", 120.5)


def test_only_sessions_that_transcode_video_count():
    plex = {"MediaContainer": {"Metadata": [
        {"title": "direct"}, {"title": "audio", "TranscodeSession": {"videoDecision": "copy"}},
        {"title": "soft", "TranscodeSession": {"videoDecision": "transcode"}},
        {"title": "hard", "TranscodeSession": {"videoDecision": "transcode", "transcodeHwEncoding": "nvenc"}},
    ]}}  # fmt: skip
    emby = [{}, {"TranscodingInfo": {"IsVideoDirect": True}}, {"TranscodingInfo": {"VideoEncoderIsHardware": True}}]
    seen = look(app_sessions.plex, Server(status__sessions=plex), app("plex")).sessions.value
    assert [(s.title, s.hardware) for s in seen] == [("soft", False), ("hard", True)]
    seen = look(app_sessions.emby, Server(emby__Sessions=emby), app("emby")).sessions.value
    assert [s.hardware for s in seen] == [True]


def test_a_completion_is_asked_only_for_a_declared_rate():
    server = Server(
        v1__models={"data": [{"id": "m"}]},
        v1__completions={"usage": {"completion_tokens": 16}, "timings": {"predicted_ms": 500}},
    )
    assert look(app_inference.openai, server, app("openai", model="m")).models.value.tokens_per_s is None
    assert posted(server) == []
    rated = look(app_inference.openai, server, app("openai", model="m", min_tokens_per_s=1)).models.value
    assert rated.tokens_per_s == 32.0


def test_an_answer_that_is_no_json_is_an_error_of_the_answer():
    with pytest.raises(ValueError, match="Expecting value"):
        look(app_inference.comfyui, Server(system_stats=b"<html>"), app("comfyui"))


# ---------------------------------------------------------------- whose pod, whose key


@pytest.mark.parametrize(
    ("owner", "belongs"),
    [
        (("ReplicaSet", "jellyfin-6d9f8c7b5"), True),
        (("ReplicaSet", "jellyfin-web-6d9f8c7b5"), False),
        (("StatefulSet", "jellyfin"), True),
        (("Job", "jellyfin-backup"), False),
    ],
)
def test_a_pod_belongs_by_its_owner(owner, belongs):
    kind, name = owner
    owners = [{"kind": kind, "name": name, "controller": True}]
    pod = {"metadata": {"namespace": "media", "name": "x", "ownerReferences": owners}, "status": {"phase": "Running"}}
    assert _belongs(pod, "media/jellyfin") is belongs


def test_through_the_api_server_the_authorization_header_is_not_ours():
    for kind in ("jellyfin", "emby", "plex", "ollama", "openai"):
        assert "authorization" not in _headers(kind, "key", direct=False)
    assert _headers("jellyfin", "key", direct=True) == {"authorization": 'MediaBrowser Token="key"'}
