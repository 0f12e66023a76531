"""`labproof init`: find the GPUs of a lab and write the lab.yaml that declares them."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labproof.init.endpoints import Doors
    from labproof.init.joins import Lab as Found
    from labproof.init.look import Seen

WRITTEN, REFUSED, NO_GPU, UNREAD = 0, 4, 5, 6


def add_arguments(parser: ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("--ssh", action="append", default=[], metavar="HOST", help="[USER@]HOST[:PORT] or an alias of ~/.ssh/config")
    add("--pve", action="append", default=[], metavar="URL", help="Proxmox VE API, e.g. https://pve5.lan:8006")
    add("--pve-token-id", metavar="ID", help="USER@REALM!NAME ($LABPROOF_PVE_TOKEN_ID, else labproof@pve!suite)")
    add("--pve-token-file", action="append", default=[], metavar="F", help="its secret (else $LABPROOF_PVE_TOKEN)")
    add("--pve-ca", action="append", default=[], metavar="F", help="copy of /etc/pve/pve-root-ca.pem")
    add("--talosconfig", action="append", metavar="F", help="default $TALOSCONFIG, ~/.talos/config; '' for none")
    add("--kubeconfig", action="append", metavar="F", help="default $KUBECONFIG, ~/.kube/config; '' for none")
    add("-o", "--output", default="lab.yaml", metavar="FILE", help="where to write (lab.yaml)")
    add("--force", action="store_true", help="replace the file that is there")


def run_init(given: Namespace) -> int:
    """Look and write. Returns 0 written, 4 refused, 5 no GPU anywhere, 6 nothing could be looked at."""
    from labproof.init.endpoints import Refused, doors

    path = Path(given.output)
    if path.exists() and not given.force:
        return _refuse(f"{path} is there already; --force replaces it, -o FILE writes another")
    if path.is_dir() or not path.parent.is_dir():
        return _refuse(f"{path} cannot be written: it is a folder, or its folder is not there")
    try:
        wanted = doors(
            given.ssh, given.pve, given.talosconfig, given.kubeconfig,
            given.pve_token_id, given.pve_token_file, given.pve_ca,
        )  # fmt: skip
    except Refused as refused:
        return _refuse(str(refused))
    if not wanted.any:
        return _refuse("nothing to look at: give --ssh HOST, --pve URL, --talosconfig F or --kubeconfig F")
    return _look_and_write(wanted, path, given.force)


def _look_and_write(wanted: Doors, path: Path, force: bool) -> int:
    from labproof.init.cards import hosts_seen, name_cards
    from labproof.init.declare import unread_of
    from labproof.init.joins import joined
    from labproof.init.look import look
    from labproof.init.page import shown

    print("labproof init looks for GPUs; it reads only and creates nothing there. It will contact:", flush=True)
    print("\n".join(wanted.announcement()), flush=True)
    seen = look(wanted)
    for line in unread_of(seen):
        print(f"not seen: {shown(line, 400)}")
    if not any(reading.value is not None for _, reading in seen.readings()):
        print("labproof init: nothing answered; nothing is written", file=sys.stderr)
        return UNREAD
    hosts = hosts_seen(seen)
    found = joined(seen, hosts)
    if not found.cards:
        print("labproof init: no GPU anywhere; nothing is written. Looked at:", file=sys.stderr)
        for what, reading in seen.readings():
            print(f"  {shown(what)}: {'read' if reading.value is not None else shown(reading.why)}", file=sys.stderr)
        left = [f"{h.name} {line}" for h in hosts for line in h.left_out]
        for trace in (*left, *found.traces):
            print(f"  seen: {shown(trace)}", file=sys.stderr)
        return NO_GPU
    name_cards(found.cards)
    return _write(found, seen, wanted, path, force)


def _write(found: Found, seen: Seen, wanted: Doors, path: Path, force: bool) -> int:
    from labproof import __version__
    from labproof.init.declare import declared, schema_hint
    from labproof.init.joins import NO_DEVICE
    from labproof.init.page import shown
    from labproof.init.write import Exists, text_of, write
    from labproof.inventory.chains import chains_of
    from labproof.inventory.load import LabError

    block = declared(found, seen)
    head = [
        f"yaml-language-server: $schema={schema_hint(path.parent)}",
        f"Found by labproof {__version__} init, read-only. Behind a value: how it is known. NOT SEEN marks the rest.",
        "It says what is there today: correct what should be otherwise, then it is what pytest holds the lab to.",
        "Asked:",
        *(shown(line, 300) for line in wanted.announcement()),
        "",
    ]
    text = text_of(block, head)
    held = [p.secret for p in wanted.pve if p.secret in text]
    if held:
        return _refuse("a name in the lab is the token's secret itself; nothing is written")
    try:
        lab = write(text, path, force)
    except Exists:
        return _refuse(f"{path} is there already; --force replaces it")
    except OSError as error:
        return _refuse(f"{path} cannot be written: {error.strerror}")
    except LabError as defect:
        lines = "\n  ".join(shown(line, 300) for line in defect.lines)
        print(f"labproof init: a defect of labproof: its own file does not validate; nothing is written\n  {lines}")
        return 1
    for chain in chains_of(lab):
        way = [chain.vm.name if chain.vm else "", chain.node.name if chain.node else ""]
        way = [shown(w) for w in way if w]
        print(
            f"found {shown(chain.id)}: {chain.gpu.device} {' -> '.join(way)} ({', '.join(chain.layers) or 'no layer'})"
        )
    for trace in found.traces:
        print(f"also seen: {shown(trace)}")
    doubts = sum("NOT SEEN" in line or "A GUESS" in line for line in text.splitlines()[len(head) :])
    print(f"{path} written" + (f"; {doubts} line(s) say NOT SEEN or A GUESS: look at them" if doubts else ""))
    for gpu in lab.gpus:
        if gpu.device.endswith(NO_DEVICE):
            print(f"fill in `device` of GPU {gpu.name} first: nobody could see which card it is (lspci -nn tells)")
    if schema_hint(path.parent) == "./lab.schema.json":
        print("for your editor: labproof schema > lab.schema.json")
    layers = {layer for chain in chains_of(lab) for layer in chain.layers}
    readable = [
        m
        for m in ("host", "vm", "talos", "kubernetes")
        if m in layers and not (m == "kubernetes" and not seen.clusters)
    ]
    option = "" if path.name == "lab.yaml" and path.parent in (Path(), Path.cwd()) else f" --lab {path}"
    secret = [p for p in wanted.pve if p.secret_from.startswith("${")]
    if secret:
        print(f"the token stays in the environment: {secret[0].secret_from}")
    print(
        f'next: pytest{option} -m "{" or ".join(readable)}"   # reads only; then pytest{option}, which makes pods too'
    )
    return WRITTEN


def _refuse(why: str) -> int:
    print(f"labproof init: {why}", file=sys.stderr)
    return REFUSED
