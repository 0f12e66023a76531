"""The nvidia-smi parser against third-party recordings of real cards, and against what breaks off or lies."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree

import pytest

from labproof.facts.nvidia_smi import normal_bus_id, parse_smi_list, parse_smi_xml
from labproof.facts.reading import State

CAPTURES = Path(__file__).parents[3] / "shared" / "captures" / "nvidia-smi"

# DTD v11 (driver 515), cut to what differs from later ones; element names: facts transcode 4
V11 = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v11.dtd">
<nvidia_smi_log><driver_version>515.105.01</driver_version><cuda_version>11.7</cuda_version>
<attached_gpus>1</attached_gpus><gpu id="00000000:3B:00.0"><product_name>Tesla T4</product_name>
<uuid>GPU-1</uuid><pci><pci_device_id>1EB810DE</pci_device_id></pci>
<fb_memory_usage><total>15360 MiB</total><free>[Unknown Error]</free></fb_memory_usage>
<clocks_throttle_reasons><clocks_throttle_reason_gpu_idle>Not Active</clocks_throttle_reason_gpu_idle>
<clocks_throttle_reason_hw_slowdown>Active</clocks_throttle_reason_hw_slowdown></clocks_throttle_reasons>
<ecc_errors><volatile><double_bit><device_memory>1</device_memory><total>1</total></double_bit></volatile></ecc_errors>
<power_readings><power_draw>27.3 W</power_draw><enforced_power_limit>70.00 W</enforced_power_limit></power_readings>
<utilization><encoder_util>[Insufficient Permissions]</encoder_util></utilization>
</gpu></nvidia_smi_log>"""


def capture(name: str):
    path = CAPTURES / name
    if not path.is_file():
        pytest.skip(f"third-party captures not here: {path}")
    reading = parse_smi_xml(path.read_text())
    assert reading.state is State.VALUE, reading.why
    return reading.value


def test_real_t4():
    report = capture("qx-t4.xml")
    assert (report.dtd, report.driver_version.value, report.attached_gpus.value) == (
        "nvsmi_device_v13.dtd",
        "595.91.07",
        1,
    )
    (gpu,) = report.gpus
    assert gpu.bus_id.value == "0000:00:1e.0"
    assert gpu.vendor_device.value == "10de:1eb8"
    assert gpu.virtualization_mode.value == "Pass-Through"
    assert (gpu.memory_total.value, gpu.memory_free.value, gpu.encoder_sessions.value) == (15360, 14913, 0)
    assert (gpu.temperature.value, gpu.slowdown_temperature.value, gpu.power_limit.value) == (33, 93, 70.0)
    assert gpu.slowdowns.value == ("gpu_idle",)
    assert gpu.recovery_action.value == "None"  # a word of its own here, not "has none"
    assert gpu.memory_repair_pending.value is False
    assert gpu.memory_repair_failed.state is not State.VALUE  # a T4 retires pages, it has no row remapping


def test_real_a100():
    (gpu,) = capture("qx-a100.xml").gpus
    assert (gpu.vendor_device.value, gpu.bus_id.value) == ("10de:20b0", "0000:06:00.0")
    assert gpu.memory_repair_failed.value is False
    assert gpu.ecc_uncorrectable_volatile.value == 0


def test_v11_names_and_the_four_states():
    report = parse_smi_xml(V11).value
    (gpu,) = report.gpus
    assert report.dtd == "nvsmi_device_v11.dtd"
    assert gpu.bus_id.value == "0000:3b:00.0"  # from the attribute: this one has no pci_bus_id
    assert gpu.slowdowns.value == ("hw_slowdown",)
    assert gpu.ecc_uncorrectable_volatile.value == 1
    assert (gpu.power_draw.value, gpu.power_limit.value) == (27.3, 70.0)
    assert gpu.memory_free.state is State.FAILED
    assert gpu.encoder_util.state is State.FAILED
    assert gpu.gsp_firmware.state is State.ABSENT


@pytest.mark.parametrize("word", ["N/A", "[N/A]", "[Not Supported]", "Requested functionality has been deprecated"])
def test_what_the_card_does_not_have_is_unsupported(word):
    reading = parse_smi_xml(V11.replace("Tesla T4", word)).value.gpus[0].product_name
    assert reading.state is State.UNSUPPORTED


def test_unreadable_gpu_field_that_is_no_number():
    assert parse_smi_xml(V11.replace("15360 MiB", "lots")).value.gpus[0].memory_total.kind == "format"


@pytest.mark.parametrize(
    "text",
    ["", "No devices were found\n", V11[:400], "<other/>", V11.replace("<gpu ", "<!ENTITY x 'y'><gpu ", 1)],
)
def test_half_an_answer_is_a_failed_reading(text):
    reading = parse_smi_xml(text)
    assert reading.state is State.FAILED
    assert reading.why


