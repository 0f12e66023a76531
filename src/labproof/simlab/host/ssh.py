"""SSH server of a simulated host: exec runs the client's command in the generated root, SFTP shows the same root."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import asyncssh

from labproof.simlab.host import writes
from labproof.simlab.host.jail import Jail, Toolbox
from labproof.simlab.host.root import build_root
from labproof.simlab.host.sysfs import write_uptime
from labproof.simlab.host.tree import Tree

BANNER = "OpenSSH_9.2p1 labproof-sim"  # says in-band that this is no real host


class Keys(Protocol):
    """What the server needs of `labproof.simlab.world.pki.Pki`."""

    def ssh_private(self, name: str) -> str:
        """Private key in OpenSSH form."""
        ...

    def ssh_public(self, name: str) -> str:
        """Public key, one line."""
        ...


class Roots:
    """Generated roots by host, rebuilt when the host has changed; shared by exec and SFTP."""

    def __init__(self, world_ref: Callable[[], Any], folder: Path) -> None:
        """Keep everything below `folder`."""
        self._world_ref = world_ref
        self._folder = folder
        self._toolbox: Toolbox | None = None
        self._current: dict[str, tuple[int, int, Jail, Tree, dict[str, str], Any]] = {}
        self._number = itertools.count()
        self._locks: dict[str, asyncio.Lock] = {}

    def lock(self, name: str) -> asyncio.Lock:
        """One command changes a host's root at a time."""
        return self._locks.setdefault(name, asyncio.Lock())

    def jail(self, name: str) -> tuple[Jail, Tree]:
        """The jail of a host as it is now.

        Raises:
            ConnectionError: the host is not up.
        """
        world = self._world_ref()
        host = world.hosts[name]
        if not host.up:
            raise ConnectionError(f"{name} does not boot")
        if self._toolbox is None:
            self._toolbox = Toolbox(self._folder.parent / "toolbox")  # shared by all hosts
        known = self._current.get(name)
        if known is not None and known[:2] == (id(host), host.revision):
            write_uptime(host, known[3])
            return known[2], known[3]
        root = self._folder / f"{name}-{next(self._number)}"
        root.mkdir(mode=0o755)
        tree = build_root(host, root, world.pve.get(name))
        if known is not None:
            if known[0] == id(host) or known[5] is world:  # same world: its files outside /etc live on
                for kept in ("root", "tmp"):
                    (root / kept).rmdir()
                    (known[2].root / kept).replace(root / kept)
            shutil.rmtree(known[2].root, ignore_errors=True)
        jail = Jail(root, self._toolbox, host.hostname)
        jail.prepare(tree.character_devices)
        self._current[name] = (id(host), host.revision, jail, tree, writes.snapshot(root), world)
        return jail, tree

    def apply_writes(self, name: str) -> list[str]:
        """Hand changed files and requests to the world; returns the requests."""
        known = self._current.get(name)
        if known is None or known[5] is not self._world_ref():
            return []  # what was written to a world that is gone is gone with it
        return writes.apply(self._world_ref(), name, known[2].root, known[4])


class Server(asyncssh.SSHServer):
    """Key authentication for root."""

    def __init__(self, public_key: str) -> None:
        """Accept exactly one key."""
        self._key = asyncssh.import_public_key(public_key)

    def begin_auth(self, username: str) -> bool:
        """Everybody must authenticate."""
        return True

    def public_key_auth_supported(self) -> bool:
        """Keys only."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """The suite's key, for root."""
        return username == "root" and key == self._key


