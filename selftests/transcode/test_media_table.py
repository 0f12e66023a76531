"""The table of media engines: whole, and telling one generation from another."""

import pytest

from labproof.catalogue.media import CODECS, PROFILES, media_row, media_rows


def test_every_row_speaks_the_same_words():
    assert set(PROFILES) == set(CODECS)
    for row in media_rows().values():
        assert set(row.encode) | set(row.decode) <= set(CODECS), row.name
        assert set(row.low_power) | set(row.huc) | set(row.full) <= set(row.encode), row.name
        assert row.libva and row.vendor in ("8086", "1002")


@pytest.mark.parametrize(
    ("device", "encodes", "not_encodes", "decodes"),
    [
        ("8086:0412", {"h264"}, {"hevc", "vp9", "av1"}, {"h264"}),
        ("8086:9a49", {"h264", "hevc", "vp9"}, {"av1", "vp8"}, {"av1", "vp9"}),
        ("8086:56a5", {"av1", "hevc"}, {"vp8"}, {"av1"}),
        ("8086:e20b", {"av1"}, {"vp9"}, {"av1"}),
        ("1002:744c", {"av1"}, {"vp9"}, {"av1"}),
        ("1002:164e", {"h264", "hevc"}, {"av1", "vp9"}, {"vp9"}),
    ],
)
def test_generations_differ(device, encodes, not_encodes, decodes):
    row = media_row(device)
    assert encodes <= set(row.encode) and not not_encodes & set(row.encode)
    assert decodes <= set(row.decode)


def test_an_unknown_card_has_no_row():
    assert media_row("8086:ffff") is None


@pytest.mark.parametrize(
    ("device", "kernel", "driver", "counts"),
    [
        ("8086:0412", "6.12.62-talos", "i915", False),  # returns before the engines below graphics version 8
        ("8086:9a49", "5.15.0-91-generic", "i915", False),
        ("8086:9a49", "6.12.62-talos", "i915", True),
        ("8086:46a6", "6.1.0-28-amd64", "i915", False),  # GuC submission: from 6.5 on
        ("8086:46a6", "6.5.0", "i915", True),
        ("8086:46a6", "6.1.0-28-amd64", "xe", True),
    ],
)
def test_fdinfo_counts_from_the_right_kernel_on(device, kernel, driver, counts):
    assert media_row(device).counts_engines(kernel, driver) is counts
