"""Running a client's own command with the real sh, seeing only the generated root of a host.

A user, mount, PID, UTS, IPC and network namespace with a chroot: nothing of the machine underneath is visible except
copies of coreutils and its C library, and nothing written outlives the generated root. Where namespaces are refused, a
read-only stand-in rewrites the paths of the script (facts ecosystem 6: a plain folder as root leaks the machine).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from labproof.simlab.host import standins

#: Programs of a minimal Debian that read-only probes and provisioning use; none of them tells the machine underneath.
PROGRAMS = [
    "[",
    "awk",
    "base64",
    "basename",
    "bash",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cksum",
    "cmp",
    "comm",
    "cp",
    "cut",
    "date",
    "dash",
    "dd",
    "df",
    "diff",
    "dirname",
    "du",
    "echo",
    "egrep",
    "env",
    "expand",
    "expr",
    "false",
    "fgrep",
    "find",
    "fold",
    "getconf",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "id",
    "install",
    "join",
    "kill",
    "link",
    "ln",
    "ls",
    "mawk",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mv",
    "nawk",
    "nl",
    "od",
    "paste",
    "printenv",
    "printf",
    "pwd",
    "readlink",
    "realpath",
    "rev",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "sh",
    "sha1sum",
    "sha256sum",
    "sha512sum",
    "shuf",
    "sleep",
    "sort",
    "split",
    "stat",
    "stty",
    "sum",
    "sync",
    "tac",
    "tail",
    "tar",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "truncate",
    "tsort",
    "tty",
    "unexpand",
    "uniq",
    "unlink",
    "wc",
    "whoami",
    "xargs",
    "xxd",
    "yes",
    "zcat",
    "zstd",
]

_SETUP = """set -e
mount --all --fstab "$1/.fstab" >&2
hostname "$3" 2>/dev/null || true
cd /
exec chroot "$2" /usr/bin/env -i HOME=/root USER=root LOGNAME=root SHELL=/bin/sh LANG=C.UTF-8 PATH="$4" \\
    /bin/sh -c 'cd /root; eval "$1"' sh "$5"
