"""The Talos API of one node, read: plain values out, deadlines on everything.

All but `read_file` works with the role `os:reader` (facts/talos.md 3.6).
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import yaml

from labproof.clients import plain_yaml, talosconfig
from labproof.clients import talos_messages as messages
from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.talos_channel import TalosChannel
from labproof.clients.wait import ask_again

MACHINE = "/machine.MachineService"
COSI = "/cosi.resource.State"

# `kern:    info: [2025-12-18T12:01:05.483742866Z]: text`
_KMSG = re.compile(r"^(?P<facility>\w+):\s+(?P<priority>\w+): \[(?P<at>[^\]]+)\]: (?P<text>.*)$", re.DOTALL)


@dataclass(frozen=True)
class TalosTarget:
    """One node and the way to it.

    Attributes:
        talosconfig: path of the client configuration.
        context: its context; None: the file's own choice.
        endpoint: `host[:port]` to connect to; None: the context's endpoints in turn.
        node: the node meant; None, or the endpoint's own address: the endpoint itself.
        timeout_s: for one call, connecting included.
        retry_pause_s: before a read is asked again after a transient failure, doubling.
    """

    talosconfig: str
    context: str | None = None
    endpoint: str | None = None
    node: str | None = None
    timeout_s: float = 20.0
    retry_pause_s: float = 0.5


@dataclass(frozen=True)
class KernelRecord:
    """One kernel message. `facility`, `priority` and `at` (RFC 3339) are None when the record has another form."""

    text: str
    facility: str | None
    priority: str | None
    at: str | None
    raw: str


@dataclass(frozen=True)
class DirEntry:
    """One name in a folder.

    Attributes:
        name: relative to the folder listed.
        mode: Go's os.FileMode (not st_mode): 1<<31 folder, 1<<27 link, 1<<26 device, 1<<21 character device.
        size: bytes.
        link: what a symbolic link points to, else empty.
    """

    name: str
    mode: int
    size: int
    is_dir: bool
    link: str
    uid: int
    gid: int

    @property
    def permissions(self) -> int:
        """The nine permission bits."""
        return self.mode & 0o777

    @property
    def is_char_device(self) -> bool:
        """A character device, such as `/dev/nvidia0`."""
        return bool(self.mode & 1 << 26 and self.mode & 1 << 21)

    @property
    def is_link(self) -> bool:
        """A symbolic link."""
        return bool(self.mode & 1 << 27)


@dataclass(frozen=True)
class Resource:
    """A COSI resource: its metadata, and its spec as YAML says it."""

    namespace: str
    type: str
    id: str
    version: str
    phase: str
    owner: str
    created: str | None
    updated: str | None
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: Any
    yaml_spec: str = field(repr=False)


class _Answered(Protocol):
    @property
    def metadata(self) -> messages.Metadata | None: ...


T = TypeVar("T")
A = TypeVar("A", bound=_Answered)


class TalosSession:
    """One node, asked over one connection. Nothing is contacted before the first question.

    Reads are asked again up to three times after a transient failure.
    """

    def __init__(self, target: TalosTarget) -> None:
        """Read the talosconfig; raises TransportFailure when it cannot serve (see `talosconfig.load`)."""
        self.target = target
        self.context = talosconfig.load(target.talosconfig, target.context)
        endpoints = (talosconfig.parse_endpoint(target.endpoint),) if target.endpoint else self.context.endpoints
        if not endpoints:
            raise TransportFailure(
                Kind.UNSUPPORTED,
                f"talosconfig {target.talosconfig} context {self.context.name}",
                "it has no endpoints; run `talosctl config endpoint ADDRESS`",
            )
        # A worker tolerates no `node`, in older versions not even its own (facts/talos.md 3.3).
        node = target.node if [target.node] != [host for host, _ in endpoints] else None
        self._channel = TalosChannel(self.context, endpoints, node)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TalosSession({self._channel.name!r})"

    @property
    def as_whom(self) -> str:
        """Context and roles: `moody-good (os:reader)`."""
        return self.context.as_whom

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles the client certificate carries."""
        return self.context.roles

    @property
    def calls(self) -> int:
        """Calls sent so far, repeated ones included."""
        return self._channel.calls

    def close(self) -> None:
        """Close the connection; a later question opens it anew."""
        self._channel.close()

    def version(self) -> messages.Version:
        """Talos' version (`version.tag`), platform and whether RBAC is on."""
        reply = self._one("Version", messages.VersionResponse)
        return self._only(reply.messages, "Version")

    def hostname(self) -> str:
        """The node's host name."""
        reply = self._one("Hostname", messages.HostnameResponse)
        return self._only(reply.messages, "Hostname").hostname

    def system_stat(self) -> messages.SystemStat:
        """`boot_time` in seconds since the epoch: another value means another boot."""
        reply = self._one("SystemStat", messages.SystemStatResponse)
        return self._only(reply.messages, "SystemStat")

    def service_list(self) -> tuple[messages.ServiceInfo, ...]:
        """Every service with state, health and events, extension services (`ext-...`) included."""
        reply = self._one("ServiceList", messages.ServiceListResponse)
        return self._only(reply.messages, "ServiceList").services

    def dmesg(self, timeout_s: float | None = None) -> tuple[KernelRecord, ...]:
        """The kernel's ring buffer, oldest first. It may have rotated: a missing line proves little."""
        pieces = self._stream(f"{MACHINE}/Dmesg", messages.DmesgRequest(), messages.Data, timeout_s)
        self._check(pieces, "Dmesg")
        return tuple(_kernel_record(piece.content.decode("utf-8", "replace")) for piece in pieces)

    def list_dir(self, path: str, depth: int = 1) -> tuple[DirEntry, ...]:
        """What a folder holds, the folder itself left out.

        Args:
            path: on the node.
            depth: how many levels down.

        Raises:
            TransportFailure: not_found when there is no such path.
        """
        request = messages.ListRequest(root=path, recurse=depth > 1, recursion_depth=depth if depth > 1 else 0)
        found = self._stream(f"{MACHINE}/List", request, messages.FileInfo)
        self._check(found, "List")
        for info in found:
            if info.error and info.relative_name in ("", "."):
                kind = Kind.NOT_FOUND if "no such file" in info.error else Kind.REJECTED
                raise TransportFailure(kind, self._channel.name, f"List {path}: {info.error}", answer=info.error)
        # The first entry is the folder itself, `.` (facts/talos.md 3.4).
        inside = [info for info in found if info.relative_name != "."]
        return tuple(
            DirEntry(info.relative_name, info.mode, info.size, info.is_dir, info.link, info.uid, info.gid)
            for info in inside
        )

    def read_file(self, path: str) -> bytes:
        """A regular file's content. Needs the role `os:admin`."""
        pieces = self._stream(f"{MACHINE}/Read", messages.ReadRequest(path), messages.Data)
        self._check(pieces, "Read")
        return b"".join(piece.content for piece in pieces)

    def cosi_list(self, namespace: str, kind: str) -> tuple[Resource, ...]:
        """Every resource of one type, e.g. `("hardware", "PCIDevices.hardware.talos.dev")`.

        Raises:
            TransportFailure: unsupported when this Talos version has no such type (or namespace).
        """
        request = messages.CosiListRequest(namespace, kind)
        replies = self._stream(f"{COSI}/List", request, messages.CosiReply)
        return tuple(self._resource(reply) for reply in replies)

    def cosi_get(self, namespace: str, kind: str, name: str) -> Resource:
        """One resource by its id.

        Raises:
            TransportFailure: not_found, or unsupported as for `cosi_list`.
        """
        request = messages.CosiGetRequest(namespace, kind, name)
        return self._resource(self._unary(f"{COSI}/Get", request, messages.CosiReply))

    def _one(self, method: str, reply: type[T]) -> T:
        return self._unary(f"{MACHINE}/{method}", messages.Empty(), reply)

    def _unary(self, method: str, request: object, reply: type[T]) -> T:
        limit_s = self.target.timeout_s
        replies = ask_again(
            lambda: self._channel.call(method, request, reply, stream=False, timeout_s=limit_s),
            pause_s=self.target.retry_pause_s,
        )
        if not replies:
            raise TransportFailure(Kind.PROTOCOL, self._channel.name, f"{method} was answered by nothing")
        return replies[0]

    def _stream(self, method: str, request: object, reply: type[T], timeout_s: float | None = None) -> list[T]:
        limit_s = timeout_s or self.target.timeout_s
        return ask_again(
            lambda: self._channel.call(method, request, reply, stream=True, timeout_s=limit_s),
            pause_s=self.target.retry_pause_s,
        )

    def _only(self, replies: tuple[A, ...], method: str) -> A:
        self._check(replies, method)
        if len(replies) != 1:
            text = f"{method} was answered by {len(replies)} nodes instead of one"
            raise TransportFailure(Kind.PROTOCOL, self._channel.name, text)
        return replies[0]

    def _check(self, replies: "tuple[A, ...] | list[A]", method: str) -> None:
        """A node that could not be asked answers OK with the error in the metadata."""
        for reply in replies:
            if reply.metadata is not None and reply.metadata.error:
                said = reply.metadata.error
                raise TransportFailure(Kind.UNAVAILABLE, self._channel.name, f"{method}: {said}", answer=said)

    def _resource(self, reply: messages.CosiReply) -> Resource:
        if reply.resource is None or reply.resource.metadata is None:
            raise TransportFailure(Kind.PROTOCOL, self._channel.name, "a resource came without metadata")
        found = reply.resource.metadata
        text = reply.resource.spec.yaml_spec if reply.resource.spec else ""
        try:
            spec = plain_yaml.load(text)
        except yaml.YAMLError:
            said = f"the spec of {found.type} {found.id} is not YAML"
            raise TransportFailure(Kind.PROTOCOL, self._channel.name, said) from None
        return Resource(
            namespace=found.namespace,
            type=found.type,
            id=found.id,
            version=found.version,
            phase=found.phase,
            owner=found.owner,
            created=_rfc3339(found.created),
            updated=_rfc3339(found.updated),
            labels=dict(found.labels),
            annotations=dict(found.annotations),
            spec=spec,
            yaml_spec=text,
        )


def _kernel_record(raw: str) -> KernelRecord:
    line = raw.rstrip("\n")
    found = _KMSG.match(line)
    if found is None:
        return KernelRecord(line, None, None, None, line)
    return KernelRecord(found["text"], found["facility"], found["priority"], found["at"], line)


def _rfc3339(at: messages.Timestamp | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
