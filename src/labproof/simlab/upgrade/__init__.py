"""Upgrades as owners do them: a version moves, the owner's configuration stays as it is, and symptoms follow."""