def test_list_of_cards():
    text = "GPU 0: Tesla T4 (UUID: GPU-8f2c)\nGPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-ffff)\n"
    text += "  MIG 1g.5gb Device 0: (UUID: MIG-1)\n"
    assert parse_smi_list(text) == ((0, "Tesla T4", "GPU-8f2c"), (1, "NVIDIA A100-SXM4-40GB", "GPU-ffff"))
    assert parse_smi_list("No devices found.\n") == ()


@pytest.mark.parametrize(
    ("told", "normal"),
    [("00000000:3B:00.0", "0000:3b:00.0"), ("00010000:FF:1F.7", "10000:ff:1f.7"), ("af:00.0", "0000:af:00.0")],
)
def test_bus_id_with_hex_digits(told, normal):
    assert normal_bus_id(told) == normal


def documents() -> dict[str, str]:
    """The recordings where they stand, loudly skipped where they do not, and a document of our own."""
    found = {"v11": V11}
    for path in sorted(CAPTURES.glob("*.xml")):
        found[path.name] = path.read_text()
    return found


DOCUMENTS = documents()


def without(text: str, victim: int) -> str:
    """The document without its n-th element."""
    root = ElementTree.fromstring(text)
    parents = {child: parent for parent in root.iter() for child in parent}
    element = list(root.iter())[victim]
    parents[element].remove(element)
    return ElementTree.tostring(root, encoding="unicode")


def paths_below(root):
    """(number, path below its <gpu>, text) of every element."""
    parents = {child: parent for parent in root.iter() for child in parent}
    for number, element in enumerate(root.iter()):
        names, at = [], element
        while at in parents and at.tag != "gpu":
            names.insert(0, at.tag)
            at = parents[at]
        yield number, "/".join(names), element


@pytest.mark.skipif(not CAPTURES.is_dir(), reason=f"third-party captures not here: {CAPTURES}")
def test_the_captures_are_among_the_documents():
    assert {"v11", "qx-t4.xml", "qx-a100.xml"} <= set(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_any_element_may_be_missing(name):
    """Each element in turn is taken out: the report still parses, and only what it told is missing."""
    text = DOCUMENTS[name]
    whole = parse_smi_xml(text).value
    root = ElementTree.fromstring(text)
    fields = dataclasses.fields(whole.gpus[0])
    seen = set()
    for number, path, element in paths_below(root):
        if element is root:
            continue
        reading = parse_smi_xml(without(text, number))
        assert reading.state is State.VALUE, (path, reading.why)
        left = reading.value.gpus
        if element.tag == "gpu":
            assert len(left) == len(whole.gpus) - 1
            continue
        assert len(left) == len(whole.gpus), path
        for field in fields:
            before, after = getattr(whole.gpus[0], field.name), getattr(left[0], field.name)
            if before.value == after.value:
                continue
            seen.add(field.name)
            assert after.state is not State.FAILED, (path, field.name)
            assert after.why or after.value is not None, (path, field.name)
    told = {f.name for f in fields if getattr(whole.gpus[0], f.name).value is not None}
    assert seen <= told
    assert {"product_name", "uuid", "vendor_device"} <= seen


@pytest.mark.parametrize("name", DOCUMENTS)
def test_unknown_elements_are_ignored(name):
    """Every element gets an unknown child and an unknown neighbour; nothing that is told changes."""
    text = DOCUMENTS[name]
    root = ElementTree.fromstring(text)
    for element in list(root.iter()):
        if len(element) and element.tag != "nvidia_smi_log":
            ElementTree.SubElement(element, "quantum_state").text = "Superposed"
            ElementTree.SubElement(ElementTree.SubElement(element, "new_section"), "power_draw").text = "99999 W"
    assert comparable(ElementTree.tostring(root, encoding="unicode")) == comparable(text)


def comparable(text: str):
    return [
        {f.name: (getattr(gpu, f.name).state, getattr(gpu, f.name).value) for f in dataclasses.fields(gpu)}
        for gpu in parse_smi_xml(text).value.gpus
    ]


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("word", ["N/A", "[Unknown Error]", "ERR!", "Insufficient Permissions", "", "Ünlesbar", "-"])
def test_any_value_may_be_a_word(name, word):
    """Each leaf in turn says something else: no field raises, and none makes a number of a word."""
    root = ElementTree.fromstring(DOCUMENTS[name])
    for element in [e for e in root.iter() if not len(e)]:
        kept, element.text = element.text, word
        reading = parse_smi_xml(ElementTree.tostring(root, encoding="unicode"))
        element.text = kept
        assert reading.state is State.VALUE, element.tag
        for gpu in reading.value.gpus:
            for field in dataclasses.fields(gpu):
                told = getattr(gpu, field.name)
                assert told.value is not None or told.state is not State.VALUE, (element.tag, field.name)
