"""How a step ends that did not come to its end."""

from __future__ import annotations


class StepFailed(Exception):
    """A change could not be made, or its clause is still red. The text is for the owner and carries no secret."""


class ChangedSince(StepFailed):
    """Somebody else changed the thing between our look and our hand, or since we changed it."""
