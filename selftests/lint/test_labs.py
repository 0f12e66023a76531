"""The reference labs are the guides corrected: what their owners would commit is clean.

Their files are made of the simulated lab: the machine configurations it serves, and the objects a chart or an owner
brings (namespaces, RuntimeClasses, DaemonSets, ConfigMaps, workloads), as one rendered stream.
"""

import pytest
import yaml

from labproof.lint.judge import lint
from labproof.simlab.kube.chart import PluginChart
from labproof.simlab.world import World, load_inputs
from labproof.simlab.world.inputs import labs_folder, variations

LABS = sorted(path.parent.name for path in labs_folder().glob("*/world"))
SHAPES = [(lab, variation) for lab in LABS for variation in (None, *variations(lab))]


class Plain(yaml.SafeDumper):
    """Text as a person writes it: a nested file stays a block."""

    def ignore_aliases(self, data):
        return True


Plain.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def committed(lab, variation):
    """What stands in this owner's repository: (file name, text)."""
    inputs = load_inputs(lab, variation)
    for name, state in World(inputs).nodes.items():
        if getattr(state, "machine_config", ""):
            yield f"talos-{name}.yaml", state.machine_config
    for name, cluster in inputs["clusters"].items():
        yield f"cluster-{name}.yaml", yaml.dump_all(objects(cluster), Dumper=Plain, sort_keys=False)


def objects(cluster):
    for name, entry in (cluster.get("namespaces") or {}).items():
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **(entry or {})}}
    for name, entry in (cluster.get("runtime_classes") or {}).items():
        yield {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, **entry}
    plugin = cluster.get("plugin") or {}
    if plugin.get("flavour") == "nvidia-device-plugin":
        yield from PluginChart(plugin).objects()
    for entry in (cluster.get("objects") or {}).values():
        if isinstance(entry, dict) and "kind" in entry:
            yield {key: value for key, value in entry.items() if key != "status"}


@pytest.mark.parametrize(("lab", "variation"), SHAPES, ids=lambda part: part or "plain")
def test_what_a_reference_labs_owner_commits_is_clean(lab, variation, tmp_path):
    names = []
    for name, text in committed(lab, variation):
        (tmp_path / name).write_text(text, "utf-8")
        names.append(name)
    report = lint([str(tmp_path)])
    assert names
    assert report.unreadable == []
    assert [f"{f.path}:{f.line} {f.cause} {f.text}" for f in report.findings] == []


@pytest.mark.parametrize("lab", LABS)
def test_the_labs_own_files_are_clean(lab):
    report = lint([str(labs_folder() / lab)])
    assert (report.findings, report.unreadable) == ([], [])


def test_a_mistake_put_into_such_a_lab_is_found(tmp_path):
    """Against a linter that sees nothing in these files: one broken value in each kind of file."""
    for name, text in committed("t4-jellyfin", None):
        broken = text.replace("nvidia_uvm", "nvidia_umv").replace("handler: nvidia", "handler: /usr/bin/nvidia")
        broken = broken.replace("replicas: 4", "replicas: 1")
        (tmp_path / name).write_text(broken, "utf-8")
    assert {f.cause for f in lint([str(tmp_path)]).findings} >= {"T22", "K22", "K02"}
