"""What can be asked for, and the one line that says why something cannot."""

import pytest

from labproof.catalogue.causes import causes
from labproof.catalogue.upgrades import SURENESS, gates, newest, numbers, pve_release
from labproof.catalogue.versions import (
    kernel_of,
    newest_known,
    shipped_driver,
    shipped_toolkit,
    supported_kubernetes,
)
from labproof.checks.registry import clauses
from labproof.forecast.target import COMPONENTS, BadTarget, parse_targets


@pytest.mark.parametrize(
    ("words", "component", "read"),
    [
        (["talos=1.13.9"], "talos", "v1.13.9"),
        (["talos=v1.12.0"], "talos", "v1.12.0"),
        (["talos=1.13"], "talos", "v1.13.9"),
        (["Talos = 1.14.0-rc.1"], "talos", "v1.14.0"),
        (["kubernetes=1.36"], "kubernetes", "v1.36.0"),
        (["k8s=v1.35.3"], "kubernetes", "v1.35.3"),
        (["kubelet=1.34"], "kubelet", "v1.34.0"),
        (["pve=9"], "pve", "9.2"),
        (["pve=9.1.2"], "pve", "9.1"),
        (["proxmox=8"], "kernel", "6.8.12-9-pve"),
        (["pve=9.0", "kernel=6.14.8-2-pve"], "kernel", "6.14.8-2-pve"),
        (["kernel=6.14.8-1-bpo12-pve"], "kernel", "6.14.8-1-bpo12-pve"),
        (["plugin=v0.19.0"], "plugin", "0.19.0"),
        (["gpu-operator=26.3.1"], "operator", "26.3.1"),
    ],
)
def test_a_version_is_understood_as_people_write_it(words, component, read):
    assert getattr(parse_targets(words), component) == read


def test_a_short_version_is_told_as_it_was_taken():
    notes = parse_targets(["talos=1.13", "pve=9"]).notes
    assert any("v1.13.9" in note for note in notes)
    assert any("9.2" in note for note in notes)
    assert any("7.0.14-14-pve" in note for note in notes)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["talos"], "COMPONENT=VERSION"),
        (["talos="], "COMPONENT=VERSION"),
        (["tallos=1.13.9"], "did you mean talos?"),
        (["cuda=13"], "unknown component; known: pve, kernel, talos"),
        (["talos=1.13.9", "talos=1.12.0"], "given twice"),
        (["k8s=1.35", "kubernetes=1.36"], "given twice"),
        (["talos=next"], "no Talos version"),
        (["talos=1.99.0"], "Talos 1.99.0 is newer than the data, known up to v1.14.0"),
        (["talos=2.0.0"], "newer than the data"),
        (["talos=1.13.10"], "known up to v1.13.9 in this minor"),
        (["talos=1.5.0"], "older than the data"),
        (["talos=1.10"], "which patch?"),
        (["kubernetes=1.99"], "newer than the data, known up to 1.37"),
        (["kubernetes=36"], "no Kubernetes version"),
        (["pve=10"], "Proxmox VE 10 is newer than the data, known up to 9.2"),
        (["pve=6.4"], "older than the data"),
        (["pve=bookworm"], "no Proxmox VE version"),
        (["kernel=6.8"], "no Proxmox kernel"),
        (["kernel=8.1.0-1-pve"], "newer than the data"),
        (["plugin=latest"], "no release"),
        (["plugin=1.0.0"], "plugin 1.0.0 is newer than the data, known up to 0.20.0"),
        (["operator=27.1.0"], "newer than the data"),
        (["driver=595"], "the driver comes with the Talos image"),
        (["containerd=2.3"], "comes with the Talos image"),
        (["flux=2.8"], "labproof lint"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(words, says):
    with pytest.raises(BadTarget, match=r"^[^\n]+$") as refused:
        parse_targets(words)
    assert says in str(refused.value)


# ------------------------------------------------------------------ the data


def test_every_gate_is_of_a_cause_that_a_clause_can_name():
    named = {cause for clause in clauses().values() for cause in clause.causes}
    for cause, gate in gates().items():
        assert cause in causes()
        assert cause in named, f"no clause can find {cause}"
        assert gate.sure in SURENESS
        assert set(gate.by) <= set(COMPONENTS)
        assert gate.source


def test_every_known_talos_release_has_all_that_a_forecast_moves():
    major, newest_minor, _ = newest_known()
    for minor in range(8, newest_minor + 1):
        tag = f"v{major}.{minor}.0"
        assert supported_kubernetes(tag)[1] == minor + 23, "six minors up to its own default"
        assert shipped_toolkit(tag).startswith("v1.")
        for branch in ("lts", "production"):
            assert shipped_driver(tag, branch).count(".") == 2
        assert minor == 8 or kernel_of(tag).endswith("-talos")  # the facts do not tell the kernel of 1.8


def test_every_known_pve_release_boots_a_known_kernel():
    for release in ("8.0", "8.1", "8.2", "8.3", "8.4", "9.0", "9.1", "9.2"):
        found, kernel = pve_release(release)
        assert found == release
        assert numbers(kernel) <= numbers(newest("kernel"))
    assert pve_release("9") == pve_release(newest("pve"))
    assert pve_release("7.4") is None
