"""The simulated world keeps together: what happens to a host or a VM happens to nodes and clusters too."""

from labproof.simlab.world import load_inputs
from labproof.simlab.world.lab import World


def test_a_node_goes_down_and_comes_back_with_its_vm():
    world = World(load_inputs("t4-jellyfin"))
    node, cluster = world.nodes["moody-good"], world.clusters["moody"]
    assert node.up
    assert node.gpus
    world.pve["pve5"].stop(1105)
    assert not world.nodes["moody-good"].up
    assert world.nodes["cp-1"].up
    assert world.clusters["moody"] is not cluster
    world.pve["pve5"].start(1105)
    back = world.nodes["moody-good"]
    assert back.up
    assert back.gpus
    assert back.boot_id != node.boot_id
    assert world.clusters["moody"] is world.clusters["moody"]


def test_a_reboot_of_the_host_is_one_of_its_guests():
    from labproof.simlab.host import writes

    world = World(load_inputs("t4-jellyfin", bare=True))
    before = {name: node.boot_id for name, node in world.nodes.items()}
    assert not world.nodes["moody-good"].gpus
    writes.reboot(world, "pve5")
    after = world.nodes
    assert all(node.up for node in after.values())
    assert all(after[name].boot_id != boot_id for name, boot_id in before.items())
    assert all(q.started_at < world.time for q in world.hosts["pve5"].qemus.values())


def test_bare_has_no_passthrough_anywhere():
    for variation, vendor in ((None, "intel"), ("pve9-systemd-boot", "intel"), ("amd-host", "amd")):
        world = World(load_inputs("t4-jellyfin", variation, bare=True))
        host = world.hosts["pve5"]
        assert f"{vendor}_iommu=off" in host.cmdline.split()
        assert host.iommu == ""
        assert host.drivers.bound["0000:3b:00.0"] == "nouveau"
        assert all(not key.startswith("hostpci") for entry in world.pve["pve5"].vms.values() for key in entry["config"])
