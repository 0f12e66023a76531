"""The committed JSON Schema is current, and the shipped labs load."""

from pathlib import Path

import pytest

from labproof import places
from labproof.inventory.chains import chains_of
from labproof.inventory.load import load_lab
from labproof.inventory.schema import schema_text

ROOT = Path(__file__).parents[2]


def test_the_committed_schema_is_current():
    assert (ROOT / "docs" / "lab.schema.json").read_text() == schema_text(), "labproof schema > docs/lab.schema.json"


@pytest.mark.parametrize("path", sorted(places.folder("labs").glob("*/lab.yaml")), ids=lambda p: p.parent.name)
def test_every_shipped_lab_loads_and_has_an_editor_hint(path):
    lab = load_lab(path, read_secrets=False)
    assert "yaml-language-server: $schema=" in path.read_text().splitlines()[0]
    assert chains_of(lab)


def test_the_t4_lab_is_one_chain_over_all_layers():
    lab = load_lab(places.lab_file("t4-jellyfin"), read_secrets=False)
    (chain,) = chains_of(lab)
    assert chain.id == "pve5/0000:3b:00.0"
    assert chain.layers == ("host", "vm", "talos", "kubernetes", "workload", "transcode", "metrics", "apps")
