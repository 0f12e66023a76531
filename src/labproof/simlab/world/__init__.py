"""The simulated world: inputs, derived states, keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labproof.simlab.world.inputs import Variation, known_labs, lab_folder, load_inputs, merge_patch, variations

if TYPE_CHECKING:
    from labproof.simlab.world.lab import World
    from labproof.simlab.world.pki import Authority, Issued, Pki

__all__ = [
    "Authority", "Issued", "Pki", "Variation", "World", "known_labs", "lab_folder", "load_inputs", "merge_patch",
    "variations",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """World and Pki on first use: the layers import this package for its states while World imports the layers."""
    if name == "World":
        from labproof.simlab.world.lab import World

        return World
    if name in ("Authority", "Issued", "Pki"):
        from labproof.simlab.world import pki

        return getattr(pki, name)
    raise AttributeError(name)
