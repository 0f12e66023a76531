"""Every fault, every variation: the right cause, and nothing else."""