class RunningServer:
    """A listening SSH server on 127.0.0.1."""

    def __init__(self, acceptor: asyncssh.SSHAcceptor) -> None:
        """Wrap the listener."""
        self._acceptor = acceptor
        self.port = int(acceptor.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening; open connections end."""
        self._acceptor.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._acceptor.wait_closed(), 2)


async def serve(
    world_ref: Callable[[], Any], name: str, pki: Keys, port: int = 0, folder: Path | None = None
) -> RunningServer:
    """Serve host `name`; `folder` (private, exists) holds the generated roots.

    The host key is the PKI's `host/<name>`, the accepted client key its `user`.
    """
    if folder is None:
        raise ValueError("the SSH server needs a folder for its generated roots")
    roots = Roots(world_ref, folder)

    async def handle(process: asyncssh.SSHServerProcess[bytes]) -> None:
        with contextlib.suppress(asyncssh.BreakReceived, asyncssh.TerminalSizeChanged, ConnectionError):
            await _serve_process(process, roots, name)

    acceptor = await asyncssh.create_server(
        lambda: Server(pki.ssh_public("user")),
        "127.0.0.1",
        port,
        server_host_keys=[asyncssh.import_private_key(pki.ssh_private(f"host/{name}"))],
        server_version=BANNER,
        process_factory=handle,
        sftp_factory=lambda channel: RootedSftp(channel, roots, name),
        encoding=None,
        line_editor=False,
        allow_scp=False,
        tcp_keepalive=True,
    )
    return RunningServer(acceptor)


async def _serve_process(process: asyncssh.SSHServerProcess[bytes], roots: Roots, name: str) -> None:
    try:
        jail, _ = roots.jail(name)
    except ConnectionError:
        process.channel.get_connection().abort()
        return
    command = process.command or "sh -s"
    async with roots.lock(name):
        roots.apply_writes(name)
        jail, _ = roots.jail(name)
        running = asyncio.create_task(jail.run(command, lambda: process.stdin.read(65536)))
        gone = asyncio.create_task(process.channel.wait_closed())
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not running.done():  # the client went away: nothing may keep the host busy
            running.cancel()
            await asyncio.wait({running}, timeout=5)
            roots.apply_writes(name)
            return
        rc, out, err = running.result()
        requests = roots.apply_writes(name)
    if any(r.split()[0] in ("reboot", "poweroff", "halt", "shutdown", "kexec") for r in requests):
        process.channel.get_connection().abort()  # the connection drops, as on a rebooting host
        return
    process.stdout.write(out)
    process.stderr.write(err)
    await process.stdout.drain()
    process.exit(rc)


class RootedSftp(asyncssh.SFTPServer):
    """SFTP inside the generated root; symlinks are resolved there and never outside."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], roots: Roots, name: str) -> None:
        """Serve the host's root as it is at each request."""
        super().__init__(channel)
        self._roots, self._name = roots, name

    @property
    def _root(self) -> str:
        return str(self._roots.jail(self._name)[0].root)

    def map_path(self, path: bytes) -> bytes:
        """The real path; symlinks on the way are resolved as if the root were `/`, the last part is not followed."""
        root = self._root
        return os.fsencode(root + resolve_inside(root, os.fsdecode(path)))

    def reverse_map_path(self, path: bytes) -> bytes:
        """What the client is told: symlink targets as they are spelled."""
        return path

    def _followed(self, path: bytes) -> bytes:
        return os.fsencode(resolve_inside(self._root, os.fsdecode(path), follow_last=True))

    def _for_writing(self, path: bytes) -> bytes:
        wanted = resolve_inside(self._root, os.fsdecode(path), follow_last=True)
        if not f"{wanted}/".startswith(writes.WRITABLE):
            raise asyncssh.SFTPPermissionDenied("Read-only file system")
        return path

    def realpath(self, path: bytes) -> bytes:
        """The canonical path inside the root."""
        return self._followed(path)

    def readlink(self, path: bytes) -> bytes:
        """The target as it is spelled."""
        return os.readlink(self.map_path(path))  # noqa: PTH115 - bytes in, bytes out

    def stat(self, path: bytes) -> os.stat_result:
        """Follow symlinks inside the root."""
        return os.stat(self.map_path(self._followed(path)))  # noqa: PTH116

    def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """List a folder."""
        return super().scandir(self._followed(path))

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        """Open a file; writing only where the root is writable."""
        if pflags & (asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_APPEND):
            self._for_writing(path)
        return super().open(self._followed(path), pflags, attrs)

    def close(self, file_obj: object) -> None:
        """A closed file is what the world sees next."""
        super().close(file_obj)
        self._roots.apply_writes(self._name)

    def setstat(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        """Change mode or times of a file."""
        super().setstat(self._followed(self._for_writing(path)), attrs)

    def remove(self, path: bytes) -> None:
        """Delete a file."""
        super().remove(self._for_writing(path))
        self._roots.apply_writes(self._name)

    def mkdir(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        """Make a folder."""
        super().mkdir(self._for_writing(path), attrs)

    def rmdir(self, path: bytes) -> None:
        """Remove a folder."""
        super().rmdir(self._for_writing(path))

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Move a file."""
        super().rename(self._for_writing(oldpath), self._for_writing(newpath))
        self._roots.apply_writes(self._name)

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Move a file over another."""
        super().posix_rename(self._for_writing(oldpath), self._for_writing(newpath))
        self._roots.apply_writes(self._name)

    def symlink(self, oldpath: bytes, newpath: bytes) -> None:
        """Make a symlink; where it points is resolved inside the root when it is used."""
        os.symlink(oldpath, self.map_path(self._for_writing(newpath)))  # noqa: PTH211

    def link(self, oldpath: bytes, newpath: bytes) -> None:
        """Hard links could name files outside the root."""
        raise asyncssh.SFTPOpUnsupported("hard links are not supported")


def resolve_inside(root: str, path: str, *, follow_last: bool = False) -> str:
    """Resolve symlinks of a path as a process chrooted to `root` would.

    Raises:
        OSError: ELOOP on too many links.
    """
    pending = [part for part in path.split("/") if part]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop(0)
        if part == ".":
            continue
        if part == "..":
            done = done[:-1]
            continue
        here = "/".join([root, *done, part])
        if (pending or follow_last) and os.path.islink(here):  # noqa: PTH114 - hot path on strings
            links += 1
            if links > 40:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(here)  # noqa: PTH115
            done = [] if target.startswith("/") else done
            pending = [p for p in target.split("/") if p] + pending
            continue
        done.append(part)
    return "/" + "/".join(done)
