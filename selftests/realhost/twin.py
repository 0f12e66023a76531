"""The guest's simulated twin: booted from inputs, and read by the suite's own probe inside its generated root."""

from __future__ import annotations

import asyncio
import copy
import tempfile
import time
from pathlib import Path
from typing import Any

from labproof.facts.host import HostFacts
from labproof.probes.host import probe_script
from labproof.probes.host_parse import parse_host
from labproof.simlab.host.jail import Jail, Toolbox, place_for_roots
from labproof.simlab.host.root import build_root
from labproof.simlab.world.inputs import merge_patch, read_yaml
from labproof.simlab.world.lab import World

INPUTS = Path(__file__).with_name("twin.yaml")


def inputs(state: str, patch: dict[str, Any] | None = None) -> dict[str, Any]:
    """Inputs of the twin in a state, `fresh` or `provisioned`, with a mistake's patch on the host."""
    states = read_yaml(INPUTS)
    made = copy.deepcopy(states["provisioned"])
    if state != "provisioned":
        made = merge_patch(made, states[state])
    return merge_patch(made, {"hosts": {"guest": patch or {}}})


def probe(state: str, patch: dict[str, Any] | None = None) -> str:
    """What the host probe prints on the twin."""
    world = World({**inputs(state, patch), "nodes": {}, "clusters": {}, "cards": {}})
    host = world.hosts["guest"]
    with tempfile.TemporaryDirectory(dir=place_for_roots()) as folder:
        root = Path(folder) / "root"
        root.mkdir()
        tree = build_root(host, root, None)
        jail = Jail(root, Toolbox(Path(folder) / "toolbox"), "guest")
        jail.prepare(tree.character_devices)
        status, out, err = asyncio.run(jail.run("sh -s", probe_script()))
    if (status, err) != (0, b""):
        raise RuntimeError(f"the probe ended with {status}: {err.decode()}")
    return out.decode()


def facts(state: str, patch: dict[str, Any] | None = None) -> HostFacts:
    """The twin's facts."""
    return parse_host(probe(state, patch), "guest", time.time())
