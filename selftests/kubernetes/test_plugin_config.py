"""The plugin's parser rules and its log, taken apart."""

import json

import pytest

from labproof.facts.plugin_config import FATAL, Flaw, parse_plugin_config
from labproof.facts.plugin_log import Line, effective_config, read_plugin_log

from .world import RUNNING, SHARED, running_log

TWO = "{resources: [{name: gpu, replicas: 2}]}"


def flaws(text):
    return [f.flaw for f in parse_plugin_config(text)[1]]


def log(text, **more):
    return read_plugin_log(
        text,
        **{"pod": "p", "namespace": "n", "node": "m", "container": "c", "role": "plugin", "previous": False} | more,
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SHARED, []),
        ("", []),
        ("version: v1\nflags:\n  migStrategy: none\n", []),
        ("version: v2\n", [Flaw.VERSION]),
        ("sharing:\n  timeSlicing:\n    replicas: 4\n", [Flaw.NO_RESOURCES]),  # guide 002, facts V1
        ("sharing:\n  timeSlicing: {}\n", [Flaw.NO_RESOURCES]),
        ("sharing:\n  timeSlicing:\n    resources: []\n", [Flaw.NO_RESOURCES]),
        (SHARED.replace("replicas: 4", "replicas: 1"), [Flaw.FEW_REPLICAS]),
        (SHARED.replace("        replicas: 4\n", ""), [Flaw.FEW_REPLICAS]),
        (SHARED.replace("replicas: 4", "replicas: four"), [Flaw.MALFORMED]),
        (SHARED.replace("name: nvidia.com/gpu", "name: gpu"), []),  # the domain is added
        (SHARED.replace("name: nvidia.com/gpu", "name: intel.com/gpu"), [Flaw.MALFORMED]),
        (SHARED.replace("replicas: 4", "replicas: 4\n        rename: gpu-shared"), [Flaw.NO_EFFECT]),
        (SHARED + "resourceName: nvidia.com/gpu-shared\n", [Flaw.UNKNOWN_KEY]),  # facts V3
        (f"sharing: {{timeSlicing: {TWO}, mps: {TWO}}}", [Flaw.BOTH_SHARINGS]),
        ("sharing: [", [Flaw.NOT_YAML]),
        ("just a sentence", [Flaw.MALFORMED]),
    ],
)  # fmt: skip
def test_the_parsers_rules(text, found):
    assert flaws(text) == found


def test_no_resources_names_what_lies_beside_it():
    (finding,) = parse_plugin_config("sharing:\n  timeSlicing:\n    replicas: 4\n")[1]
    assert finding.flaw in FATAL
    assert "replicas" in finding.text
    assert finding.path == "sharing.timeSlicing.resources"


def test_the_effective_configuration_is_found_in_the_log():
    found = log(running_log())
    settings = effective_config(json.loads(found.effective))
    assert (settings.strategy, settings.slots_per_card("nvidia.com/gpu"), settings.discovery) == (
        "time-slicing",
        4,
        "nvml",
    )
    assert settings.refuse_many
    assert not settings.rename
    assert found.line(Line.REGISTERED).name == "nvidia.com/gpu"


def test_the_newest_configuration_counts_and_a_cut_one_is_none():
    first = running_log(RUNNING | {"sharing": {}})
    assert effective_config(json.loads(log(first + running_log()).effective)).strategy == "time-slicing"
    assert log(running_log()[:200]).effective == ""
    assert log("").effective == ""


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("... while decoding JSON: no resources specified", Line.NO_RESOURCES, ""),
        ("number of replicas must be >= 2", Line.FEW_REPLICAS, ""),
        ("specified config t4x does not exist", Line.NO_SUCH_CONFIG, "t4x"),
        ("specified config  does not exist", Line.NO_SUCH_DEFAULT, ""),
        ("Failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND.", Line.NVML, "ERROR_LIBRARY_NOT_FOUND"),
        ("Incompatible platform detected", Line.NO_RUNTIME, ""),
        ("XidCriticalError: Xid=79 on Device=GPU-1", Line.XID, "79"),
        ("'nvidia.com/gpu' device marked unhealthy: GPU-1::3", Line.UNHEALTHY, "GPU-1::3"),
        ("inotify: /var/lib/kubelet/device-plugins/kubelet.sock created, restarting.", Line.KUBELET_RESTARTED, ""),
    ],
)
def test_lines_that_say_something(text, kind, name):
    found = log(f"noise\n{text}\nnoise")
    assert [(line.kind, line.name) for line in found.lines] == [(kind, name)]
