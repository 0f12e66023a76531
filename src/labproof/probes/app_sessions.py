"""Plex and Emby: what their sessions do at this moment. Nothing is played by us; without a session nothing is said.

Plex marks the hardware in the TranscodeSession, Emby in its TranscodingInfo: both describe the codec that was chosen
(facts transcode 6), unlike Jellyfin's session.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from labproof.clients.app_http import AppHttp
from labproof.facts.apps import AppFacts, MediaSession
from labproof.facts.reading import value
from labproof.facts.store import now
from labproof.inventory.branches import App
from labproof.inventory.models import Lab


def plex(http: AppHttp, app: App, lab: Lab, facts: AppFacts) -> AppFacts:
    """`/status/sessions`: sessions that transcode video."""
    container = _part(json.loads(http.ask("status/sessions")).get("MediaContainer"))
    found = []
    for entry in container.get("Metadata") or ():
        session = _part(_part(entry).get("TranscodeSession"))
        if session.get("videoDecision") != "transcode":
            continue
        decoder, encoder = str(session.get("transcodeHwDecoding") or ""), str(session.get("transcodeHwEncoding") or "")
        found.append(MediaSession(str(_part(entry).get("title") or ""), decoder, encoder, bool(encoder)))
    return replace(facts, sessions=value(tuple(found), f"GET {http.where}/status/sessions", now()))


def emby(http: AppHttp, app: App, lab: Lab, facts: AppFacts) -> AppFacts:
    """`/emby/Sessions`: sessions whose video is not direct."""
    found = []
    for entry in json.loads(http.ask("emby/Sessions")):
        info = _part(_part(entry).get("TranscodingInfo"))
        if not info or info.get("IsVideoDirect", False):
            continue
        title = str(_part(_part(entry).get("NowPlayingItem")).get("Name") or "")
        decoder, encoder = str(info.get("VideoDecoder") or ""), str(info.get("VideoEncoder") or "")
        found.append(MediaSession(title, decoder, encoder, bool(info.get("VideoEncoderIsHardware"))))
    return replace(facts, sessions=value(tuple(found), f"GET {http.where}/emby/Sessions", now()))


def _part(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}
