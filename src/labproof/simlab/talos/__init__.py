"""Simulated lab: talos."""
