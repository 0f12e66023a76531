"""Reports: everything is rendered from run.json, nothing from live state."""
