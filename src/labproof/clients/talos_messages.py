"""The few messages of the Talos API that labproof reads, with Talos' own field numbers.

Source: Talos `api/machine/machine.proto` and `api/common/common.proto`, COSI `resource.proto` and `state.proto`
(facts/talos.md 3.4 and 3.5). Fields nobody reads are not declared; the codec skips them.
"""
# ruff: noqa: RUF009  # each of these calls is dataclasses.field() with a number

from dataclasses import dataclass

from labproof.clients.wire import flag, integer, many, octets, one, string_map, text, texts, unsigned


@dataclass(frozen=True)
class Empty:
    """google.protobuf.Empty."""


@dataclass(frozen=True)
class Timestamp:
    """google.protobuf.Timestamp."""

    seconds: int = integer(1)
    nanos: int = integer(2)


@dataclass(frozen=True)
class Metadata:
    """common.Metadata: which node a reply is from, and its error where the node could not be asked."""

    hostname: str = text(1)
    error: str = text(2)


@dataclass(frozen=True)
class Data:
    """common.Data: a piece of a stream."""

    metadata: Metadata | None = one(1, Metadata)
    content: bytes = octets(2)


@dataclass(frozen=True)
class VersionInfo:
    """machine.VersionInfo."""

    tag: str = text(1)
    sha: str = text(2)
    built: str = text(3)
    go_version: str = text(4)
    os: str = text(5)
    arch: str = text(6)


@dataclass(frozen=True)
class PlatformInfo:
    """machine.PlatformInfo."""

    name: str = text(1)
    mode: str = text(2)


@dataclass(frozen=True)
class FeaturesInfo:
    """machine.FeaturesInfo."""

    rbac: bool = flag(1)


@dataclass(frozen=True)
class Version:
    """machine.Version."""

    metadata: Metadata | None = one(1, Metadata)
    version: VersionInfo | None = one(2, VersionInfo)
    platform: PlatformInfo | None = one(3, PlatformInfo)
    features: FeaturesInfo | None = one(4, FeaturesInfo)


@dataclass(frozen=True)
class VersionResponse:
    """machine.VersionResponse."""

    messages: tuple[Version, ...] = many(1, Version)


@dataclass(frozen=True)
class SystemStat:
    """machine.SystemStat: `boot_time` in seconds since the epoch."""

    metadata: Metadata | None = one(1, Metadata)
    boot_time: int = unsigned(2)


@dataclass(frozen=True)
class SystemStatResponse:
    """machine.SystemStatResponse."""

    messages: tuple[SystemStat, ...] = many(1, SystemStat)


@dataclass(frozen=True)
class Hostname:
    """machine.Hostname."""

    metadata: Metadata | None = one(1, Metadata)
    hostname: str = text(2)


@dataclass(frozen=True)
class HostnameResponse:
    """machine.HostnameResponse."""

    messages: tuple[Hostname, ...] = many(1, Hostname)


@dataclass(frozen=True)
class DmesgRequest:
    """machine.DmesgRequest."""

    follow: bool = flag(1)
    tail: bool = flag(2)


@dataclass(frozen=True)
class ReadRequest:
    """machine.ReadRequest."""

    path: str = text(1)


@dataclass(frozen=True)
class ListRequest:
    """machine.ListRequest."""

    root: str = text(1)
    recurse: bool = flag(2)
    recursion_depth: int = integer(3)


@dataclass(frozen=True)
class FileInfo:
    """machine.FileInfo: `mode` is Go's os.FileMode, not st_mode."""

    metadata: Metadata | None = one(1, Metadata)
    name: str = text(2)
    size: int = integer(3)
    mode: int = unsigned(4)
    modified: int = integer(5)
    is_dir: bool = flag(6)
    error: str = text(7)
    link: str = text(8)
    relative_name: str = text(9)
    uid: int = unsigned(10)
    gid: int = unsigned(11)


@dataclass(frozen=True)
class ServiceEvent:
    """machine.ServiceEvent."""

    msg: str = text(1)
    state: str = text(2)
    ts: Timestamp | None = one(3, Timestamp)


@dataclass(frozen=True)
class ServiceEvents:
    """machine.ServiceEvents."""

    events: tuple[ServiceEvent, ...] = many(1, ServiceEvent)


@dataclass(frozen=True)
class ServiceHealth:
    """machine.ServiceHealth."""

    unknown: bool = flag(1)
    healthy: bool = flag(2)
    last_message: str = text(3)
    last_change: Timestamp | None = one(4, Timestamp)


@dataclass(frozen=True)
class ServiceInfo:
    """machine.ServiceInfo."""

    id: str = text(1)
    state: str = text(2)
    events: ServiceEvents | None = one(3, ServiceEvents)
    health: ServiceHealth | None = one(4, ServiceHealth)


@dataclass(frozen=True)
class ServiceList:
    """machine.ServiceList."""

    metadata: Metadata | None = one(1, Metadata)
    services: tuple[ServiceInfo, ...] = many(2, ServiceInfo)


@dataclass(frozen=True)
class ServiceListResponse:
    """machine.ServiceListResponse."""

    messages: tuple[ServiceList, ...] = many(1, ServiceList)


@dataclass(frozen=True)
class CosiMetadata:
    """cosi.resource.Metadata."""

    namespace: str = text(1)
    type: str = text(2)
    id: str = text(3)
    version: str = text(4)
    owner: str = text(5)
    phase: str = text(6)
    created: Timestamp | None = one(7, Timestamp)
    updated: Timestamp | None = one(8, Timestamp)
    finalizers: tuple[str, ...] = texts(9)
    labels: dict[str, str] = string_map(10)
    annotations: dict[str, str] = string_map(11)


@dataclass(frozen=True)
class CosiSpec:
    """cosi.resource.Spec: the server fills the YAML as well as the protobuf."""

    yaml_spec: str = text(2)


@dataclass(frozen=True)
class CosiResource:
    """cosi.resource.Resource."""

    metadata: CosiMetadata | None = one(1, CosiMetadata)
    spec: CosiSpec | None = one(2, CosiSpec)


@dataclass(frozen=True)
class CosiGetRequest:
    """cosi.resource.GetRequest."""

    namespace: str = text(1)
    type: str = text(2)
    id: str = text(3)


@dataclass(frozen=True)
class CosiListRequest:
    """cosi.resource.ListRequest."""

    namespace: str = text(1)
    type: str = text(2)


@dataclass(frozen=True)
class CosiReply:
    """cosi.resource.GetResponse, and one piece of the List stream: the same shape."""

    resource: CosiResource | None = one(1, CosiResource)
