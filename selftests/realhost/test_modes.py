"""Failure modes really done in the guest: the suite names the true cause; and the guest's facts are its twin's."""

import pytest

from labproof.checks.registry import HYGIENE, clauses
from labproof.probes.host_parse import parse_host

from . import recording, twin
from .likeness import differences
from .modes import MODES, REBOOT
from .test_cycle import FULL, TRIXIE

ROWS = [pytest.param(mode, id=mode.id, marks=() if mode.short else FULL) for mode in MODES]
ONE = pytest.mark.parametrize("bed", [TRIXIE], indirect=True, scope="session")


@ONE
@pytest.mark.parametrize("state", ["fresh", "provisioned"])
def test_the_simulated_host_is_like_the_guest_as_it_is_now(bed, state, request):
    """The kernel's version is the distribution's of today; everything else is as in the recording."""
    bed.go(state)
    text = bed.probe()
    if request.config.getoption("--realhost-record"):
        recording.write(state, text)
    release = bed.guest.run("uname -r").strip()
    now = {"kernel": {"version": release, "installed": [release]}}
    assert differences(parse_host(text, "guest", 0.0), twin.facts(state, now)) == {}


@ONE
@pytest.mark.parametrize("mode", ROWS)
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
    assert judged.exit_status == (0 if clauses()[mode.clause].severity == HYGIENE else 1)
