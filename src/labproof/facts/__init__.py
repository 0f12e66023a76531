"""Facts: what the probes read, typed, frozen and JSON-serialisable."""
