"""What container images hold: environment, entry point, programs and how their ffmpeg was built (images.yaml)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

_CATALOGUE = Path(__file__).with_name("images.yaml")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class FfmpegBuild:
    """How an ffmpeg was compiled.

    Attributes:
        version: as `ffmpeg -version` prints it, e.g. 7.1.2-Jellyfin.
        lavf: libavformat version; lavc: libavcodec version (they end up in the muxed file's tags).
        nvenc_api: NVENC API it was built against, None when built without; nvenc_driver: the driver it then names.
        nvenc_leak_mib: memory its NVENC path loses with each frame.
        nvenc_cpu_ms: CPU time its NVENC path wastes on each 1080p frame.
        substitutes: encoders that a wrapper around it replaces by others.
        software_decoders: codecs whose NVDEC part was left out, so that -hwaccel cuda decodes them in software.
    """

    version: str
    copyright: str
    lavf: str
    lavc: str
    encoders: frozenset[str]
    filters: frozenset[str]
    hwaccels: tuple[str, ...]
    nvenc_api: tuple[int, int] | None = None
    nvenc_driver: str = ""
    nvenc_leak_mib: float = 0.0
    nvenc_cpu_ms: float = 0.0
    substitutes: Mapping[str, str] = field(default_factory=dict)
    software_decoders: frozenset[str] = frozenset()

    @property
    def major(self) -> int:
        """5, 7, 9: log texts and exit codes change with it."""
        return int(self.version.split(".", 1)[0])


@dataclass(frozen=True)
class ImageConfig:
    """An image as its configuration and its files say.

    Attributes:
        env: variables the image sets.
        size_bytes: compressed size, as node.status.images tells it.
        path: directories searched for a program named without a slash.
        ffmpeg: its build, None when the image has none; ffmpeg_folder: where ffmpeg and ffprobe lie.
        programs: absolute paths of other programs.
        shell: has /bin/sh and coreutils.
        own_libraries: driver libraries the image brings along, name -> version; they hide the injected ones.
        cuda: CUDA runtime of its compute sample; capabilities: compute capabilities it has code for.
        va_drivers: libva driver (iHD, i965) -> full | free (without shader encoders) | old | mixed (foreign libraries);
            va_folder: where they lie; va_lacks: profile:entry point pairs that its build leaves out.
        opencl, onevpl: Intel's runtimes are in it.
        library_path: LD_LIBRARY_PATH without which its ffmpeg does not start.
    """

    reference: str
    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    size_bytes: int = 0
    path: tuple[str, ...] = tuple(_DEFAULT_PATH.split(":"))
    ffmpeg: FfmpegBuild | None = None
    ffmpeg_folder: str = "/usr/bin"
    programs: frozenset[str] = frozenset()
    shell: bool = False
    cuda: tuple[int, int] | None = None
    capabilities: tuple[str, ...] = ()
    own_libraries: Mapping[str, str] = field(default_factory=dict)
    va_drivers: Mapping[str, str] = field(default_factory=dict)
    va_folder: str = "/usr/lib/x86_64-linux-gnu/dri"
    opencl: bool = False
    onevpl: bool = False
    library_path: str = ""
    va_lacks: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def _catalogue() -> Any:
    return yaml.safe_load(_CATALOGUE.read_text(encoding="utf-8"))


def build(name: str) -> FfmpegBuild:
    """An ffmpeg build of the catalogue.

    Raises:
        KeyError: no build of that name.
    """
    raw = _catalogue()["builds"][name]
    if "like" in raw:
        raw = {**_catalogue()["builds"][raw["like"]], **raw}
    api = raw.get("nvenc_api")
    major, minor = (int(part) for part in str(api).split(".")) if api else (0, 0)
    return FfmpegBuild(
        version=raw["version"],
        copyright=str(raw["copyright"]),
        lavf=raw["lavf"],
        lavc=raw["lavc"],
        encoders=frozenset(raw["encoders"]),
        filters=frozenset(raw["filters"]),
        hwaccels=tuple(raw["hwaccels"]),
        nvenc_api=(major, minor) if api else None,
        nvenc_driver=str(raw.get("nvenc_driver", "")),
        nvenc_leak_mib=float(raw.get("nvenc_leak_mib", 0)),
        nvenc_cpu_ms=float(raw.get("nvenc_cpu_ms", 0)),
        substitutes=raw.get("substitutes", {}),
        software_decoders=frozenset(raw.get("software_decoders", ())),
    )


def split_reference(reference: str) -> tuple[str, str]:
    """Repository without registry, and tag ("" when only a digest or nothing is given)."""
    name = reference.split("@", 1)[0]
    folder, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    repository = f"{folder}{slash}{last}"
    first, slash, rest = repository.partition("/")
    if slash and ("." in first or ":" in first):
        repository = rest
    return repository.removeprefix("library/"), tag


def image_config(reference: str, image_inputs: Mapping[str, Any] | None = None) -> ImageConfig | None:
    """What an image holds.

    Args:
        reference: as a pod spec names it, e.g. docker.io/jellyfin/jellyfin:10.11.
        image_inputs: `clusters.<name>.images`: reference -> keys that differ from the catalogue (or null: not there).

    Returns:
        None when no registry has it.
    """
    repository, tag = split_reference(reference)
    tags = _catalogue()["images"].get(repository)
    entry: dict[str, Any] = {}
    if tags:
        best = max((t for t in tags if tag.startswith(str(t))), key=len, default=None)
        entry = dict(tags[best]) if best is not None else {}
    patches = image_inputs or {}
    known = {split_reference(name): patch for name, patch in patches.items()}
    if (repository, tag) in known:
        patch = known[repository, tag]
        if patch is None or patch.get("absent"):
            return None
        entry = {**entry, **{k: v for k, v in patch.items() if k != "env"}}
        entry["env"] = {**entry.get("env", {}), **patch.get("env", {})}
        entry["env"] = {k: v for k, v in entry["env"].items() if v is not None}
    if not entry:
        return None
    env = {str(k): str(v) for k, v in entry.get("env", {}).items()}
    cuda = entry.get("cuda")
    parts = [int(p) for p in str(cuda).split(".")] if cuda else []
    return ImageConfig(
        reference=reference,
        env=env,
        entrypoint=tuple(entry.get("entrypoint", ())),
        cmd=tuple(entry.get("cmd", ())),
        size_bytes=int(entry.get("size_bytes", 0)),
        path=tuple(env.get("PATH", _DEFAULT_PATH).split(":")),
        ffmpeg=build(entry["ffmpeg"]) if entry.get("ffmpeg") else None,
        ffmpeg_folder=str(entry.get("ffmpeg_folder", "/usr/bin")),
        programs=frozenset(entry.get("programs", ())),
        shell=bool(entry.get("shell")),
        cuda=(parts[0], parts[1]) if parts else None,
        own_libraries={str(k): str(v) for k, v in (entry.get("own_libraries") or {}).items()},
        capabilities=tuple(str(c) for c in entry.get("cuda_compute_capabilities", ())),
        va_drivers={str(k): str(v) for k, v in (entry.get("va_drivers") or {}).items() if v},
        va_folder=str(entry.get("va_folder", "/usr/lib/x86_64-linux-gnu/dri")),
        opencl=bool(entry.get("opencl")),
        onevpl=bool(entry.get("onevpl")),
        va_lacks=tuple(entry.get("va_lacks") or ()),
        library_path=str(entry.get("library_path", "")),
    )
