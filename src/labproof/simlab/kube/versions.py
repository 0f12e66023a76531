"""What changed between Kubernetes releases, as far as the simulator's answers show it.

1.36 is bound by the recordings in selftests/captures/kubernetes; older forms cite facts kubernetes-gpu.md and
real-kubernetes.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """A Kubernetes release, e.g. `v1.34.3`."""

    text: str

    @property
    def minor(self) -> int:
        """34 for v1.34.3."""
        match = re.match(r"v?1\.(\d+)", self.text)
        return int(match.group(1)) if match else 34

    @property
    def git_version(self) -> str:
        """What /version answers: a simulated endpoint says so in-band."""
        return f"{self.text}+sim"

    def taint_reason(self, key: str, value: str) -> str:
        """The scheduler's words for a taint that is not tolerated: 1.36 does not name the key any more."""
        if self.minor >= 36:
            return "node(s) had untolerated taint(s)"
        return f"node(s) had untolerated taint {{{key}: {value}}}"

    def pulled(self, image: str) -> str:
        """Event text when the image is already there (the second half came with credential verification)."""
        tail = " and can be accessed by the pod" if self.minor >= 36 else ""
        return f'Container image "{image}" already present on machine{tail}'

    def created(self, container: str) -> str:
        """Event text of a created container."""
        return "Container created" if self.minor >= 36 else f"Created container: {container}"

    def started(self, container: str) -> str:
        """Event text of a started container."""
        return "Container started" if self.minor >= 36 else f"Started container {container}"

    @property
    def shows_back_off(self) -> bool:
        """Whether waiting CrashLoopBackOff is shown during the whole back-off (not any more in 1.36)."""
        return self.minor < 36

    @property
    def pod_level_resources(self) -> bool:
        """Whether pod status carries resources and allocatedResources of its own."""
        return self.minor >= 35

    @property
    def device_health(self) -> bool:
        """Whether container status carries allocatedResourcesStatus (gate ResourceHealthStatus)."""
        return self.minor >= 36

    @property
    def declared_features(self) -> tuple[str, ...]:
        """node.status.declaredFeatures, as recorded on 1.36."""
        if self.minor < 36:
            return ()
        return (
            "ExtendWebSocketsToKubelet",
            "InPlacePodLevelResourcesVerticalScaling",
            "InPlacePodVerticalScalingInitContainers",
            "RestartAllContainersOnContainerExits",
        )
