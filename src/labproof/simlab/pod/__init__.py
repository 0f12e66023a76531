"""Simulated lab: pod."""
