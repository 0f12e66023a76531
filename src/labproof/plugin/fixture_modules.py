"""The fixtures of layers and steps (`fixtures/*.py`, `setup/*.py`), loaded under names that clash with nobody.

The folders are called as packages and modules of others are: they are never imported by those names.
"""

from __future__ import annotations

import importlib.util
import sys

import pytest

from labproof import places

FOLDERS = ("fixtures", "setup")


def register(config: pytest.Config) -> None:
    """Make every module of `fixtures/` and `setup/` a plugin of this run."""
    for path in (path for folder in FOLDERS for path in sorted(places.folder(folder).glob("*.py"))):
        if path.name == "__init__.py":
            continue
        name = f"labproof_{path.parent.name}_{path.stem}"
        if config.pluginmanager.has_plugin(name):
            continue
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        config.pluginmanager.register(module, name)
