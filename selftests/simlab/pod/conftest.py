"""A container on the T4 node, built by hand, so that the programs' model is tested without the layers below."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from labproof.simlab.kube import runtime
from labproof.simlab.pod import programs
from labproof.simlab.pod.access import used_mib
from labproof.simlab.pod.injection import limited
from labproof.simlab.world.inputs import load_inputs
from labproof.simlab.world.states import Card, DeviceNode, GuestPci, NodeGpu, NodeState, PodWorld

DRIVER = "570.172.08"
JELLYFIN = "docker.io/jellyfin/jellyfin:10.11"
NODES = {
    path: DeviceNode(path, 0o666, major=major, minor=minor)
    for path, major, minor in (
        ("/dev/nvidiactl", 195, 255),
        ("/dev/nvidia0", 195, 0),
        ("/dev/nvidia-uvm", 234, 0),
        ("/dev/nvidia-uvm-tools", 234, 1),
    )
}


@dataclass
class Streams:
    """Collected output; time passes at once, `at` runs a callback after some model seconds."""

    stdout: bytes = b""
    stderr: bytes = b""
    clock: float = 0.0
    cancelled: bool = False
    samples: list[Any] = field(default_factory=list)
    watch: Any = None
    kill_at: float | None = None

    def write_stdout(self, data: bytes) -> None:
        self.stdout += data

    def write_stderr(self, data: bytes) -> None:
        self.stderr += data

    async def sleep(self, seconds: float) -> None:
        self.clock += seconds
        if self.watch:
            self.samples.append(self.watch())
        if self.kill_at is not None and self.clock >= self.kill_at:
            self.cancelled = True
        await asyncio.sleep(0)


@dataclass
class Ran:
    """A finished process."""

    status: int
    out: str
    err: str
    seconds: float
    samples: list[Any]


class Box:
    """A container on the T4 node and what can be run in it: injected by the node's runtime, limited by its toolkit."""

    def __init__(
        self, card: str = "t4", image: str = JELLYFIN, faults: tuple[str, ...] = (), env: dict[str, str] | None = None,
        **node: Any,
    ) -> None:  # fmt: skip
        tree = load_inputs("t4-jellyfin", None, faults)
        inputs = tree["cards"][card]
        cluster = tree["clusters"]["moody"]
        self.card = Card(card, inputs, "0000:3b:00.0")
        pci = GuestPci(
            "0000:01:00.0",
            "0000:3b:00.0",
            inputs["vendor_device"],
            inputs["subsystem"],
            inputs["pci_class"],
            self.card,
        )
        gpu = NodeGpu(self.card, "0000:01:00.0", inputs["uuid"], 0)
        given: dict[str, Any] = {"driver_version": DRIVER, "library_version": DRIVER} | node
        state = NodeState(
            name="moody-good", address="192.168.8.123", up=True, os="talos", os_version="v1.11.6",
            kernel="6.12.62-talos", boot_id="b", booted_at=0.0, stage="running", driver_open=False,
            library_root="/usr/local/glibc/usr/lib", modules=frozenset({"nvidia", "nvidia_uvm"}), gpus=(gpu,),
            device_nodes=tuple(NODES.values()), runtime_handlers=("runc", "nvidia"), default_runtime="runc",
            pci=(pci,), bpf_jit_harden=1, toolkit="1.17.8", **given,
        )  # fmt: skip
        images = cluster.get("images") or {}
        config = programs.image_config(image, images)
        assert config is not None
        whole = {**config.env, "NVIDIA_VISIBLE_DEVICES": inputs["uuid"], **(env or {})}
        injected = runtime.legacy(state, whole)
        self.error = injected.error
        world = PodWorld(
            owner="labproof/probe", image=image, env=whole, node=state,
            uid=int((images.get(image) or {}).get("uid", 0)),
            devices=injected.devices, allowed=frozenset(injected.devices), libraries=frozenset(injected.libraries),
            programs=frozenset(injected.programs), gpus=injected.gpus, image_inputs=images,
        )  # fmt: skip
        self.pod = limited(world, cluster["nodes"]["moody-good"].get("toolkit"))

    _streams = Streams

    def others(self) -> int:
        """Memory that neighbours hold on the card now, MiB."""
        return used_mib(self.card) - sum(self.card.vram.values())

    def without_gpu(self) -> Box:
        """The same container as plain runc starts it."""
        self.pod = replace(
            self.pod, devices={}, allowed=frozenset(), libraries=frozenset(), programs=frozenset(), gpus=()
        )
        return self

    def change(self, **fields: Any) -> Box:
        """Change fields of the container."""
        self.pod = replace(self.pod, **fields)
        return self

    def node(self, **fields: Any) -> Box:
        """Change fields of the node."""
        return self.change(node=replace(self.pod.node, **fields))

    def run(self, *argv: str, watch: Any = None, kill_at: float | None = None) -> Ran:
        """Run a program to its end."""
        io = Streams(watch=watch, kill_at=kill_at)
        status = asyncio.run(programs.run(list(argv), self.pod, io))
        return Ran(status, io.stdout.decode(), io.stderr.decode(), io.clock, io.samples)

    def ffmpeg(self, *words: str, watch: Any = None, kill_at: float | None = None) -> Ran:
        """Run the image's ffmpeg with the options every measurement has."""
        config = programs.image_config(self.pod.image, self.pod.image_inputs)
        common = ["-hide_banner", "-nostdin", "-v", "verbose", "-benchmark", "-nostats", "-progress", "pipe:1", "-y"]
        assert config is not None
        return self.run(f"{config.ffmpeg_folder}/ffmpeg", *common, *words, watch=watch, kill_at=kill_at)

    def psnr(self, path: str, source: str) -> Ran:
        """Compare a file with its source, timestamps normalised."""
        graph = "[0:v]settb=1/30,setpts=N[a];[1:v]settb=1/30,setpts=N[b];[a][b]psnr=shortest=1"
        return self.ffmpeg("-i", path, "-f", "lavfi", "-i", source, "-lavfi", graph, "-f", "null", "-")


@pytest.fixture
def box() -> Box:
    """A healthy container with one share of the T4."""
    return Box()


@pytest.fixture
def make_box() -> type[Box]:
    """Containers on other cards, images and nodes."""
    return Box
