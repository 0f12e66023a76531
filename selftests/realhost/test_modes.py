"""Failure modes really done in the guest: the suite names the true cause."""

import pytest

from . import recording
from .modes import MODES, REBOOT
from .test_cycle import FULL, TRIXIE

ROWS = [pytest.param(mode, id=mode.id, marks=() if mode.short else FULL) for mode in MODES]


@pytest.mark.parametrize("mode", ROWS)
@pytest.mark.parametrize("bed", [TRIXIE], indirect=True, scope="session")
def test_a_real_mistake_leads_to_its_cause(bed, mode, request):
    bed.go(mode.state)
    bed.guest.run(mode.script)
    for command in mode.then:
        if command == REBOOT:
            bed.guest.reboot(bed.machine.alive)
        else:
            bed.guest.run(command, limit_s=2400)
    judged = bed.pytest(bed.lab(mode.id, mode.card, mode.wanted))
    if request.config.getoption("--realhost-record"):
        recording.write(mode.id, bed.probe(), based_on=mode.state)
    assert mode.cause in judged.causes.get(mode.clause, ()), judged.terminal
    assert judged.exit_status == 1
