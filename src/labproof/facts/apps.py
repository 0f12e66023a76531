"""Facts of the apps branch: how each declared app stands, and what it says of itself when asked.

What an app is configured for and what it did are kept apart: Jellyfin's session copies the configuration, so only the
log of a real transcode tells (facts transcode 6).
"""

from __future__ import annotations

from dataclasses import dataclass

from labproof.facts.ffmpeg import Mapping
from labproof.facts.pod_outcome import PodOutcome
from labproof.facts.reading import NOT_ASKED, Reading


@dataclass(frozen=True)
class AppPod:
    """The app's newest pod.

    Attributes:
        images: of its main containers, as the spec names them.
    """

    namespace: str
    name: str
    node: str
    outcome: PodOutcome
    images: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Jellyfin:
    """A Jellyfin server.

    Attributes:
        acceleration: HardwareAccelerationType; hardware_encoding: EnableHardwareEncoding.
        ffmpeg: the path it uses.
        log_name: name of our session's ffmpeg log; direct: it says no video was encoded.
        command: ffmpeg's command line in that log, cut.
        mappings: `(hevc (native) -> h264 (h264_nvenc))`.
        telling: lines of the log worth keeping.
        exit_code: of ffmpeg, where the log or the server tells.
        ended: whether our session was ended again.
    """

    acceleration: str
    hardware_encoding: bool
    ffmpeg: str = ""
    log_name: str = ""
    direct: bool = False
    command: str = ""
    mappings: tuple[Mapping, ...] = ()
    telling: str = ""
    played: str = ""
    ended: bool = True


@dataclass(frozen=True)
class Camera:
    """A Frigate camera: what decodes it, and whether frames arrive."""

    name: str
    hwaccel: str
    fps: float


@dataclass(frozen=True)
class Detector:
    """A Frigate detector."""

    name: str
    type: str
    inference_ms: float


@dataclass(frozen=True)
class GpuUsage:
    """A row of Frigate's `gpu_usages`; empty texts are a reading that failed (and is not tried again for an hour)."""

    name: str
    gpu: str
    memory: str


@dataclass(frozen=True)
class Frigate:
    """A Frigate server."""

    version: str
    gpus: tuple[GpuUsage, ...]
    detectors: tuple[Detector, ...]
    cameras: tuple[Camera, ...]
    shm_total_mb: float | None = None
    shm_needed_mb: float | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model that Ollama has loaded; bytes."""

    name: str
    size: int
    size_vram: int

    @property
    def on_gpu(self) -> float:
        """Share of the model in card memory, 0 to 1."""
        return self.size_vram / self.size if self.size else 0.0


@dataclass(frozen=True)
class Ollama:
    """An Ollama server.

    Attributes:
        there: models it has on disk.
        loaded: models loaded when we looked; with `loaded_by_us` the declared one, which we had loaded for a moment.
        tokens_per_s: of our own short answer, where one was asked for.
        left_alone: why the declared model was not loaded by us (others are loaded: that would have put them out).
    """

    there: tuple[str, ...]
    loaded: tuple[LoadedModel, ...]
    loaded_by_us: bool = False
    unloaded_again: bool = True
    tokens_per_s: float | None = None
    left_alone: str = ""


@dataclass(frozen=True)
class MediaSession:
    """A session of Plex or Emby that transcodes video now."""

    title: str
    decoder: str
    encoder: str
    hardware: bool


@dataclass(frozen=True)
class ModelServer:
    """An OpenAI-style server: the models it lists, and the rate of our own short completion."""

    names: tuple[str, ...]
    tokens_per_s: float | None = None


@dataclass(frozen=True)
class TorchDevice:
    """A device that ComfyUI works on; `type` is cuda, cpu, xpu ..."""

    name: str
    type: str


@dataclass(frozen=True)
class AppFacts:
    """One declared app.

    Attributes:
        replicas: what its workload asks for; absent when there is no such workload (a bare pod may be there).
        pod: absent when it has none.
        where: how it was asked.
        log: of Immich's machine learning only: the lines that name its execution providers.
        answer: whether it answered at all; kind `auth` or `forbidden` when it refused our key.
    """

    name: str
    kind: str
    replicas: Reading[int] = NOT_ASKED
    pod: Reading[AppPod] = NOT_ASKED
    where: str = ""
    answer: Reading[str] = NOT_ASKED
    jellyfin: Reading[Jellyfin] = NOT_ASKED
    frigate: Reading[Frigate] = NOT_ASKED
    ollama: Reading[Ollama] = NOT_ASKED
    sessions: Reading[tuple[MediaSession, ...]] = NOT_ASKED
    models: Reading[ModelServer] = NOT_ASKED
    devices: Reading[tuple[TorchDevice, ...]] = NOT_ASKED
    log: Reading[str] = NOT_ASKED


@dataclass(frozen=True)
class AppsFacts:
    """All declared apps of one cluster."""

    name: str
    apps: tuple[AppFacts, ...]

    def of(self, name: str) -> AppFacts | None:
        """The app of that name."""
        return next((app for app in self.apps if app.name == name), None)
