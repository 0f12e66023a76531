"""A measurement is beyond its noise by the history of many runs, never by one."""

import pytest

from labproof.report.compare_noise import FEWEST_RUNS, band_of, beyond_noise


def entry(number, value, name="h264_fps", lab="moody-good", simulated=True):
    return {
        "run_id": f"run-{number:03d}", "started": f"2026-11-01T{number:02d}:00:00+00:00", "lab": lab,
        "simulated": simulated,
        "measurements": [{"chain": "c", "clause": "CODEC-H264-001", "name": name, "value": value, "unit": ""}],
    }  # fmt: skip


USUAL = [entry(n, v) for n, v in enumerate([400.0, 404.0, 398.0, 402.0, 396.0, 401.0])]


def test_one_earlier_run_says_nothing():
    found, too_few = beyond_noise(USUAL[: FEWEST_RUNS - 1], entry(20, 4.0))
    assert (found, too_few) == ([], 1)


@pytest.mark.parametrize(
    ("name", "value", "is_"),
    [("h264_fps", 300.0, "worse"), ("h264_fps", 500.0, "better"), ("h264_cpu_per_frame", 500.0, "worse"),
     ("gpu_temperature", 300.0, "better"), ("h264_encoder_util", 300.0, "less")],
)  # fmt: skip
def test_beyond_the_band_says_which_way(name, value, is_):
    (found,), too_few = beyond_noise([entry(n, e["measurements"][0]["value"], name) for n, e in enumerate(USUAL)],
                                     entry(20, value, name))  # fmt: skip
    assert (found["is"], found["runs"], found["median"], too_few) == (is_, 6, 400.5, 0)


def test_what_is_within_the_spread_of_earlier_runs_is_noise():
    found, too_few = beyond_noise(USUAL, entry(20, 385.0))
    assert (found, too_few) == ([], 0)


def test_one_wild_run_in_the_past_widens_nothing():
    found, _ = beyond_noise([*USUAL, entry(7, 40.0)], entry(20, 300.0))
    assert found


def test_equal_runs_have_a_band_all_the_same():
    band = band_of([50.0] * 8)
    assert (band.low, band.high) == (47.5, 52.5)


def test_other_labs_simulations_and_later_runs_do_not_count():
    strangers = [entry(n, 400.0, lab="other") for n in range(5)] + [entry(n, 400.0, simulated=False) for n in range(5)]
    assert beyond_noise(strangers + [entry(n + 10, 400.0) for n in range(5)], entry(9, 10.0)) == ([], 1)
