"""Command-line options of the suite, and which lab a run is about."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from labproof.plugin import keeping

DEFAULT_SIMULATED_LAB = "t4-jellyfin"
FAIL_ON = ("blocking", "degraded", "hygiene")


def add_options(parser: pytest.Parser) -> None:
    """Register labproof's options."""
    group = parser.getgroup("labproof", "labproof: is the GPU really there?")
    group.addoption("--lab", metavar="FILE", help="lab.yaml of a real lab (default: $LABPROOF_LAB, ./lab.yaml)")
    group.addoption("--sim", metavar="NAME", help="judge a simulated lab: a shipped name or a lab folder")
    group.addoption(
        "--fault", action="append", default=[], metavar="ID", help="break the simulated lab (`labproof faults`)"
    )
    group.addoption("--variation", metavar="NAME", help="a variation of the simulated lab")
    group.addoption("--bare", action="store_true", help="the simulated lab before anybody provisioned it")
    group.addoption("--plan", action="store_true", help="say what --provision would do, and stop")
    group.addoption("--plan-json", metavar="FILE", help="with --plan: write it for programs too")
    group.addoption("--provision", action="store_true", help="bring the lab to what lab.yaml declares, then judge it")
    group.addoption(
        "--allow", action="append", default=[], metavar="SCOPE",
        help="what may be changed: host-files, host-boot, host-reboot, vm-config, vm-restart, all; overrides by name",
    )  # fmt: skip
    group.addoption("--undo", action="store_true", help="take back what --provision did to this lab, and stop")
    group.addoption("--require-lab", action="store_true", help="never fall back to a simulated lab")
    group.addoption("--facts", metavar="DIR", help="judge saved facts (reports/runs/ID) again, contacting nothing")
    group.addoption(
        "--fail-on", choices=FAIL_ON, default="degraded", help="least severity that makes a run red (degraded)"
    )
    group.addoption("--reports", metavar="DIR", default="reports", help="where reports go (reports)")
    keeping.add_options(group)
    group.addoption(
        "--publish", metavar="FOLDER", help="commit page and summary into this folder of a git checkout (no push)"
    )
    group.addoption(
        "--notify", metavar="URL", help="tell a webhook or ntfy topic (ntfy+https://...) when the verdict changes"
    )


#: Our options that take a folder or a file.
_TAKE_PATHS = ("--lab", "--facts", "--sim", "--reports", "--publish")


def refuse_misread_folder(config: pytest.Config) -> None:
    """Refuse `--reports FOLDER` where it made pytest lose this folder's own configuration.

    pytest looks for its root folder before plugins are loaded, so it takes an existing folder behind an option it does
    not know yet for a folder to collect (tried with 9.2). `--reports=FOLDER` is one word and cannot be misread.

    Raises:
        pytest.UsageError: it happened (exit status 4).
    """
    here = Path(config.invocation_params.dir)
    split = [word for word in config.invocation_params.args if word in _TAKE_PATHS]
    own = [name for name in ("pytest.toml", "pyproject.toml", "pytest.ini", "tox.ini") if (here / name).is_file()]
    lost = config.inipath is None or config.inipath.parent not in (here, *here.parents)
    if split and own and lost and not config.getoption("inifilename"):
        raise pytest.UsageError(
            f"pytest took the folder behind {split[0]} for its root folder and lost {own[0]} of this one;"
            f" write {split[0]}=FOLDER, as one word"
        )


@dataclass(frozen=True)
class Choice:
    """The lab a run is about.

    Attributes:
        kind: `real`, `sim` or `facts`.
        path: lab.yaml for real and sim; the run's folder for facts.
        fallback: True when nothing was said and nothing was found, so the simulated T4 lab serves.
    """

    kind: str
    path: Path
    fallback: bool = False


def choose_lab(config: pytest.Config) -> Choice:
    """Which lab: --facts, --lab, --sim, else $LABPROOF_LAB, else ./lab.yaml, else the simulated T4 lab.

    Raises:
        pytest.UsageError: the options contradict each other, or the lab they name is not there (exit status 4).
    """
    from labproof import places

    option = config.getoption
    named = [o for o in ("--facts", "--lab", "--sim") if option(o)]
    if len(named) > 1:
        raise pytest.UsageError(f"{' and '.join(named)} contradict each other: give one of them")
    simulating = bool(option("--sim")) or not named
    if option("--facts"):
        _refuse_breaking(option, "--facts")
        return Choice("facts", _facts_folder(Path(option("--facts"))))
    declared = option("--lab") or (None if option("--sim") else os.environ.get("LABPROOF_LAB"))
    if declared is None and not option("--sim"):
        here = Path(config.invocation_params.dir) / "lab.yaml"
        declared = str(here) if here.is_file() else None
    if declared is not None:
        _refuse_breaking(option, "a real lab")
        path = Path(declared)
        path = path / "lab.yaml" if path.is_dir() else path
        if not path.is_file():
            raise pytest.UsageError(
                f"no lab at {path}: write a lab.yaml there, or leave it out to see the simulated lab"
            )
        return Choice("real", path)
    if option("--require-lab"):
        raise pytest.UsageError(
            "--require-lab: no lab is declared (--lab, $LABPROOF_LAB or ./lab.yaml), and a simulated lab proves nothing"
        )
    if not simulating:
        raise pytest.UsageError("no lab chosen")
    try:
        return Choice("sim", places.lab_file(option("--sim") or DEFAULT_SIMULATED_LAB), fallback=not option("--sim"))
    except FileNotFoundError as missing:
        raise pytest.UsageError(f"--sim: {missing}") from None


def _refuse_breaking(option: object, what: str) -> None:
    get = option
    assert callable(get)
    for name in ("--fault", "--variation", "--bare"):
        if get(name):
            raise pytest.UsageError(f"{name} exists only for a simulated lab, never for {what}; add --sim NAME")


def _facts_folder(given: Path) -> Path:
    for folder in (given, given / "facts"):
        if (folder / "run.facts.json").is_file():
            return folder
    raise pytest.UsageError(f"--facts {given}: no saved facts there (expected a folder such as reports/runs/ID)")
