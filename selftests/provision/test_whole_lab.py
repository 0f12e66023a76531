"""Every step in one run: from a bare host to a pod that transcodes, and back to every byte."""

import pytest


@pytest.mark.parametrize("variation", ["talos-1.13", "pve9-systemd-boot", "amd-host"])
def test_all_green_and_back(whole_ground, variation):
    whole_ground.reset(variation)
    before = whole_ground.world()
    outcome = whole_ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert whole_ground.red() == {}
    assert whole_ground.plan().empty
    back = whole_ground.undo()
    assert back.complete, "\n".join(back.lines)
    assert whole_ground.world() == before


def test_a_raw_address_by_a_root_ticket(whole_ground):
    """No mapping: PVE lets only root by password set it."""
    whole_ground.as_root()
    whole_ground.patch = {**whole_ground.patch, "vms": {"moody-good": {"mapping": None}}}
    before = whole_ground.world()
    outcome = whole_ground.provision()
    assert outcome.complete, "\n".join(outcome.lines)
    assert whole_ground.world()["configs"]["1105"]["hostpci0"] == "host=0000:3b:00.0,pcie=1"
    assert whole_ground.red() == {}
    assert whole_ground.undo().complete
    assert whole_ground.world() == before
