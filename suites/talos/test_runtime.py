"""What a GPU pod meets on the node: containerd's parts and a kernel parameter."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("TALOS-RUNTIME-001")
def test_containerd_knows_the_nvidia_runtime(judgement):
    """containerd MUST have the nvidia runtime configured.

    Preconditions: the container toolkit extension is installed
    Expected: its part (10-nvidia-container-runtime.part, unprefixed before 1.9.2) is in /etc/cri/conf.d
    """
    assert_holds(judgement)


@clause("TALOS-RUNTIME-002")
def test_owners_part_is_read_last(judgement):
    """The owner's containerd part MUST be read after the extension's.

    Preconditions: the nvidia runtime is configured
    Expected: 20-customization.part sorts behind the extension's part
    """
    assert_holds(judgement)


@clause("TALOS-RUNTIME-003")
def test_owners_part_takes_effect(judgement):
    """The owner's containerd part MUST name this release's table and a runtime that exists.

    Preconditions: lab.yaml declares the right os:admin (the file cannot be read with less)
    Expected: default_runtime_name stands in the table this release reads, and is not that of a missing extension
    """
    assert_holds(judgement)


@clause("TALOS-SYSCTL-001")
def test_kernel_accepts_the_device_filter(judgement):
    """The kernel MUST accept the runtime's device filter.

    Preconditions: pods get the GPU by the legacy runtime
    Expected: up to Talos 1.12 net.core.bpf_jit_harden is 1; from 1.13 on it does not matter
    """
    assert_holds(judgement)
