"""Jellyfin: what it is set to, and what it did with one short session of ours.

Its session list copies the configuration (TranscodeManager.cs), so the witness is the job's own ffmpeg log (facts
transcode 6). The session asks for a few seconds of the video that lab.yaml names, under a device id of our own, and is
ended by DELETE /Videos/ActiveEncodings.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from labproof.clients.app_http import AppHttp
from labproof.clients.errors import TransportFailure
from labproof.facts import ffmpeg
from labproof.facts.apps import AppFacts, Jellyfin
from labproof.facts.reading import failed, value
from labproof.facts.store import now
from labproof.inventory.branches import App
from labproof.inventory.models import Lab

_SEGMENTS = 2
_TRANSCODE, _OTHERS = "FFmpeg.Transcode-", ("FFmpeg.DirectStream-", "FFmpeg.Remux-")
_KEPT = 60  # lines of the log


def look(http: AppHttp, app: App, lab: Lab, facts: AppFacts) -> AppFacts:
    """Read the configuration; with a declared item also transcode a little of it."""
    settings = _json(http, "System/Configuration/encoding")
    seen = Jellyfin(
        str(settings.get("HardwareAccelerationType") or "none").lower(),
        bool(settings.get("EnableHardwareEncoding", True)),
        str(settings.get("EncoderAppPathDisplay") or settings.get("EncoderAppPath") or ""),
    )
    source = f"GET {http.where}/System/Configuration/encoding"
    if app.expect.item is None:
        return replace(facts, jellyfin=value(seen, source, now()))
    try:
        seen = _play(http, app.expect.item, seen)
    except TransportFailure as failure:
        told = failed(http.where, failure.answer or failure.text, failure.kind.value, now())
        return replace(facts, jellyfin=told)
    return replace(facts, jellyfin=value(seen, f"{http.where}, item {app.expect.item}", now()))


def _play(http: AppHttp, item: str, seen: Jellyfin) -> Jellyfin:
    session = f"labproof{uuid.uuid4().hex[:12]}"
    before = _logs(http)
    query = {
        "DeviceId": session, "PlaySessionId": session, "MediaSourceId": item, "VideoCodec": "h264", "AudioCodec": "aac",
        "MaxWidth": "1280", "VideoBitrate": "2000000", "AudioBitrate": "128000", "SegmentContainer": "ts",
        "TranscodeReasons": "VideoBitrateNotSupported",
    }  # fmt: skip
    played = ""
    try:
        played = _fetch(http, f"Videos/{item}/master.m3u8", query)
    except TransportFailure as failure:
        if failure.status in (401, 403, 404, None):
            raise
        played = failure.answer or failure.text  # the server says that ffmpeg ended; its log says why
    finally:
        ended = _end(http, session)
    new = [name for name in _logs(http) if name not in before]
    ours = next((n for n in new if n.startswith(_TRANSCODE)), "")
    if not ours:
        return replace(seen, direct=any(n.startswith(_OTHERS) for n in new), played=played, ended=ended)
    text = http.ask("System/Logs/Log", {"name": ours}).decode("utf-8", "replace")
    return replace(_read_log(seen, ours, text), played=played, ended=ended)


def _read_log(seen: Jellyfin, name: str, text: str) -> Jellyfin:
    """The log's head is the media source as JSON, then the command line, then ffmpeg's own output."""
    command = next((line for line in text.splitlines() if "ffmpeg" in line and " -i " in line), "")
    return replace(
        seen,
        log_name=name,
        command=command[:600],
        mappings=ffmpeg.parse_mappings(text),
        telling=ffmpeg.telling_lines(text, _KEPT),
    )


def _fetch(http: AppHttp, path: str, query: Mapping[str, str]) -> str:
    """Follow the master playlist to its first segments."""
    variant = _first(http.ask(path, query))
    folder = path.rpartition("/")[0]
    path, query = _resolved(folder, variant)
    segments = [line for line in http.ask(path, query).decode("utf-8", "replace").splitlines() if _is_uri(line)]
    size = 0
    for uri in segments[:_SEGMENTS]:
        size += len(http.ask(*_resolved(folder, uri)))
    return f"{min(len(segments), _SEGMENTS)} of {len(segments)} segments, {size} bytes"


def _first(playlist: bytes) -> str:
    return next((line for line in playlist.decode("utf-8", "replace").splitlines() if _is_uri(line)), "")


def _is_uri(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _resolved(folder: str, uri: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(uri)
    path = parts.path.lstrip("/") if parts.path.startswith("/") else f"{folder}/{parts.path}"
    query = {name: text for name, text in parse_qsl(parts.query) if not re.fullmatch(r"(?i)api_?key", name)}
    return path, query


def _end(http: AppHttp, session: str) -> bool:
    try:
        http.ask("Videos/ActiveEncodings", {"deviceId": session, "playSessionId": session}, method="DELETE")
    except TransportFailure:
        return False  # it ends by itself a minute after the last request
    return True


def _logs(http: AppHttp) -> list[str]:
    found = json.loads(http.ask("System/Logs"))
    return [str(entry.get("Name")) for entry in found if isinstance(entry, Mapping)]


def _json(http: AppHttp, path: str) -> Mapping[str, Any]:
    found = json.loads(http.ask(path))
    return found if isinstance(found, Mapping) else {}
