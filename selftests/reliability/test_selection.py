"""What is selected, and in which order, changes no verdict; what is not selected is not contacted."""

import pytest

from labproof.checks.registry import clauses
from labproof.clients.ssh import SshSession
from labproof.simlab.faults import load_faults

from ..matrix.harness import judge
from .command import ROOT, finish, run, start, write_lab

DEGRADED = [
    "group-shared-with-usb", "vm-locked", "schematic-lost-extension", "plugin-config-edited", "page-retirement-pending",
    "encoder-without-hevc",
]  # fmt: skip
MARKS = {
    "host": {"host"}, "vm": {"vm"}, "proxmox": {"host", "vm"}, "talos": {"talos"}, "kubernetes": {"kubernetes"},
    "workload": {"workload"}, "compute": {"talos", "workload", "transcode"}, "transcode": {"transcode"},
    "proxmox or talos": {"host", "vm", "talos"}, "talos or transcode": {"talos", "transcode"},
    "host and vm": set(), "not host": {"vm", "talos", "kubernetes", "workload", "transcode", "metrics", "apps"},
    "metrics": {"metrics"}, "apps": {"apps"},
}  # fmt: skip
EMPTY = ("gitops",)  # the T4 lab declares no Flux
#: Reverses what the suite would run; loaded with -p, as a plugin that shuffles would be.
REVERSING = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.reverse()
"""
#: Makes every connection of the process an error.
NO_NETWORK = """
import socket

def refuse(*_):
    raise AssertionError("contacted the network")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
