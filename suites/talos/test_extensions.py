"""The installed image: the NVIDIA extensions and the schematic they came from."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("TALOS-EXT-001")
def test_nvidia_extensions_are_installed(judgement):
    """The image MUST carry exactly one NVIDIA kernel module extension and one container toolkit.

    Preconditions: the Talos API answers
    Expected: one of nonfree-kmod-nvidia or nvidia-open-gpu-kernel-modules, and one nvidia-container-toolkit
    """
    assert_holds(judgement)


@clause("TALOS-EXT-002")
def test_driver_and_toolkit_are_of_one_branch(judgement):
    """Kernel module and toolkit extension MUST be of one driver version and one branch.

    Preconditions: both extensions are installed
    Expected: the driver part of both versions is equal, and so is the suffix -lts or -production
    """
    assert_holds(judgement)


@clause("TALOS-EXT-003")
def test_kernel_modules_are_built_for_this_release(judgement):
    """The kernel module extension MUST be built for the Talos release that runs.

    Preconditions: a kernel module extension is installed
    Expected: its version ends with the running tag, and the kernel rejected no module's key
    """
    assert_holds(judgement)


@clause("TALOS-EXT-004")
def test_declared_extensions_are_installed(judgement):
    """Every extension that lab.yaml declares MUST be installed.

    Preconditions: `talos.extensions` is declared
    Expected: each name, or the name its alias has in this release, is among the installed extensions
    """
    assert_holds(judgement)


@clause("TALOS-SCHEMATIC-001")
def test_node_runs_the_declared_schematic(judgement):
    """The node MUST run the schematic that lab.yaml declares.

    Preconditions: `talos.schematic` or `talos.extensions` is declared
    Expected: the running id equals the declared id, or the id computed offline from the declared list
    """
    assert_holds(judgement)


@clause("TALOS-SCHEMATIC-002")
def test_schematic_lists_in_the_declared_order(judgement):
    """The schematic MUST list its extensions in the order of lab.yaml.

    Preconditions: the node runs the declared set of extensions
    Expected: the ids are equal; the same set in another order has another id and never compares equal
    """
    assert_holds(judgement)
