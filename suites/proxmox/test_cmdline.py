"""The kernel command line: wanted, live, and kept for the next boot."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("HOST-CMDLINE-001")
def test_wanted_arguments_are_live(judgement):
    """The running kernel MUST have been started with every wanted argument.

    Preconditions: `kernel.wanted` in lab.yaml, or what this CPU and kernel need
    Expected: each wanted token is in /proc/cmdline; an argument that is on by default need not be there
    """
    assert_holds(judgement)


@clause("HOST-CMDLINE-002")
def test_next_boot_keeps_the_arguments(judgement):
    """The boot loader in use MUST be configured with every wanted argument and none that turns the IOMMU off.

    Preconditions: SSH access to the host
    Expected: the tokens stand in the file that this boot loader reads (/etc/default/grub or /etc/kernel/cmdline)
    """
    assert_holds(judgement)


@clause("HOST-CMDLINE-003")
def test_kernel_cmdline_is_well_formed(judgement):
    """/etc/kernel/cmdline MUST be one line with a root= token where systemd-boot reads it.

    Preconditions: a host that boots by systemd-boot; others pass
    Expected: exactly one line, with root=
    """
    assert_holds(judgement)
