"""Forecasts held against the simulated lab."""
