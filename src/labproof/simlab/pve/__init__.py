"""Simulated lab: pve."""
