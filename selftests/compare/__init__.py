"""What is kept of runs: history, comparison, baseline, exceptions, nightly runs."""
