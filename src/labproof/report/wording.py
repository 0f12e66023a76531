"""The words all renderings share: layers, verdicts, how a run ended, versions as a person says them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

#: Layers with their number, from the bottom up: Allure sorts by text, and a reader counts.
LAYERS = {
    "host": "Host",
    "vm": "VM",
    "talos": "Talos",
    "kubernetes": "Kubernetes",
    "workload": "Workload",
    "transcode": "Transcode",
    "metrics": "Metrics",
    "apps": "Apps",
    "gitops": "GitOps",
}
#: Sign of each verdict: colour alone says nothing to many people, and to no printer.
SIGNS = {"pass": "✓", "fail": "✗", "blocked": "–", "unchecked": "?", "excepted": "~"}
#: Worst first.
ORDER = ("fail", "unchecked", "blocked", "excepted", "pass")
#: How a run ended, by exit status: the word, the colour it is drawn in, and what that means.
ENDINGS = {
    0: ("green", "pass", "Everything that was expected holds."),
    1: ("red", "fail", "Something that must hold does not."),
    2: ("interrupted", "unchecked", "The run was interrupted; what it says is not the whole lab."),
    3: ("internal error", "unchecked", "The run ended in an internal error."),
    4: ("usage error", "unchecked", "The run was started wrongly."),
    5: ("nothing ran", "unchecked", "No clause was judged."),
    6: ("incomplete", "unchecked", "Something that was expected could not be judged."),
    7: ("busy", "unchecked", "What could not be judged waits for a GPU that is in use."),
}
#: How a version is spoken; what is missing here is shown by its key.
_SPOKEN = {
    "pve": "PVE",
    "host_kernel": "kernel",
    "qemu_machine": "machine",
    "talos": "Talos",
    "driver": "driver",
    "schematic": "schematic",
    "kubernetes": "Kubernetes",
    "kubelet": "kubelet",
    "containerd": "",
    "plugin": "device plugin",
    "slots": "",
    "image": "image",
    "ffmpeg": "ffmpeg",
    "cuda": "CUDA",
    "exporter": "dcgm-exporter",
    "gpu_driver": "driver",
}


def ending(result: dict[str, Any]) -> tuple[str, str, str]:
    """Word, colour class and meaning of how a run ended."""
    status = int(result["exit_status"])
    if status == 1 and result.get("drift") and not any(v["verdict"] == "fail" for v in result.get("verdicts") or ()):
        return ("red", "fail", "Every clause holds, but the lab is no longer in the state that its baseline pins.")
    return ENDINGS.get(status, (f"exit status {status}", "unchecked", "pytest ended the run."))


def numbered(layer: str) -> str:
    """`3 Talos`."""
    return f"{list(LAYERS).index(layer) + 1} {LAYERS[layer]}" if layer in LAYERS else layer


def spoken(versions: dict[str, str]) -> list[str]:
    """Versions of a layer as a person says them: `PVE 8.4.1`, `Talos 1.11.6`, `4 x nvidia.com/gpu`.

    Left out: what repeats another one (the PVE API's version, a kubelet of the API server's release).
    """
    found = []
    for key, text in versions.items():
        if key in ("pve_api", "extensions") or (
            key == "kubelet" and text == versions.get("kubernetes", "").split("+")[0]
        ):
            continue
        plain = re.sub(r"^v(?=\d)", "", text)
        if key == "driver":
            plain = re.sub(r"-v\d.*$", "", plain)  # Talos appends its own release to a kernel module's version
        if key == "containerd":
            plain = plain.replace("://", " ")
        found.append(f"{_SPOKEN.get(key, key)} {plain}".strip())
    return found


def tally(verdicts: Iterable[dict[str, Any]]) -> str:
    """`1 fail, 24 pass`, worst first; empty for no verdicts."""
    counted = Counter(v["verdict"] for v in verdicts)
    return ", ".join(f"{counted[v]} {v}" for v in ORDER if counted[v])


def told_of(verdicts: list[dict[str, Any]], broken: dict[str, str] | None) -> str:
    """How a layer of one chain stands, in words.

    Args:
        verdicts: those of the layer on the chain.
        broken: the chain's entry of `first_broken`. A clause of a whole node names whatever blocks it on the node's
            first chain, which may be another one; on this chain it is this.
    """
    told = tally(verdicts) or "not selected"
    if worst(verdicts) == "blocked":
        first = next(v for v in verdicts if v["verdict"] == "blocked")
        by = broken["clause"] if broken is not None else first["blocked_by"]
        alone = all(v["verdict"] == "blocked" for v in verdicts)
        return f"{len(verdicts)} blocked by {by}" if alone else f"{told} (by {by})"
    failed = [v for v in verdicts if v["verdict"] == "fail"]
    if failed and all(v["severity"] == "hygiene" for v in failed):
        return f"{told} (hygiene only)"
    return told


def worst(verdicts: Iterable[dict[str, Any]]) -> str:
    """The worst verdict, empty for no verdicts."""
    seen = {v["verdict"] for v in verdicts}
    return next((v for v in ORDER if v in seen), "")


def on_chain(result: dict[str, Any], chain: str, layer: str) -> list[dict[str, Any]]:
    """Verdicts of one layer on one chain."""
    return [v for v in result["verdicts"] if v["layer"] == layer and chain in v["chains"]]


def first_failures(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The verdicts behind `first_broken`, each once, with the chains it broke first on as `broke`."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for first in result["first_broken"]:
        verdict = next(
            (v for v in result["verdicts"] if v["clause"] == first["clause"] and first["chain"] in v["chains"]), None
        )
        if verdict is not None:
            key = (verdict["clause"], verdict["target"])
            found.setdefault(key, {**verdict, "broke": []})["broke"].append(first["chain"])
    return list(found.values())


def duration(seconds: float) -> str:
    """`9.6 s`, `3 min 20 s`."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
