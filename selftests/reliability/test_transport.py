"""Bad transport on every protocol: the clauses it touches are unchecked, soon, with a reason; nothing else changes."""

import json

import pytest

from labproof.checks.registry import clauses
from labproof.clients import wait
from labproof.simlab.transport import Trouble

from ..matrix.harness import judge

KUBE = ("kubernetes", "workload", "transcode")
#: Server behind a protocol, the layers judged, and the layers that rest on it.
SERVERS = {
    "ssh": ("pve5", ("host",), {"host"}),
    "pve": ("pve5", ("host", "vm"), {"vm"}),
    "talos": ("cp-1", ("host", "talos"), {"talos"}),  # the talosconfig's endpoint, which forwards
    "kube": ("moody", KUBE, set(KUBE)),
}
#: Seconds within which everything is over, with connect_s and request_s of one second.
BOUND_S = 15.0

STATUSES = [Trouble("status", code) for code in (401, 403, 429, 500, 503)]
WIRE = [Trouble(kind) for kind in ("refused", "reset", "end", "stall", "garbage", "certificate")]
WHOLE = {
    "ssh": [t for t in WIRE if t.kind != "certificate"],
    "pve": [*WIRE, *STATUSES, Trouble("page"), Trouble("half"), Trouble("trickle")],
    "talos": [*WIRE, *STATUSES, Trouble("trickle")],
    "kube": [*(t for t in WIRE if t.kind != "stall"), *STATUSES, Trouble("page"), Trouble("half"), Trouble("trickle")],
}
PART = {
    "ssh": [*(Trouble(kind, after=n) for kind in ("reset", "end") for n in (2600, 9000, 20000, 33000)),
            Trouble("stall", after=9000)],
    "pve": [Trouble("reset", after=4000), Trouble("stall", after=4000), Trouble("status", 403, after=5),
            Trouble("status", 500, after=9), Trouble("status", 429, after=11), Trouble("half", after=7),
            Trouble("page", after=3), Trouble("trickle", after=8), Trouble("status", 401, after=14)],
    "talos": [*(Trouble("reset", after=n) for n in (1500, 3000, 6000)), Trouble("end", after=5000),
              Trouble("stall", after=4500), Trouble("status", 403, after=6), Trouble("status", 503, after=9),
              Trouble("status", 429, after=3), Trouble("trickle", after=12)],
    "kube": [Trouble("status", 403, after=8), Trouble("status", 503, after=12), Trouble("half", after=16),
             Trouble("lost", after=20), Trouble("page", after=30), Trouble("trickle", after=20, only="/exec$"),
             Trouble("status", 401, after=70), Trouble("half", after=100), Trouble("reset", after=8000),
             Trouble("exec-closed"), Trouble("exec-dropped", after=6), Trouble("status", 500, only="/exec$"),
             Trouble("lost", only="POST .*/pods$"), Trouble("lost", only="POST .*/leases$"),
             Trouble("status", 500, only="/log$"), Trouble("page", only="GET .*/pods$")],
}  # fmt: skip
CASES = [(kind, trouble) for kind, troubles in WHOLE.items() for trouble in troubles]
PARTS = [(kind, trouble) for kind, troubles in PART.items() for trouble in troubles]


def name_of(value):
    if isinstance(value, str):
        return value
    return "-".join(str(p) for p in (value.kind, value.status or "", value.after or "", value.only) if p)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Repeated reads wait 50 ms instead of growing seconds."""
    monkeypatch.setattr(wait, "LONGEST_STAY_AWAY_S", 0.05)


@pytest.fixture(scope="module")
def absent_when_healthy(simlab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("healthy")
    outcome = judge(simlab.overlay, folder)
    assert {r.verdict for r in outcome.rulings.values()} == {"pass"}, outcome.describe()
    return absent_in(folder)


def absent_in(folder):
    """Sources of all readings that say "not there"."""
    found = set()

    def look(item):
        if isinstance(item, dict):
            if item.get("state") == "absent":
                found.add(item["source"])
            for below in item.values():
                look(below)
        elif isinstance(item, list):
            for below in item:
                look(below)

    for path in folder.rglob("*.json"):
        look(json.loads(path.read_text("utf-8")))
    return found


#: A refusal is itself a finding with a cause, where a clause is about that right.
NAMED = {403: {("VM-RIGHTS-001", "P51")}}


def hold_for_all(outcome, tmp_path, absent_when_healthy, trouble):
    told = outcome.describe()
    assert outcome.seconds < BOUND_S, told
    failed = {(i, cause) for i in outcome.of("fail") for cause in outcome.causes(i)}
    assert failed <= NAMED.get(trouble.status, set()), told
    assert not outcome.of("blocked"), told
    for ruling in outcome.rulings.values():
        if ruling.verdict == "unchecked":
            assert len(ruling.judgement.reason) > 10, told
            assert "defect of labproof" not in ruling.judgement.reason
            assert "Traceback" not in ruling.judgement.reason
    assert absent_in(tmp_path) <= absent_when_healthy


@pytest.mark.parametrize(("kind", "trouble"), CASES, ids=name_of)
def test_a_server_that_cannot_be_asked(judged, lines, tmp_path, absent_when_healthy, kind, trouble):
    name, layers, touched = SERVERS[kind]
    lines.disturb(kind, name, trouble)
    outcome = judged(layers)
    hold_for_all(outcome, tmp_path, absent_when_healthy, trouble)
    by_verdict = {(i, t): r.verdict for (i, t), r in outcome.rulings.items()}
    unchecked = {i for (i, _), verdict in by_verdict.items() if verdict == "unchecked"}
    assert unchecked == {i for i, _ in outcome.rulings if clauses()[i].layer in touched}, outcome.describe()
    why = {r.judgement.reason.rpartition(": ")[2] for r in outcome.rulings.values() if r.verdict == "unchecked"}
    assert len(why) == 1, outcome.describe()
    assert lines[kind, name].connections <= 20


@pytest.mark.parametrize(("kind", "trouble"), PARTS, ids=name_of)
def test_an_answer_that_stays_away_half_way(judged, simlab, lines, tmp_path, absent_when_healthy, kind, trouble):
    name, layers, _ = SERVERS[kind]
    if kind == "kube":
        simlab.reset([])  # no pod of the case before it
    lines.disturb(kind, name, trouble)
    outcome = judged(layers)
    hold_for_all(outcome, tmp_path, absent_when_healthy, trouble)
    assert outcome.of("unchecked"), "the trouble touched nothing"


def test_a_strange_host_key_is_refused(judged, simlab, tmp_path):
    ssh = simlab.overlay["patch"]["hosts"]["pve5"]["ssh"]
    known = tmp_path / "known_hosts"
    other = simlab._pki.ssh_public("host/another")
    known.write_text(f"[127.0.0.1]:{ssh['port']} {other}\n")
    simlab.overlay["patch"]["hosts"]["pve5"]["ssh"] = {**ssh, "known_hosts": str(known)}
    try:
        outcome = judged(("host",))
    finally:
        simlab.overlay["patch"]["hosts"]["pve5"]["ssh"] = ssh
    assert set(outcome.of("unchecked")) == {i for i, _ in outcome.rulings}
    assert all("host key CHANGED" in r.judgement.reason for r in outcome.rulings.values())


def test_the_lab_is_well_again_when_the_trouble_ends(judged, lines):
    lines.disturb("kube", "moody", Trouble("refused"))
    assert set(judged(("kubernetes",)).of("pass")) == set()
    lines.clear()
    assert set(judged(("kubernetes",)).of("unchecked")) == set()
