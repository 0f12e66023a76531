"""`pytest` alone, in the folder of a lab.yaml, runs the suites: an owner has no tests of their own to collect."""

from __future__ import annotations

from pathlib import Path

import pytest

#: Options that only make sense for the suites.
OURS = ("lab", "sim", "facts", "require_lab", "bare", "plan", "provision", "undo")
PACKAGED = "labproof.suites"


def point_at_suites(config: pytest.Config, args: list[str]) -> None:
    """Add the suites to the command line where the owner can mean nothing else.

    That is: nothing to collect was named, there is no pytest configuration here, and either a lab.yaml lies here, and
    no tests beside it, or an option of ours was given. `--pyargs labproof.suites` is understood in a clone too.
    """
    from labproof import places

    given = config.known_args_namespace
    suites = str(places.folder("suites"))
    if PACKAGED in args:
        args[args.index(PACKAGED)] = suites
    elif given.file_or_dir or config.inipath is not None or given.help or given.version:
        return
    elif _is_labs_folder(Path(config.invocation_params.dir)) or any(getattr(given, x, None) for x in OURS):
        args.append(suites)
    else:
        return
    args.append("--import-mode=importlib")  # test files of different layers share names


def _is_labs_folder(here: Path) -> bool:
    """A folder with tests of its own is somebody's project, whatever its lab.yaml is."""
    own = next((p for pattern in ("test_*.py", "*_test.py", "tests") for p in here.glob(pattern)), None)
    return (here / "lab.yaml").is_file() and own is None
