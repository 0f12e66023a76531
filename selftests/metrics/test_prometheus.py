"""The text format and the selectors of alert rules, with what the field really writes."""

import pytest

from labproof.facts.prometheus import by_card, comparisons, gpu_selectors, matchers, parse_series

PAGE = """# HELP DCGM_FI_DEV_ENC_UTIL Encoder utilization (in %).
# TYPE DCGM_FI_DEV_ENC_UTIL gauge
DCGM_FI_DEV_ENC_UTIL{gpu="0",UUID="GPU-6c1e9f0a-7d35",modelName="Tesla T4",Hostname="moody-good",pod="a"} 17
DCGM_FI_DEV_ENC_UTIL{gpu="0",UUID="GPU-6c1e9f0a-7d35",modelName="Tesla T4",Hostname="moody-good",pod="b"} 17
DCGM_FI_DEV_MEMORY_TEMP{gpu="0",UUID="GPU-6c1e9f0a-7d35"} 9223372036854775794
DCGM_FI_DEV_GPU_TEMP{UUID="GPU-ff00",device="a \\"quoted\\" name, with = and }"} 4.1e+01 1763676000000
DCGM_FI_DEV_FB_USED
go_goroutines 12
"""


def test_series_of_a_scrape():
    series = parse_series(PAGE, "DCGM_")
    assert [s.name.rsplit("_", 2)[-2:] for s in series] == [["ENC", "UTIL"]] * 2 + [["MEMORY", "TEMP"], ["GPU", "TEMP"]]
    assert series[0].value == 17
    assert series[0].labels["Hostname"] == "moody-good"
    assert series[2].blank
    assert not series[0].blank
    assert series[3].labels["device"] == 'a "quoted" name, with = and }'
    assert series[3].value == 41


def test_a_shared_card_is_one_card():
    cards = by_card(parse_series(PAGE, "DCGM_"))
    assert set(cards) == {"GPU-6c1e9f0a-7d35", "GPU-ff00"}
    assert cards["GPU-6c1e9f0a-7d35"]["DCGM_FI_DEV_ENC_UTIL"].labels["pod"] == "a"


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("DCGM_FI_DEV_GPU_TEMP > 80", ["DCGM_FI_DEV_GPU_TEMP"]),
        ('avg by (gpu) (DCGM_FI_DEV_GPU_TEMP{job="x", gpu!="1"}) > 80', ['DCGM_FI_DEV_GPU_TEMP{job="x",gpu!="1"}']),
        ("absent(up{job='dcgm'} == 1)", ['absent up{job="dcgm"}']),
        ("startup{a='b'} > 0", []),
        ("rate(DCGM_FI_DEV_XID_ERRORS[5m]) > 0 or up == 0", ["DCGM_FI_DEV_XID_ERRORS", "up"]),
        ('absent_over_time(DCGM_FI_DEV_GPU_TEMP{cluster=~"a|b"}[5m])', ['absent DCGM_FI_DEV_GPU_TEMP{cluster=~"a|b"}']),
    ],
)
def test_selectors_of_an_expression(expression, told):
    assert [("absent " if s.absent else "") + str(s) for s in gpu_selectors(expression)] == told


@pytest.mark.parametrize(
    ("inner", "labels", "accepted"),
    [
        ('a="x"', {"a": "x"}, True),
        ('a="x"', {}, False),
        ('a!="x"', {}, True),
        ('a=~"x.*"', {"a": "xy"}, True),
        ('a=~"x"', {"a": "xy"}, False),  # anchored at both ends
        ('a!~"x|y"', {"a": "y"}, False),
        ('a=""', {}, True),
        ('a=~"(?P"', {"a": "z"}, True),  # not Python's syntax: undecided counts as selected
    ],
)
def test_matchers_decide_as_prometheus_does(inner, labels, accepted):
    (matcher,) = matchers(inner)
    assert matcher.accepts(labels) is accepted


@pytest.mark.parametrize(
    ("expression", "number"),
    [
        ("DCGM_FI_DEV_FB_USED > 14000", 14000),
        ('DCGM_FI_DEV_FB_USED{gpu="0"} >= 14 * 1024 * 1024', 14680064),
        ("(DCGM_FI_DEV_FB_FREE) < 1e9", 1e9),
        ("DCGM_FI_DEV_FB_USED / 15360 > 0.9", None),
        ("DCGM_FI_DEV_FB_USED > on(gpu) other", None),
    ],
)
def test_plain_comparisons(expression, number):
    assert [c.number for c in comparisons(expression)] == ([] if number is None else [number])
