"""The fixtures of the layers (`fixtures/*.py`), loaded under names that clash with nobody.

The top-level folder is called `fixtures`, and so is a package on PyPI: it is never imported by that name.
"""

from __future__ import annotations

import importlib.util
import sys

import pytest

from labproof import places


def register(config: pytest.Config) -> None:
    """Make every module of `fixtures/` a plugin of this run."""
    for path in sorted(places.folder("fixtures").glob("*.py")):
        if path.name == "__init__.py":
            continue
        name = f"labproof_fixtures_{path.stem}"
        if config.pluginmanager.has_plugin(name):
            continue
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        config.pluginmanager.register(module, name)
