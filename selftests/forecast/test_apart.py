"""The forecast and the simulator's upgrades share nothing, so neither is the other's only witness."""

import ast
from pathlib import Path

import pytest

import labproof.forecast
import labproof.simlab.upgrade


def imported(package):
    """Modules that a package's files import, lazily too."""
    for path in sorted(Path(package.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                yield path.name, node.module
            elif isinstance(node, ast.Import):
                yield from ((path.name, alias.name) for alias in node.names)


@pytest.mark.parametrize(
    ("package", "own", "foreign"),
    [
        (labproof.forecast, "labproof.forecast", ("simlab", "probes", "clients", "plugin", "provision", "cli")),
        (
            labproof.simlab.upgrade,
            "labproof.simlab",
            ("forecast", "catalogue", "checks", "facts", "report", "inventory"),
        ),
    ],
    ids=["forecast", "simulator"],
)
def test_neither_imports_the_other(package, own, foreign):
    found = list(imported(package))
    assert any(module.startswith(own) for _, module in found)
    for file, module in found:
        assert not module.startswith(tuple(f"labproof.{name}" for name in foreign)), f"{file} imports {module}"


def test_the_simulator_reads_its_own_table():
    text = (Path(labproof.simlab.upgrade.__file__).parent / "perform.py").read_text("utf-8")
    assert "catalogue" not in text
    assert (Path(labproof.simlab.upgrade.__file__).parent / "releases.yaml").is_file()
