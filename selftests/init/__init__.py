"""`labproof init` against the simulated lab: real servers, the command's own code."""
