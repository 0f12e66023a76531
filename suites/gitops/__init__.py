"""The specification: a clause a test."""
