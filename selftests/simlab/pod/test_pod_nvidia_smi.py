"""nvidia-smi in a container: the report of a sound card, and every way it fails, told apart."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

QUERY = (
    "utilization.encoder,utilization.decoder,encoder.stats.sessionCount,memory.used,memory.free,temperature.gpu,pstate"
)


def paths(root: ET.Element, prefix: str = "") -> set[str]:
    found = set()
    for child in root:
        path = f"{prefix}/{child.tag}"
        found |= {path} | paths(child, path)
    return found


def test_report_of_a_card_passed_to_a_vm(box):
    ran = box.run("nvidia-smi", "-q", "-x")
    gpu = ET.fromstring(ran.out).find("gpu")
    assert ran.status == 0
    assert gpu.get("id") == "00000000:01:00.0"
    assert gpu.findtext("gpu_virtualization_mode/virtualization_mode") == "Pass-Through"
    assert gpu.findtext("pci/pci_device_id") == "1EB810DE"
    assert gpu.findtext("fb_memory_usage/total") == "15360 MiB"
    assert gpu.findtext("uuid") == box.card.inputs["uuid"]


@pytest.mark.parametrize(
    ("driver", "dtd", "reasons", "power"),
    [
        ("515.105.01", "v11", "clocks_throttle_reasons", "power_readings"),
        ("535.247.01", "v12", "clocks_throttle_reasons", "gpu_power_readings"),
        ("570.172.08", "v13", "clocks_event_reasons", "gpu_power_readings"),
    ],
)
def test_form_of_the_report_follows_the_driver(make_box, driver, dtd, reasons, power):
    out = make_box(driver_version=driver, library_version=driver).run("nvidia-smi", "-q", "-x").out
    gpu = ET.fromstring(out).find("gpu")
    assert f"nvsmi_device_{dtd}.dtd" in out
    assert gpu.find(reasons) is not None
    assert gpu.find(power) is not None


def test_elements_of_a_595_report_are_those_of_a_real_one(make_box):
    folder = Path(os.environ.get("LABPROOF_CAPTURES", Path(__file__).parents[4] / "shared" / "captures"))
    capture = folder / "nvidia-smi" / "qx-t4.xml"
    if not capture.is_file():
        pytest.skip(f"the recording {capture.name} is not on this machine, so the XML form was NOT compared with it")
    real = ET.parse(capture).getroot()
    ours = ET.fromstring(
        make_box(driver_version="595.91.07", library_version="595.91.07").run("nvidia-smi", "-q", "-x").out
    )
    assert paths(ours) == paths(real)


def test_query_and_list(box):
    ran = box.run("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits")
    assert ran.out == "0, 0, 0, 0, 14912, 38, P8\n"
    assert box.run("nvidia-smi", "-L").out == f"GPU 0: Tesla T4 (UUID: {box.card.inputs['uuid']})\n"
    unknown = box.run("nvidia-smi", "--query-gpu=name,gpu.colour", "--format=csv")
    assert (unknown.status, unknown.out) == (2, 'Field "gpu.colour" is not a valid field to query.\n\n')


def test_consumer_card_has_no_ecc(make_box):
    ran = make_box(card="rtx2070s").run("nvidia-smi", "--query-gpu=ecc.mode.current,memory.total", "--format=csv")
    assert ran.out == "ecc.mode.current, memory.total [MiB]\n[N/A], 8192 MiB\n"


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        (lambda b: b.node(driver_version=None), 9, "couldn't communicate with the NVIDIA driver"),  # W01
        (lambda b: b.node(library_version="580.95.05"), 18, "NVML library version: 580.95"),  # W02
        (lambda b: b.change(allowed=frozenset()), 255, "Failed to initialize NVML: Unknown Error"),  # W03
        (lambda b: b.change(gpus=()), 6, "No devices were found"),  # W04
        (lambda b: b.change(libraries=frozenset()), 12, "couldn't find libnvidia-ml.so"),  # W08
    ],
)
def test_failures_have_their_own_words(box, change, status, text):
    assert box.run("nvidia-smi", "-L").status == 0
    ran = change(box).run("nvidia-smi", "-L")
    assert ran.status == status
    assert text in ran.out


def test_card_off_the_bus(make_box):
    box = make_box()
    box.card.inputs["incidents"] = {"79": 4000}
    ran = box.change(gpus=()).run("nvidia-smi")
    assert (ran.status, ran.out.splitlines()[0]) == (
        15, "Unable to determine the device handle for GPU0: 0000:01:00.0: Unknown Error",
    )  # fmt: skip


def test_without_injection_there_is_no_program(box):
    from labproof.simlab.pod import programs

    assert programs.exists("nvidia-smi", box.pod)
    assert not programs.exists("nvidia-smi", box.without_gpu().pod)
