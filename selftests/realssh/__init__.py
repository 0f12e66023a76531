"""The host layer on this very machine, over Debian's own OpenSSH server."""
