"""Selftests."""
