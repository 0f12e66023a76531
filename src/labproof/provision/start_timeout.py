"""How long PVE gives a VM's start (qemu-server Helpers.pm, config_aware_timeout; facts proxmox 3.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping


def start_timeout_s(config: Mapping[str, str]) -> int:
    """Seconds: 30, a second per GiB above 30 GiB, four times that with a passed device, 5 s more for each NIC."""
    match = re.match(r"(?:current=)?(\d+)", config.get("memory", "512"))
    memory = int(match[1]) if match else 512
    seconds = memory // 1024 if memory > 30720 else 30
    if any(key.startswith("hostpci") for key in config):
        seconds *= 4
    if config.get("hugepages"):
        seconds = max(seconds, 150)
    return seconds + 5 * sum(re.fullmatch(r"net\d+", key) is not None for key in config)
