"""The owners' apps of a simulated cluster: servers in pods whose answers follow from card, container and settings."""
