"""What a pod gets of an Intel or AMD GPU: nodes, rights, libva, OpenCL."""

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("POD-DRI-001")
def test_pod_has_the_render_node(judgement):
    """The pod MUST have the render node of the declared GPU.

    Preconditions: a pod that holds the GPU runs
    Expected: a render node whose PCI device is the declared one; its number may be any
    """
    assert_holds(judgement)


@clause("POD-DRI-002")
def test_render_node_opens(judgement):
    """The pod's user MUST be able to open the render node.

    Preconditions: the node is in the pod
    Expected: open for reading and writing works as the workload's own user: nothing adds a group
    """
    assert_holds(judgement)


@clause("POD-DRI-003")
def test_render_node_is_the_first(judgement):
    """The GPU's render node MUST be renderD128, or each app be told.

    Preconditions: the node is in the pod
    Expected: renderD128, which programs take that nobody told
    """
    assert_holds(judgement)


@clause("POD-DRI-004")
def test_no_node_without_a_request(judgement):
    """A pod that asks for no GPU MUST NOT get a DRM node.

    Preconditions: our pod without a request runs
    Expected: nothing under its /dev/dri
    """
    assert_holds(judgement)


@clause("POD-VA-001")
def test_libva_loads_a_driver(judgement):
    """libva MUST load a driver for the GPU.

    Preconditions: the render node opens
    Expected: vainfo names a driver and lists decode or encode entry points;
    a failure before another driver opens is none
    """
    assert_holds(judgement)


@clause("POD-VA-002")
def test_libva_offers_the_abilities(judgement):
    """libva MUST offer what the GPU's generation can do.

    Preconditions: libva loads a driver
    Expected: every codec of the table, encode and decode; those that need HuC only where low power is declared
    """
    assert_holds(judgement)


@clause("POD-OPENCL-001")
def test_opencl_works(judgement):
    """OpenCL MUST work on the GPU.

    Preconditions: the render node opens
    Expected: frames go through an OpenCL filter on a device derived from the VA-API one
    """
    assert_holds(judgement)
