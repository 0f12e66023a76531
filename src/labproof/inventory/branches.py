"""What grows out of a cluster beside its GPU stack: apps, metrics, GitOps. What is not declared has no clauses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints

from labproof.inventory.declared import Declared, Name

NamespacedName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[a-z0-9.-]+$")]


class Metrics(Declared):
    """GPU metrics by dcgm-exporter; `metrics: {}` says that there are some."""

    scrape: Literal["none", "prometheus-operator", "victoriametrics"] = "none"  # whose objects select the exporter
    alerts: bool = False  # the owner has GPU alert rules (PrometheusRule, VMRule)
    pods: bool = False  # every pod on a shared card is to be found in the series


class Expected(Declared):
    """What an app is expected to do with the card; what is not given is not judged."""

    acceleration: str | None = None  # Jellyfin: nvenc, vaapi, qsv ...
    item: str | None = None  # Jellyfin: id of a video to transcode a few seconds of
    model: str | None = None  # Ollama, OpenAI-style server: the model that must be served
    fully_on_gpu: bool = True  # Ollama: nothing of the model in main memory
    hwaccel: str | None = None  # Frigate: preset-nvidia, preset-vaapi ...
    detector: str | None = None  # Frigate: type of the detector that uses the card
    min_tokens_per_s: Annotated[float, Field(gt=0)] | None = None  # Ollama, OpenAI-style server: of one short answer


class App(Declared):
    """One of the owner's programs that uses the card."""

    name: Name
    kind: Literal["jellyfin", "plex", "emby", "frigate", "immich-ml", "ollama", "openai", "comfyui"]
    workload: NamespacedName  # namespace/name of its Deployment, StatefulSet or pod
    node: str | None = None  # where it uses the card, in a cluster with several GPU nodes
    url: str | None = None  # asked there; default: through the API server, at the pod that runs
    port: int | None = Field(None, ge=1, le=65535)
    api_key: SecretStr | None = None
    state: Literal["always", "on-demand", "parked"] = "always"
    expect: Expected = Expected()


class GitOps(Declared):
    """Flux objects that bring the GPU stack; sources are found by the references of these."""

    releases: tuple[NamespacedName, ...] = ()  # HelmRelease
    kustomizations: tuple[NamespacedName, ...] = ()
