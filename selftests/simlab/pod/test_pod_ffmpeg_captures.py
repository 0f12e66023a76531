"""ffmpeg 5.1.9 in a pod without a GPU: simulated against recorded (s19), and what the checks make of the recordings."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from labproof.catalogue.ffmpeg_errors import classify

CAPTURES = Path(__file__).parents[2] / "captures" / "kubernetes"


def recorded(name):
    return json.loads((CAPTURES / f"{name}.json").read_text("utf-8"))


def plain(text):
    """Lines without the addresses in brackets."""
    return [re.sub(r"@ 0x[0-9a-f]+", "@ 0x", line) for line in text.splitlines()]


@pytest.fixture
def box(make_box):
    return make_box(image="localhost/ffmpeg:h2").without_gpu()


@pytest.mark.parametrize("name", ["s19-ffmpeg-nvenc", "s19-ffmpeg-vaapi", "s19-ffmpeg-cuda"])
def test_its_errors_are_the_recorded_ones(box, name):
    raw = recorded(name)
    said = ""
    for command in raw["command"].split("; "):
        _, *words = shlex.split(command)
        ran = box.run("/usr/bin/ffmpeg", *words)
        assert ran.status != 0
        said += ran.err
    assert plain(said) == plain(raw["log"])


def test_it_lists_encoders_it_cannot_use(box):
    """A listed encoder proves nothing: every line of the recording is there, in its words, without a GPU."""
    ran = box.run("/usr/bin/ffmpeg", "-hide_banner", "-encoders")
    assert ran.status == 0
    assert set(recorded("s19-ffmpeg-list")["log"].splitlines()) <= set(ran.out.splitlines())


@pytest.mark.parametrize(
    ("name", "cause"), [("s19-ffmpeg-nvenc", "W12"), ("s19-ffmpeg-cuda", "W12"), ("s19-ffmpeg-vaapi", "W29")]
)
def test_the_recorded_errors_have_their_cause(name, cause):
    meaning = classify(recorded(name)["log"])
    assert meaning is not None
    assert meaning.cause == cause
    assert meaning.verdict == "defect"
