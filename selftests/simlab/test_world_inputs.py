"""Inputs: merge patches, variations, faults, and a YAML reader that leaves PCI addresses alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from labproof.simlab.faults import load_faults
from labproof.simlab.world import known_labs, lab_folder, load_inputs, merge_patch
from labproof.simlab.world.inputs import WorldLoader


@pytest.mark.parametrize(
    ("target", "patch", "wanted"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_rfc_7386(target: object, patch: object, wanted: object) -> None:
    """The examples of RFC 7386, appendix A."""
    assert merge_patch(target, patch) == wanted


def test_a_patch_changes_neither_argument() -> None:
    """Inputs are read once and patched often."""
    target, patch = {"a": {"b": 1}}, {"a": {"c": {"d": 1}}}
    merged = merge_patch(target, patch)
    merged["a"]["c"]["d"] = 2
    assert target == {"a": {"b": 1}}
    assert patch == {"a": {"c": {"d": 1}}}


@pytest.mark.parametrize(
    "word", ["0000:01:00.0", "0000:3b:00.0", "81:00.0", "10:20", "0300", "0x1f", "1_000", "1e:00.0"]
)
def test_addresses_and_classes_stay_strings(word: str) -> None:
    """YAML 1.1 reads them as base 60, octal or hexadecimal numbers."""
    assert yaml.load(f"x: {word}", Loader=WorldLoader) == {"x": word}


def test_plain_numbers_stay_numbers() -> None:
    """Memory and durations are numbers all the same."""
    assert yaml.load("[1, -3, 2.5, true]", Loader=WorldLoader) == [1, -3, 2.5, True]


def test_faults_touch_inputs_that_exist() -> None:
    """A patch of a whole device or file may add; on known mappings its keys must not be misspelt."""
    known = load_inputs("t4-jellyfin")["hosts"]["pve5"]
    for fault in load_faults("t4-jellyfin").values():
        if fault.layer in ("host", "vm"):
            patch = fault.set["hosts"]["pve5"]
            assert set(patch) <= set(known) | {"hostname", "services"}, fault.id
            assert set(patch.get("firmware", {})) <= set(known["firmware"]), fault.id
            assert set(patch.get("pve", {})) <= set(known["pve"]), fault.id


def test_every_fault_makes_a_world_differ() -> None:
    """A patch that changes nothing proves nothing."""
    healthy = load_inputs("t4-jellyfin")
    for fault in load_faults("t4-jellyfin").values():
        if fault.variation is None and fault.layer in ("host", "vm"):
            assert load_inputs("t4-jellyfin", faults=[fault.id]) != healthy, fault.id


def test_a_second_host_is_a_patch_on_a_copy_of_the_first() -> None:
    """`like` copies before it patches: null deletes in the copy, and the model stays what it was."""
    plain, varied = load_inputs("t4-jellyfin"), load_inputs("t4-jellyfin", "two-hosts")
    assert varied["hosts"]["pve5"] == plain["hosts"]["pve5"]
    assert set(varied["hosts"]["pve6"]["vms"]) == {"1205"}
    assert varied["hosts"]["pve6"]["firmware"] == plain["hosts"]["pve5"]["firmware"]
    assert varied["cards"]["t4b"]["uuid"] != plain["cards"]["t4"]["uuid"]
    assert "like" not in varied["cards"]["t4b"]


def test_faults_touch_one_host_only() -> None:
    """A fault of pve5 is none of pve6."""
    broken = load_inputs("t4-jellyfin", "two-hosts", ["vtd-off"])["hosts"]
    assert (broken["pve5"]["firmware"]["iommu"], broken["pve6"]["firmware"]["iommu"]) == (False, True)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    """A typo must not run the healthy lab."""
    with pytest.raises(KeyError, match="no-such-fault"):
        load_inputs("t4-jellyfin", faults=["no-such-fault"])
    with pytest.raises(KeyError, match="known"):
        load_inputs("t4-jellyfin", variation="no-such-variation")
    with pytest.raises(FileNotFoundError, match="t4-jellyfin"):
        load_inputs(Path("no-such-lab"))


def test_a_fault_of_another_lab_is_refused_with_that_labs_name() -> None:
    """It would patch machines that are not there, and the run would look healthy."""
    with pytest.raises(KeyError, match="--sim=t4-jellyfin"):
        load_inputs("bare-metal-rtx2070", faults=["vtd-off"])


def test_an_owners_copy_of_a_lab_takes_that_labs_faults(tmp_path: Path) -> None:
    """`labproof sim FOLDER` is how a lab is tried out before it is one's own."""
    shutil.copytree(lab_folder("t4-jellyfin"), tmp_path / "mine")
    broken = load_inputs(tmp_path / "mine", faults=["vtd-off"])
    assert broken["hosts"]["pve5"]["firmware"]["iommu"] is False


def test_every_lab_that_is_shipped_has_a_file_to_declare_it() -> None:
    """A folder in labs/ is a lab of that name, with what its owner declares."""
    assert {"t4-jellyfin", "bare-metal-rtx2070"} <= set(known_labs())
    assert all((lab_folder(name) / "lab.yaml").is_file() for name in known_labs())