"""


def a_fault(layer, finding):
    """The first fault of the plain lab with such a finding in that layer."""
    return next(
        f.id for f in load_faults("t4-jellyfin").values()
        if clauses()[f.clause].layer == layer and f.finding == finding and not f.variation
    )  # fmt: skip


def whole_run(simlab, lines, folder, faults):
    simlab.reset(faults)
    lines.clear()
    write_lab(simlab, folder)
    done = run(folder)
    assert done.status == 1, done.output[-3000:]
    simlab.reset([])
    return done


@pytest.fixture(scope="module")
def seen(simlab, lines, tmp_path_factory):
    """A whole run with a broken layer in the middle."""
    return whole_run(simlab, lines, tmp_path_factory.mktemp("broken"), [a_fault("talos", "blocking")])


@pytest.fixture(scope="module")
def mixed(simlab, lines, tmp_path_factory):
    """A whole run with a degraded finding in each layer: nothing is blocked, and not all is well."""
    return whole_run(simlab, lines, tmp_path_factory.mktemp("mixed"), DEGRADED)


def saved(seen):
    return str((seen.folder / "reports" / "latest").resolve())


def again(seen, folder, *words, **env):
    """Judge the saved facts in an empty folder, without a network."""
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    return run(folder, "--facts", saved(seen), *words, PYTHONPATH=str(folder), **env)


def test_a_run_with_a_network_would_notice_that_there_is_none(simlab, tmp_path):
    write_lab(simlab, tmp_path)
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    done = run(tmp_path, "-m", "proxmox", PYTHONPATH=str(tmp_path))
    assert done.status == 6, done.output[-2000:]
    assert set(done.verdicts.values()) == {"unchecked"}


def test_saved_facts_without_a_network(seen, tmp_path):
    done = again(seen, tmp_path)
    assert done.status == 1, done.output[-2000:]
    assert done.verdicts == seen.verdicts
    assert done.result["first_broken"] == seen.result["first_broken"]
    assert done.result["simulated"] is True
    same = ("clause", "target", "verdict", "reason", "problems", "evidence", "blocked_by", "measurements")
    for one, other in zip(done.result["verdicts"], seen.result["verdicts"], strict=True):
        assert {k: one[k] for k in same} == {k: other[k] for k in same}


@pytest.mark.parametrize("expression", MARKS)
def test_marks_alone_and_together(mixed, tmp_path, expression):
    done = again(mixed, tmp_path, "-q", "-m", expression)
    judged = {v["layer"] for v in done.result["verdicts"]} if (tmp_path / "reports").exists() else set()
    assert judged == MARKS[expression], done.output[-2000:]
    same = {key: verdict for key, verdict in mixed.verdicts.items() if key in done.verdicts} if judged else {}
    assert (done.verdicts if judged else {}) == same
    assert done.status == (1 if "fail" in same.values() else 0 if judged else 5), done.output[-2000:]


def test_marks_nobody_bears_yet(seen, tmp_path):
    assert again(seen, tmp_path, "-m", " or ".join(EMPTY)).status == 5


@pytest.mark.parametrize(
    "words",
    [("-n", "auto", "--dist", "loadgroup"), ("-p", "reversing"), ("-k", "TALOS or driver or modules"),
     ("-m", "talos or kubernetes", "-n", "2", "-p", "reversing")],
    ids=" ".join,
)  # fmt: skip
def test_workers_order_and_keywords_change_nothing(seen, tmp_path, words):
    (tmp_path / "reversing.py").write_text(REVERSING)
    done = again(seen, tmp_path, *words)
    assert done.verdicts, done.output[-2000:]
    for key, verdict in done.verdicts.items():
        assert verdict == seen.verdicts[key] or "-m" in words, key
    if "-k" not in words and "-m" not in words:
        assert done.verdicts == seen.verdicts
        assert done.status == seen.status


def test_node_ids_and_last_failed(seen, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    cached = ("--facts", saved(seen), "-p", "cacheprovider", "-o", f"cache_dir={tmp_path / 'cache'}")
    one = finish(
        start(tmp_path, *cached, suites=str(ROOT / "suites" / "kubernetes"), PYTHONPATH=str(tmp_path)), tmp_path
    )
    assert set(one.verdicts.values()) == {"blocked"}
    assert {v["blocked_by"] for v in one.result["verdicts"]} == {seen.result["first_broken"][0]["clause"]}
    every = run(tmp_path, *cached)
    failed = run(tmp_path, *cached, "--lf")
    assert failed.status == every.status == 1
    assert failed.verdicts == {k: v for k, v in every.verdicts.items() if v in ("fail", "unchecked")}


# ------------------------------------------------------------------ what is contacted


@pytest.fixture
def contacted(simlab, lines, tmp_path):
    def go(*words):
        simlab.reset([])
        lines.clear()
        write_lab(simlab, tmp_path)
        done = run(tmp_path, *words)
        assert done.status == 0, done.output[-2000:]
        return {key: counted for key, counted in lines.counts().items() if any(counted)}

    yield go
    lines.clear()


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [("host", {"ssh"}), ("talos", {"talos"}), ("kubernetes", {"kube"}), ("transcode", {"kube"})],
)
def test_a_mark_contacts_only_what_its_clauses_read(contacted, expression, wanted):
    assert {kind for kind, _ in contacted("-m", expression)} == wanted


def test_a_read_only_run_creates_nothing(contacted, lines):
    counts = contacted("-m", "not workload and not transcode and not apps")
    assert {kind for kind, _ in counts} == {"ssh", "pve", "talos", "kube"}
    assert [line for key in counts for line in lines[key].asked if line.writes] == []


def test_requests_do_not_grow_with_the_clauses_that_ask(contacted, tmp_path):
    every = contacted("-m", "proxmox or talos or kubernetes")
    one = contacted("-k", "test_node_is_ready or test_gpu_allocatable or ready", "-m", "kubernetes", "-n", "2")
    assert set(one) == {("kube", "moody")}
    assert one["kube", "moody"][1] == every["kube", "moody"][1]
    assert every["ssh", "pve5"][0] == 1


def test_a_second_chain_on_the_same_host_costs_no_second_probe(simlab, lines, tmp_path, monkeypatch):
    commands = []
    really = SshSession.run
    monkeypatch.setattr(SshSession, "run", lambda self, *a, **k: commands.append(a) or really(self, *a, **k))
    counts = []
    for variation in (None, "two-cards"):
        simlab.reset([], variation)
        lines.clear()
        outcome = judge(simlab.overlay, tmp_path, layers=("host", "vm", "talos"))
        counts.append((lines["ssh", "pve5"].connections, len(lines["pve", "pve5"].asked), len(commands)))
        commands.clear()
        chains = {t for i, t in outcome.rulings if i == "HOST-IOMMU-001" or "/" in t}
    simlab.reset([])
    lines.clear()
    assert len([c for c in chains if "/" in c]) == 2, "the variation has two chains"
    assert counts[0] == counts[1]
    assert counts[0][0] == 1
    assert 1 <= counts[0][2] <= 2
