"""What the card and the kernel say while our transcodes run."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("CODEC-HEAT-001")
def test_no_slowdown_under_load(judgement):
    """The card MUST NOT slow down by heat or by its power supply while it transcodes.

    Preconditions: transcodes ran, and the driver tells its clock event reasons
    Expected: no sample between their first and last frame has one of hardware, thermal or power brake slowdown
    """
    assert_holds(judgement)


@clause("CODEC-KLOG-001")
def test_kernel_is_quiet_while_we_work(judgement):
    """The kernel MUST NOT report anything new about the card while our transcodes run.

    Preconditions: transcodes ran on every chain of the node, and the kernel log can be read
    Expected: the log read afterwards holds no NVRM, AER or driver error record that was not there before
    """
    assert_holds(judgement)