"""
PATH = f"{standins.HOME}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WRITABLE = ("etc", "tmp", "root", "run/labproof-sim")
#: An absolute path at the start of a word; what a `case` pattern or a link's text compares with is left alone.
_PATH = re.compile(
    r"(?<![^\s\"'=:(<>|;&`#])(?<![\w}][\"'])(?<!-> )(?<!-> ')/(?!dev/null\b)(?=[A-Za-z])"
    r"(?![\w./*-]*['\"]?\*?(?:\)(?=\s)| \| \*))"
)
_REAL_WRITE = re.compile(
    r"(?<!-)>\s*(?!/dev/null\b|&)\S|"
    r"\b(?:rm|mv|cp|tee|install|dd|truncate|touch|mkdir|ln|chmod|chown)\s+[-/$\"'\w]"
)
_ESCAPE = re.compile(r"\.\./|/\.\.|\bcd\s+/")

ReadBytes = Callable[[], Awaitable[bytes]]


@lru_cache(maxsize=1)
def unshare_command() -> tuple[str, ...] | None:
    """The unshare invocation that works here, None where namespaces are refused."""
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("chroot", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        return None
    inner = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
    for command in ([unshare, "--user", "--map-root-user", *inner], [unshare, *inner]):
        if command[1] != "--user" and os.geteuid() != 0:
            continue
        try:
            probe = subprocess.run([*command, "true"], capture_output=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if probe.returncode == 0:
            return tuple(command)
    return None


def place_for_roots() -> Path:
    """Where generated roots are made: memory if programs may run there (40 times faster), else the temp folder."""
    memory = Path("/dev/shm")  # noqa: S108 - private folders are made below it
    try:
        facts = os.statvfs(memory)
    except OSError:
        return Path(tempfile.gettempdir())
    usable = (
        not facts.f_flag & os.ST_NOEXEC and facts.f_bavail * facts.f_frsize > 48 << 20 and os.access(memory, os.W_OK)
    )
    return memory if usable else Path(tempfile.gettempdir())


class Toolbox:
    """Copies of the allowed programs, made once per process and bound read-only into every root."""

    def __init__(self, folder: Path) -> None:
        """Copy the programs into `folder`/bin, unless that was done before."""
        self.folder = folder
        self.bin = folder / "bin"
        if self.bin.is_dir():
            return
        self.bin.mkdir(parents=True, mode=0o755)
        for name in PROGRAMS:
            found = shutil.which(name, path="/usr/bin:/bin")
            if found is not None:
                shutil.copy(Path(found).resolve(), self.bin / name)
        for name in standins.SCRIPTS:
            (self.bin / name).unlink(missing_ok=True)
            (self.bin / name).symlink_to(f"{standins.HOME}/bin/{name}")

    def libraries(self) -> list[str]:
        """Folders that hold the C library and its loader: multiarch folders, else whole library folders."""
        multiarch = [str(p) for p in Path("/usr/lib").glob("*-linux-*") if (p / "libc.so.6").exists()]
        whole = [p for p in ("/usr/lib64", "/usr/lib32") if Path(p).is_dir()]
        real = [p for p in ("/lib64",) if Path(p).is_dir() and not Path(p).is_symlink()]
        return [*(multiarch or ["/usr/lib"]), *whole, *real]


@dataclass
class Jail:
    """One generated root, ready to run commands."""

    root: Path
    toolbox: Toolbox
    hostname: str

    def prepare(self, character_devices: list[str]) -> None:
        """Make mount points and the list of mounts; once per root."""
        # Writable folders are bound first: the root bound over itself is read-only, what lies below it is not.
        rows = [f"{_escaped(self.root / name)} {_escaped(self.root / name)} none bind 0 0" for name in WRITABLE]
        rows.append(f"{_escaped(self.root)} {_escaped(self.root)} none rbind,ro 0 0")
        binds: list[tuple[str, str, str]] = [(str(self.toolbox.bin), "/usr/bin", "bind,ro")]
        binds += [(source, source, "bind,ro") for source in self.toolbox.libraries()]
        binds += [
            (
                path if path in ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom") else "/dev/null",
                path,
                "bind",
            )
            for path in character_devices
        ]
        for source, target, options in binds:
            inside = self.root / target.lstrip("/")
            if not inside.exists():
                inside.mkdir(parents=True)
            rows.append(f"{_escaped(Path(source))} {_escaped(inside)} none {options} 0 0")
        (self.root / ".fstab").write_text("\n".join(rows) + "\n", encoding="utf-8")

    async def run(self, command: str, stdin: bytes | ReadBytes | None = None) -> tuple[int, bytes, bytes]:
        """Run a command line; returns exit status, stdout, stderr. Cancelled, it kills what it started.

        Args:
            command: what the remote shell gets.
            stdin: bytes, or a function that returns the next piece (empty at the end).
        """
        unshare = unshare_command()
        if unshare is None:
            return await self._run_rewritten(command, stdin)
        argv = [*unshare, "sh", "-c", _SETUP, "sh", str(self.root), str(self.root), self.hostname, PATH, command]
        return await _communicate(argv, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}, stdin, Path("/"))

    async def _run_rewritten(self, command: str, stdin: bytes | ReadBytes | None) -> tuple[int, bytes, bytes]:
        text = ""
        if command.split()[:1] == ["sh"]:
            text = (stdin if isinstance(stdin, bytes) else await _everything(stdin)).decode("utf-8", "replace")
        script = text
        for part in (command, script):
            code = "\n".join(line for line in part.splitlines() if not line.lstrip().startswith("#"))
            if _REAL_WRITE.search(code) or _ESCAPE.search(code):
                return 126, b"", b"sh: simulated host: only the read-only probe runs on a machine without namespaces\n"
        prefix = f"{self.root}/"

        def rooted(code: str) -> str:
            return _PATH.sub(lambda _: prefix, code)

        scripts = self.root / ".rewritten"
        if not scripts.is_dir():
            scripts.mkdir()
            for stand_in in (self.root / standins.HOME.lstrip("/") / "bin").iterdir():
                copy = scripts / stand_in.name
                copy.write_text(f"#!/bin/sh\n{rooted(stand_in.read_text(encoding='utf-8'))[10:]}", encoding="utf-8")
                copy.chmod(0o755)
        environment = {"PATH": f"{scripts}:{self.toolbox.bin}", "HOME": str(self.root / "root"), "LANG": "C.UTF-8"}
        given = rooted(text).encode() if script else stdin
        rc, out, err = await _communicate(["/bin/sh", "-c", rooted(command)], environment, given, self.root / "root")
        return rc, out.replace(prefix.encode(), b"/"), err.replace(prefix.encode(), b"/")


async def _communicate(
    argv: list[str], environment: Mapping[str, str], stdin: bytes | ReadBytes | None, folder: Path
) -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=dict(environment), cwd=folder, start_new_session=True,
    )  # fmt: skip
    try:
        if stdin is None or isinstance(stdin, bytes):
            out, err = await process.communicate(stdin or b"")
        else:
            feeder = asyncio.create_task(_feed(process, stdin))
            try:
                out, err, _ = await asyncio.gather(_rest(process.stdout), _rest(process.stderr), process.wait())
            finally:
                feeder.cancel()
    except asyncio.CancelledError:
        process.kill()
        raise
    return process.returncode if process.returncode is not None else -1, out, err


async def _feed(process: asyncio.subprocess.Process, read: ReadBytes) -> None:
    """Hand the client's input on as it comes: a command that reads none must not wait for its end."""
    if process.stdin is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while piece := await read():
            process.stdin.write(piece)
            await process.stdin.drain()
    process.stdin.close()


async def _rest(stream: asyncio.StreamReader | None) -> bytes:
    return await stream.read() if stream is not None else b""


async def _everything(read: ReadBytes | None) -> bytes:
    pieces = bytearray()
    while read is not None and (piece := await read()):
        pieces += piece
    return bytes(pieces)


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
