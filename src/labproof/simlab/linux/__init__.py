"""A node whose operating system is a Linux distribution: no image factory, no API of its own."""
