"""From what was found to the lines of lab.yaml, each with how it is known and with what could not be seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labproof.clients import plain_yaml
from labproof.facts.reading import Reading, State
from labproof.init.cards import Card, HostSeen, Machine, product_of
from labproof.init.endpoints import home_path
from labproof.init.joins import NO_DEVICE, Lab, NodeSeen, gpu_resource
from labproof.init.look import Seen, asked_node
from labproof.init.page import UNSEEN, Block, Blocks, Raw, as_text
from labproof.init.shape import Shape, shape_of

NO_KUBECONFIG = "cluster"


def declared(lab: Lab, seen: Seen) -> Block:
    """The whole file."""
    top = Block()
    unread = unread_of(seen)
    for line in unread:
        top.note(f"{UNSEEN}: {line}")
    names = {host.name for host in lab.hosts} | {node.name for node in lab.nodes}
    top.put("lab", sorted(names)[0] if len(names) == 1 else _lab_name(lab), "any name you like; reports carry it")
    _section(top, "hosts", [_host(host) for host in lab.hosts])
    for host in lab.hosts:
        for line in host.left_out:
            top.note(f"left out on {host.name}: {line}")
    _section(top, "gpus", [_gpu(card) for card in lab.cards])
    machines = [m for host in lab.hosts for m in host.machines if m.cards]
    _section(top, "vms", [_vm(machine, lab) for machine in machines])
    _section(top, "nodes", [_node(node) for node in lab.nodes])
    _section(top, "clusters", _clusters(lab, top))
    root = [h for h in lab.hosts if h.facts is not None and h.facts.uid.value not in (0, None)]
    if root:
        rights = Block()
        rights.put("host", "reader", f"the script ran as uid {root[0].facts.uid.value if root[0].facts else ''}")
        top.put("rights", rights)
    return top


def unread_of(seen: Seen) -> list[str]:
    """Endpoints that gave no answer, and what the others refused, in one line each."""
    lines = [f"{what}: {r.why}" for what, r in seen.readings() if r.state is not State.VALUE]
    for _, pve in seen.pves:
        if pve.value is None:
            continue
        for part in ("pci", "guests", "mappings", "configs"):
            reading: Reading[object] = getattr(pve.value, part)
            if reading.state is State.FAILED:
                lines.append(f"{reading.source}: {reading.why}")
            elif not reading.value and part in ("pci", "guests"):
                lines.append(f"{reading.source}: an empty list, which is what PVE says to a token without the right")
    for _, cluster in seen.clusters:
        facts = cluster.facts.value
        if facts is None:
            continue
        parts: list[Reading[object]] = [facts.nodes, facts.pods, facts.daemonsets, facts.config_maps]  # type: ignore[list-item]
        parts += [facts.runtime_classes, cluster.slices]  # type: ignore[list-item]
        lines += [f"{r.source}: {r.why}" for r in parts if r.state is State.FAILED]
    return lines


def _lab_name(lab: Lab) -> str:
    node = next((n for n in lab.nodes), None)
    if node is not None and node.kube is not None:
        return node.kube.context
    return lab.hosts[0].name if lab.hosts else "lab"


def _section(top: Block, key: str, items: Sequence[Block]) -> None:
    if items:
        top.note("")
        top.put(key, Blocks(list(items)))


def _host(host: HostSeen) -> Block:
    block = Block()
    facts, pve = host.facts, host.pve
    block.put("name", host.name, "what it calls itself" if facts is not None else "its node name in PVE")
    proxmox = pve is not None or bool(facts and (facts.pve_mounted.value or facts.pve_version.value))
    version = (facts.pve_version.value if facts else None) or (
        pve.version.value.version if pve and pve.version.value else ""
    )
    block.put("kind", "proxmox" if proxmox else "linux", f"PVE {version or 'answers'}" if proxmox else "no PVE on it")
    if host.ssh is not None:
        ssh = Block()
        ssh.put("address", host.ssh.address, f"given; logged in as {host.ssh.as_whom}, the rest is ~/.ssh/config's")
        ssh.put("user", host.ssh.user, "given")
        ssh.put("port", host.ssh.port, "given")
        block.put("ssh", ssh)
    else:
        block.note(f"{UNSEEN}: the host itself; --ssh HOST adds the host's clauses (ssh: {{address: ..., user: ...}})")
    if host.door is not None:
        api = Block()
        api.put("url", host.door.url, "given; it answered")
        api.put("token_id", host.door.token_id, "given, or the id that docs/rights.md makes")
        file = host.door.secret_from.startswith("file:")
        secret: object = host.door.secret_from if file else Raw(host.door.secret_from)
        api.put("token_secret", secret, "read at each run; the secret itself is never in this file")
        api.put("ca", home_path(host.door.ca) if host.door.ca else None, "given")
        block.put("pve", api)
    elif proxmox:
        block.note(f"{UNSEEN}: the PVE API; --pve https://{host.name}:8006 adds the VM's clauses")
    return block


def _gpu(card: Card) -> Block:
    block = Block()
    block.put("name", card.name, product_of(card) or "a name of labproof's; change it everywhere or nowhere")
    block.put("host", card.host, "the slot is in this host")
    if card.device.endswith(NO_DEVICE):
        block.put("device", card.device, f"{UNSEEN}: which card it is; put vendor:device here (lspci -nn): {card.how}")
    else:
        block.put("device", card.device, card.how)
    group = f"IOMMU group {card.group}" if card.group is not None else "no IOMMU group was seen"
    state = f", driver {card.driver}" if card.driver else ""
    block.put("address", card.address, f"{group}{state}" if card.host else "inside the node")
    block.put("functions", list(card.functions), "the other functions of the slot, which go along")
    if card.host and not card.passed:
        block.note(f"no VM gets this card (mapping {card.mapped})" if card.mapped else "no VM gets this card yet")
    return block


def _vm(machine: Machine, lab: Lab) -> Block:
    block, config = Block(), machine.config
    block.put("name", machine.name, machine.how)
    block.put("host", machine.host)
    if machine.vmid is not None:
        block.put("id", machine.vmid, "this VM's id; match: {smbios_uuid: ...} instead survives a rebuild")
    else:
        match = Block()
        match.put("name", machine.name, "no id was seen")
        block.put("match", match)
    block.put("mac", machine.mac, "its first network card")
    block.put("gpus", [c.name for c in machine.cards], "in the order of hostpci" if config else "from its process")
    if config is None:
        block.note(f"{UNSEEN}: its configuration (mapping, machine, bios, cpu, memory): no PVE API was read")
    else:
        block.put("mapping", machine.mapping, "its hostpci names it")
        block.put("machine", "q35" if config.is_q35 else "i440fx", "its configuration")
        block.put("bios", config.bios if config.bios in ("ovmf", "seabios") else None, "its configuration")
        block.put("cpu", config.cpu_type, "its configuration")
        block.put("memory_mib", config.memory_mib, "its configuration")
    if not machine.running:
        block.put("state", "on-demand", "it is not running now; say always where that is wrong")
    if not any(n.machine is machine for n in lab.nodes):
        block.note(f"{UNSEEN}: which node it is (no SMBIOS UUID, MAC or name of a node fits)")
    return block


def _node(node: NodeSeen) -> Block:
    block = Block()
    facts = node.talos.facts.value if node.talos is not None else None
    image = node.facts.os_image if node.facts is not None else ""
    talos = facts is not None or image.startswith("Talos")
    block.put("name", node.name, "Kubernetes' node name" if node.facts else "the host name that Talos tells")
    block.put("cluster", node.kube.context if node.kube else NO_KUBECONFIG)
    if not talos:
        block.put("os", "linux", f"osImage {image}")
    if node.machine is not None:
        block.put("vm", node.machine.name, node.joined)
    else:
        block.put("gpus", [c.name for c in node.cards], f"{UNSEEN}: a host below it; its GPUs are taken as its own")
    if node.facts is not None and any(k.startswith("node-role.kubernetes.io/control-plane") for k in node.facts.labels):
        block.put("control_plane", True, "its role label")
    if node.ssh is not None and node.ssh.ssh is not None and not talos:
        ssh = Block()
        ssh.put("address", node.ssh.ssh.address, "given")
        ssh.put("user", node.ssh.ssh.user, "given")
        ssh.put("port", node.ssh.ssh.port, "given")
        block.put("ssh", ssh)
    if node.talos is not None and facts is not None:
        block.put("talos", _talos(node))
    elif talos:
        said = (
            sorted(k.rpartition("/")[2] for k in node.facts.labels if "extensions.talos.dev/" in k)
            if node.facts
            else []
        )
        block.note(
            f"{UNSEEN}: Talos itself; --talosconfig FILE adds its clauses. By its labels: {image}, {', '.join(said)}"
        )
    return block


def _talos(node: NodeSeen) -> Block:
    block = Block()
    seen = node.talos
    facts = seen.facts.value if seen is not None else None
    if seen is None or facts is None:
        return block
    block.put("talosconfig", home_path(seen.door.path), f"as {seen.door.as_whom}")
    _context(block, seen.door.context)
    block.put("node", asked_node(seen.door, seen.node), "asked through the context's endpoints")
    version = facts.version.value
    block.put("version", version.tag if version else None, "talosctl version")
    schematic = facts.schematic.value
    listed = _official(schematic.text) if schematic is not None else []
    if listed:
        block.put(
            "extensions", listed, f"the schematic {schematic.id[:12] if schematic else ''} on the node, its order"
        )
    elif facts.extensions.value:
        names = ", ".join(e.name for e in facts.extensions.value)
        block.note(f"{UNSEEN}: the schematic's own list; installed are {names} (extensions: in the schematic's order)")
    wanted = [m for m in facts.module_specs.value or () if m.startswith(("nvidia", "i915", "xe", "amdgpu"))]
    if wanted and not {"nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset"} <= set(wanted):
        block.put("modules", wanted, "machine.kernel.modules of the node, GPU drivers only")
    if "os:admin" in facts.role:
        block.note("this talosconfig has os:admin; labproof gets by with os:reader (docs/rights.md)")
    return block


def _context(block: Block, name: str) -> None:
    """The context, unless lab.yaml would read its name as a variable: then the file's own choice has to do."""
    if as_text(name) == name:
        block.put("context", name, "the file's own choice today")
    else:
        block.note("context: the file's own choice; its name cannot be said in lab.yaml")


