"""Libraries, device nodes and a CUDA kernel, as the user of the pod gets them."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("POD-CAPS-001")
def test_video_libraries_are_there(judgement):
    """The libraries of NVENC and NVDEC MUST be in the pod.

    Preconditions: nvidia-smi works in the pod
    Expected: libcuda, libnvidia-encode and libnvcuvid exist as files
    """
    assert_holds(judgement)


@clause("POD-OPEN-001")
def test_device_nodes_open(judgement):
    """The user of the pod MUST be able to open the card's device nodes.

    Preconditions: a pod with one slot runs
    Expected: /dev/nvidiactl and /dev/nvidiaN, where they are there, open for reading and for writing
    """
    assert_holds(judgement)


@clause("POD-UVM-001")
def test_unified_memory_opens(judgement):
    """The user of the pod MUST be able to open /dev/nvidia-uvm.

    Preconditions: nvidia-smi works in the pod
    Expected: it is there and opens for reading and for writing
    """
    assert_holds(judgement)


@clause("POD-CUDA-001")
def test_cuda_kernel_is_right(judgement):
    """A CUDA kernel in a pod with one slot MUST return the right result.

    Preconditions: compute is declared, and the card has memory free
    Expected: the log of NVIDIA's vectorAdd sample holds `Test PASSED`
    """
    assert_holds(judgement)
