"""Provisioning: observe, plan, apply, verify, undo. Only the plugin and the commands use it."""