def _official(text: str) -> list[str]:
    """Extensions of a schematic as the node shows it, without `siderolabs/`."""
    content = plain_yaml.load(text) if text else None
    below = content.get("customization") if isinstance(content, dict) else None
    system = below.get("systemExtensions") if isinstance(below, dict) else None
    names = system.get("officialExtensions") if isinstance(system, dict) else None
    return [str(name).removeprefix("siderolabs/") for name in names] if isinstance(names, list) else []


def _clusters(lab: Lab, top: Block) -> list[Block]:
    blocks = []
    used = {n.kube.context: n for n in lab.nodes if n.kube is not None}
    for name, first in used.items():
        facts = first.cluster.facts.value if first.cluster is not None else None
        if facts is None or first.kube is None:
            continue
        nodes = [n for n in lab.nodes if n.kube is not None and n.kube.context == name]
        shape = shape_of(facts, nodes)
        block = Block()
        block.put("name", name, "the context's name")
        block.put("kubeconfig", home_path(first.kube.path), f"{first.kube.server} as {first.kube.user}")
        _context(block, name)
        block.put("version", (facts.version.value or "").partition("+")[0] or None, "GET /version")
        for held in first.cluster.slices.value or () if first.cluster else ():
            block.note(
                f"ResourceSlice of {held.driver} on {held.node}: {held.devices} device(s); labproof judges no DRA yet"
            )
        _shaped(block, shape, nodes)
        blocks.append(block)
    if any(n.kube is None for n in lab.nodes):
        block = Block()
        block.put("name", NO_KUBECONFIG, f"{UNSEEN}: no kubeconfig was given")
        block.put("kubeconfig", "~/.kube/config", f"{UNSEEN}: put yours here; `pytest -m talos` does without")
        plugin = Block()
        plugin.put("flavour", "nvidia-device-plugin", f"{UNSEEN}")
        block.put("plugin", plugin)
        blocks.append(block)
    return blocks


