"""Firmware a driver loaded, read from the words of i915 and xe."""

from types import SimpleNamespace

import pytest

from labproof.report.compare_firmware import loaded_firmware


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "i915 0000:00:02.0: [drm] GT0: GuC firmware i915/tgl_guc_70.bin version 70.20.0",
            {"GuC of 0000:00:02.0": "70.20.0 (tgl_guc_70.bin)"},
        ),
        (
            "i915 0000:00:02.0: [drm] HuC firmware i915/tgl_huc.bin version 7.9.3",
            {"HuC of 0000:00:02.0": "7.9.3 (tgl_huc.bin)"},
        ),
        (
            "i915 0000:00:02.0: [drm] Finished loading DMC firmware i915/tgl_dmc.bin (v2.12)",
            {"DMC of 0000:00:02.0": "2.12 (tgl_dmc.bin)"},
        ),
        (
            "xe 0000:af:00.0: [drm] Using GuC firmware from xe/bmg_guc_70.bin version 70.29.2",
            {"GuC of 0000:af:00.0": "70.29.2 (bmg_guc_70.bin)"},
        ),
        ("i915 0000:00:02.0: [drm] GT0: GuC firmware i915/tgl_guc_70.bin: fetch failed with error -2", None),
        ("i915 0000:00:02.0: vgaarb: deactivate vga console", None),
    ],
)
def test_a_line_of_the_kernel(line, found):
    assert loaded_firmware(SimpleNamespace(lines=(line,)), None) == found


def test_a_log_that_turned_over_tells_nothing():
    assert loaded_firmware(SimpleNamespace(lines=()), None) is None
