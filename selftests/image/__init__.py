"""The Containerfile: linted, and its build steps really run in a clean Debian root."""