def _shaped(block: Block, shape: Shape, nodes: Sequence[NodeSeen]) -> None:
    plugin = Block()
    plugin.put("flavour", shape.flavour, shape.flavour_how)
    plugin.put("resource", shape.resource, "allocatable of the GPU nodes")
    plugin.put("namespace", shape.namespace, "where its DaemonSet is")
    plugin.put("version", shape.version, "its image's tag")
    plugin.put("discovery", shape.discovery, "DEVICE_DISCOVERY_STRATEGY of the plugin")
    block.put("plugin", plugin)
    for other in shape.others:
        block.note(f"another device plugin, not declared: {other}")
    block.put("injection", shape.injection[0], shape.injection[1])
    discovery = Block()
    discovery.put("nfd", shape.nfd[0], shape.nfd[1])
    discovery.put("gfd", shape.gfd[0], shape.gfd[1])
    block.put("discovery", discovery)
    sharing = Block()
    sharing.put("strategy", shape.sharing[0], shape.sharing[3])
    if shape.sharing[0] != "none":
        sharing.put("replicas", shape.sharing[1], "slots a card")
        if shape.sharing[2]:
            sharing.put("rename", True, "the resource ends in .shared")
    block.put("sharing", sharing)
    runtime = Block()
    runtime.put("name", shape.runtime_class[0], shape.runtime_class[2])
    runtime.put("expected", shape.runtime_class[1])
    block.put("runtime_class", runtime)
    if shape.exporter:
        metrics = Block()
        metrics.put(
            "scrape", "none", f"{shape.exporter}; say prometheus-operator or victoriametrics, where one selects it"
        )
        block.put("metrics", metrics)
    if shape.labels or shape.taints:
        scheduling = Block()
        scheduling.put("labels", shape.labels, "on every GPU node, made by no discovery, selected by GPU pods")
        taints = Blocks()
        for key, text, effect in shape.taints:
            taint = Block()
            taint.put("key", key, "on every GPU node")
            taint.put("value", text or None)
            taint.put("effect", effect)
            taints.items.append(taint)
        scheduling.put("taints", taints if taints.items else None)
        block.put("scheduling", scheduling)
    for line in shape.holders:
        block.note(f"now: {line}")
    workloads = Blocks()
    for name, slots, how in shape.workloads:
        row = Block()
        row.put("name", name, how)
        row.put("slots", slots)
        workloads.items.append(row)
    block.put(
        "workloads", workloads if workloads.items else None, "who holds slots; each is expected to go on doing so"
    )
    offered = sum(c for n in nodes if n.facts for r, c in n.facts.allocatable.items() if is_slot(r))
    if offered and sum(slots for _, slots, _ in shape.workloads) >= offered:
        block.note("every slot is held: labproof's own pod gets none. To look inside one of yours instead:")
        block.note(f"probe: {{via: exec, pod: {shape.workloads[0][0]}}}")


def is_slot(resource: str) -> bool:
    """Whether a resource is a share of a GPU: Intel's monitoring resources give sight of all and a part of none."""
    return gpu_resource(resource) and not resource.endswith("monitoring")


def schema_hint(folder: Path) -> str:
    """What editors look the schema up by: the clone's own copy where the file lies in one, else a file beside it."""
    for steps in range(4):
        up = "../" * steps
        if (folder / up / "docs" / "lab.schema.json").is_file():
            return f"{up}docs/lab.schema.json"
    return "./lab.schema.json"
