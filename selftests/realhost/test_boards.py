"""Boards that no configuration can mend, and GPUs whose ids could not be written: full set only."""

from .conftest import a_bed
from .machine import PLAIN
from .test_cycle import FIRST, FULL

pytestmark = FULL


def test_a_board_without_an_iommu_is_told_as_that(place):
    with a_bed(place, "trixie", "none") as bed:
        judged = bed.unprovisioned
        assert judged.causes["HOST-FIRMWARE-001"] == ("P02",), judged.terminal
        assert "first broken layer: host (P02)" in judged.terminal
        planned = bed.pytest(bed.lab("cycle"), "--plan")
        assert "refused (P02)" in planned.terminal, planned.terminal


def test_a_board_without_interrupt_remapping_is_told_as_that(place):
    with a_bed(place, "trixie", "intel-no-remapping") as bed:
        bed.guest.run("""sed -i 's/_DEFAULT="quiet"/_DEFAULT="quiet intel_iommu=on"/' /etc/default/grub; update-grub""")
        bed.guest.reboot(bed.machine.alive)
        judged = bed.pytest(bed.lab("no-remapping"))
        assert judged.verdicts["HOST-IOMMU-001"] == "pass", judged.terminal
        assert judged.causes["HOST-IRQ-001"] == ("P06",), judged.terminal


def test_without_nvidias_ids_the_configured_ones_do(place):
    with a_bed(place, "trixie", "intel", disguised=False) as bed:
        assert bed.machine.ids == PLAIN
        judged = bed.unprovisioned
        # and udev gives a display device with QEMU's ids to bochs-drm, as it gives a known GPU to its driver
        assert judged.causes == {**FIRST["intel"], "HOST-DRIVER-001": ("P57",)}, judged.terminal
