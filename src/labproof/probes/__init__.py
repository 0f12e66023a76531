"""labproof."""
