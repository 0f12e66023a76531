"""GPU operator operands: the validator and the init containers that wait for it (kubernetes-gpu.md 4)."""

from __future__ import annotations

from labproof.simlab.kube import driver_root
from labproof.simlab.kube.services import Running


def validator(running: Running) -> None:
    """`nvidia-validator` for one component (env COMPONENT): exits 0 when it holds, else looks every 5 s."""
    component = running.world.env.get("COMPONENT", "driver")
    gates = running.kubelet.gates

    def attempt() -> None:
        if component == "driver":
            good = driver_root.is_found(
                running.kubelet.state, running.world.env.get("DRIVER_INSTALL_DIR", "/run/nvidia/driver")
            )
            if not good:
                running.log("running command chroot with args [/run/nvidia/driver nvidia-smi]")
                running.log("failed to validate the driver, retrying after 5 seconds")
        elif component == "toolkit":
            good = "driver-ready" in gates and bool(running.kubelet.state.gpus)
        elif component == "cuda":
            good = "toolkit-ready" in gates
        else:
            numbers = running.kubelet.devices.numbers().get("nvidia.com/gpu", (0, 0))
            good = numbers[0] >= 1
        if not good:
            # the real one looks every 5 s; a quarter of a minute in the long run keeps history short
            running.later(15.0, attempt)
            return
        gates.add(f"{component}-ready")
        running.later(0.2, lambda: running.exit(0, ""))

    attempt()


def wait_for_toolkit(running: Running) -> None:
    """Init container of the operands: waits until the validator wrote toolkit-ready."""

    def attempt() -> None:
        if "toolkit-ready" in running.kubelet.gates:
            running.exit(0, "")
            return
        running.log("waiting for nvidia container stack to be setup")
        running.later(30.0, attempt)

    running.later(0.2, attempt)
