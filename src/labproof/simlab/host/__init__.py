"""Simulated lab: host."""
