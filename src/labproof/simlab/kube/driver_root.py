"""Where the GPU operator looks for the driver on a node (kubernetes-gpu.md 4, K27)."""

from __future__ import annotations

from labproof.simlab.world.states import NodeState


def is_found(node: NodeState, install_dir: str) -> bool:
    """Whether libnvidia-ml.so.1 and nvidia-smi lie under driverInstallDir and work.

    On Talos up to 1.12 the libraries lie under /usr/local/glibc, where the search never looks; from 1.13 on they
    lie under /usr/local, which hostPaths.driverInstallDir must name.
    """
    if not node.driver_version or not node.library_version or not node.gpus:
        return False
    if node.os != "talos":
        return True
    root = install_dir.rstrip("/")
    return node.library_root.rstrip("/") in {
        root, f"{root}/lib", f"{root}/lib64", f"{root}/usr/lib64", f"{root}/usr/lib",
    }  # fmt: skip
