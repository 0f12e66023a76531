"""Where suites, fixtures, manifests and labs lie: inside the installed package, or beside `src/` in a clone."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CLONE = _PACKAGE.parent.parent


def folder(name: str) -> Path:
    """Folder `suites`, `fixtures`, `manifests`, `labs` ... of this installation.

    Raises:
        FileNotFoundError: neither the wheel nor a clone has it (a broken installation).
    """
    for base in (_PACKAGE, _CLONE):
        if (base / name).is_dir():
            return base / name
    raise FileNotFoundError(f"labproof: its {name}/ folder is missing from this installation; install it again")


def lab_file(name: str) -> Path:
    """lab.yaml of a shipped reference lab, by name, or of a folder or file given as a path.

    Raises:
        FileNotFoundError: there is no such lab; the text lists those that ship.
    """
    given = Path(name)
    if given.is_file():
        return given
    if (given / "lab.yaml").is_file():
        return given / "lab.yaml"
    shipped = folder("labs") / name / "lab.yaml"
    if shipped.is_file():
        return shipped
    names = ", ".join(sorted(p.parent.name for p in folder("labs").glob("*/lab.yaml")))
    raise FileNotFoundError(f"no lab called {name!r}; shipped labs: {names}")
