"""The small programs of a container image that the suite and people use to look around: ls, dd, id, cat ...

GNU wording (Debian's coreutils), as the images of the catalogue carry it.
"""

from __future__ import annotations

import shlex
import stat
import time
from dataclasses import replace

from labproof.simlab.pod.access import open_error
from labproof.simlab.pod.process import KILLED, NotSimulatedError, ProcessIO, Program
from labproof.simlab.pod.tree import Entry, entries, text_files, write_error
from labproof.simlab.world.states import PodWorld


async def run_sleep(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Sleep until the time is over or the process is killed."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    word = argv[1] if len(argv) > 1 else ""
    left = 10**9 if word in ("infinity", "inf") else float(word.rstrip("smhd") or "nan") * units.get(word[-1:], 1)
    while left > 0 and not io.cancelled:
        step = min(left, 60.0)
        await io.sleep(step)
        left -= step
    return KILLED if io.cancelled else 0


async def run_true(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Exit with 0."""
    return 0


async def run_false(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Exit with 1."""
    return 1


async def run_echo(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Print the arguments."""
    io.write_stdout((" ".join(argv[1:]) + "\n").encode())
    return 0


async def run_cat(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Print files; media records have no bytes to print."""
    status = 0
    files = text_files(pod)
    for path in argv[1:]:
        if path in files:
            io.write_stdout(files[path])
            continue
        if path in pod.files:
            raise NotSimulatedError(f"cat {path}: the bytes of a simulated media file")
        known = entries(pod).get(path)
        reason = "Is a directory" if known and stat.S_ISDIR(known.mode) else "No such file or directory"
        io.write_stderr(f"cat: {path}: {reason}\n".encode())
        status = 1
    return status


async def run_env(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Print the environment, or run a program with more in it."""
    words = argv[1:]
    more: dict[str, str] = {}
    while words and "=" in words[0]:
        name, _, text = words.pop(0).partition("=")
        more[name] = text
    if words:
        return await _run_with(words, more, pod, io)
    io.write_stdout("".join(f"{key}={value}\n" for key, value in pod.env.items()).encode())
    return 0


async def _run_with(words: list[str], more: dict[str, str], pod: PodWorld, io: ProcessIO) -> int:
    from labproof.simlab.pod import programs

    if not programs.exists(words[0], pod):
        io.write_stderr(f"env: '{words[0]}': No such file or directory\n".encode())
        return 127
    own = dict(pod.env)
    # the world is one for all processes of the container: files and devices are shared, the environment is not
    world = replace(pod, env=own | more)
    return await programs.run(words, world, io)


async def run_grep(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """`grep -ls WORD FILE...` and `grep -rs WORD FOLDER`: plain words only."""
    flags = {letter for word in argv[1:] if word.startswith("-") for letter in word[1:]}
    rest = [word for word in argv[1:] if not word.startswith("-")]
    if flags - set("lsrFh") or len(rest) < 2:
        raise NotSimulatedError(" ".join(argv))
    wanted, paths = rest[0].encode(), rest[1:]
    files = text_files(pod)
    if "r" in flags:
        paths = sorted(f for f in files for p in paths if f.startswith(f"{p.rstrip('/')}/"))
    status = 1
    for path in paths:
        for line in files.get(path, b"").splitlines():
            if wanted not in line:
                continue
            status = 0
            if "l" in flags:
                io.write_stdout(f"{path}\n".encode())
                break
            io.write_stdout(f"{path}:".encode() + line + b"\n")
    return status


async def run_printenv(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Print named variables; 1 when one is not set."""
    if len(argv) == 1:
        return await run_env(["env"], pod, io)
    status = 0
    for name in argv[1:]:
        if name in pod.env:
            io.write_stdout(f"{pod.env[name]}\n".encode())
        else:
            status = 1
    return status


async def run_id(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Print user and group ids."""
    gids = sorted(pod.gids) or [0]
    form = argv[1] if len(argv) > 1 else ""
    known = {"-u": str(pod.uid), "-g": str(gids[0]), "-G": " ".join(map(str, gids))}
    if form and form not in known:
        raise NotSimulatedError(f"id {form}")
    name = "(root)" if pod.uid == 0 else ""
    full = f"uid={pod.uid}{name} gid={gids[0]} groups={','.join(map(str, gids))}"
    io.write_stdout(f"{known.get(form, full)}\n".encode())
    return 0


async def run_uname(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Print the kernel release (`-r`) or name."""
    answers = {(): "Linux", ("-r",): pod.node.kernel, ("-m",): "x86_64", ("-s",): "Linux"}
    if tuple(argv[1:]) not in answers:
        raise NotSimulatedError(" ".join(argv))
    io.write_stdout(f"{answers[tuple(argv[1:])]}\n".encode())
    return 0


async def run_ls(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """List paths: -l -n -d -a -1 in any combination."""
    flags = {letter for word in argv[1:] if word.startswith("-") for letter in word[1:]}
    if flags - set("lnda1A"):
        raise NotSimulatedError(" ".join(argv))
    paths = [word for word in argv[1:] if not word.startswith("-")] or ["/"]
    known, status, sections = entries(pod), 0, []
    for path in paths:
        entry = known.get(path.rstrip("/") or "/")
        if entry is None:
            io.write_stderr(f"ls: cannot access '{path}': No such file or directory\n".encode())
            status = 2
            continue
        inside = stat.S_ISDIR(entry.mode) and "d" not in flags
        prefix = f"{path.rstrip('/')}/"
        children = [e for p, e in known.items() if p.startswith(prefix) and p != "/" and "/" not in p[len(prefix) :]]
        listed = sorted(children, key=lambda e: e.path) if inside else [entry]
        lines = [_ls_line(e, path if not inside else e.path.rpartition("/")[2], flags) for e in listed]
        if inside and flags & {"l", "n"}:
            lines.insert(0, "total 0")
        if inside and len(paths) > 1:
            lines.insert(0, f"{path}:")
        sections.append((inside, lines))
    for number, (inside, lines) in enumerate(sections):
        if inside and number:
            io.write_stdout(b"\n")
        io.write_stdout("".join(f"{line}\n" for line in lines).encode())
    return status


def _ls_line(entry: Entry, name: str, flags: set[str]) -> str:
    if not flags & {"l", "n"}:
        return name
    numeric = "n" in flags
    uid = str(entry.uid) if numeric or entry.uid else "root"
    gid = str(entry.gid) if numeric or entry.gid else "root"
    size = f"{entry.device.major}, {entry.device.minor}" if entry.device else str(entry.size)
    when = time.strftime("%b %e %H:%M", time.gmtime())
    arrow = f" -> {entry.target}" if entry.target else ""
    return f"{stat.filemode(entry.mode)} 1 {uid} {gid} {size:>8} {when} {name}{arrow}"


async def run_stat(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """`stat -c FORMAT PATH...` with %a %A %u %g %t %T %n %s %F."""
    if len(argv) < 4 or argv[1] not in ("-c", "-Lc"):
        raise NotSimulatedError(" ".join(argv))
    status = 0
    for path in argv[3:]:
        entry = entries(pod).get(path)
        if entry is None:
            io.write_stderr(f"stat: cannot statx '{path}': No such file or directory\n".encode())
            status = 1
            continue
        kinds = {
            stat.S_IFCHR: "character special file",
            stat.S_IFDIR: "directory",
            stat.S_IFLNK: "symbolic link",
        }
        major, minor = (entry.device.major, entry.device.minor) if entry.device else (0, 0)
        answers = {
            "a": f"{stat.S_IMODE(entry.mode):o}", "A": stat.filemode(entry.mode), "u": entry.uid, "g": entry.gid,
            "t": f"{major:x}", "T": f"{minor:x}", "n": path, "s": entry.size,
            "F": kinds.get(stat.S_IFMT(entry.mode), "regular file"),
        }  # fmt: skip
        text = argv[2]
        for letter, value in answers.items():
            text = text.replace(f"%{letter}", str(value))
        io.write_stdout(f"{text}\n".encode())
    return status


async def run_dd(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Open a device or file for reading and another for writing; copies nothing (`count=0`)."""
    options = dict(word.partition("=")[::2] for word in argv[1:])
    if options.get("count") != "0":
        raise NotSimulatedError("dd without count=0")
    known = entries(pod)
    source, target = options.get("if", "/dev/null"), options.get("of", "/dev/null")
    create = "nocreat" not in options.get("conv", "").split(",")
    for path, writing in ((source, False), (target, True)):
        error = None
        if path in pod.devices:
            error = open_error(pod, path)
        elif path not in known:
            error = "No such file or directory"
            if writing and create:  # dd makes a plain file of the missing name, even under /dev
                error = write_error(pod, path)
                if error is None:
                    pod.files[path] = b""
        elif writing and not known[path].device:
            error = write_error(pod, path)
        if error:
            io.write_stderr(f"dd: failed to open '{path}': {error}\n".encode())
            return 1
    io.write_stderr(b"0+0 records in\n0+0 records out\n0 bytes copied, 4.1128e-05 s, 0.0 kB/s\n")
    return 0


async def run_rm(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Remove files."""
    force = any(word.startswith("-") and "f" in word for word in argv[1:])
    status = 0
    for path in (word for word in argv[1:] if not word.startswith("-")):
        if path in pod.files:
            del pod.files[path]
        elif not force:
            io.write_stderr(f"rm: cannot remove '{path}': No such file or directory\n".encode())
            status = 1
    return status


async def run_touch(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """Create files."""
    status = 0
    for path in argv[1:]:
        error = write_error(pod, path)
        if error:
            io.write_stderr(f"touch: cannot touch '{path}': {error}\n".encode())
            status = 1
        else:
            pod.files.setdefault(path, b"")
    return status


async def run_test(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """`test -e|-f|-c|-d|-r|-w|-x|-s PATH`, `test A = B`."""
    words = [word for word in argv[1:] if word != "]"]
    match words:
        case [("-r" | "-w"), path] if path in pod.devices:
            return 0 if open_error(pod, path) is None else 1
        case ["-w", path]:
            return 0 if write_error(pod, path) is None else 1
        case [flag, path] if flag in ("-e", "-f", "-c", "-d", "-r", "-x", "-s"):
            entry = entries(pod).get(path)
            if entry is None:
                return 1
            kind = {"-f": stat.S_ISREG, "-c": stat.S_ISCHR, "-d": stat.S_ISDIR}.get(flag)
            right = kind(entry.mode) if kind else (entry.size > 0 if flag == "-s" else True)
            return 0 if right else 1
        case [left, "=", right_word]:
            return 0 if left == right_word else 1
    raise NotSimulatedError(" ".join(argv))


async def run_sh(argv: list[str], pod: PodWorld, io: ProcessIO) -> int:
    """`sh -c` with one plain command; anything a shell would have to interpret is outside the model."""
    if len(argv) != 3 or argv[1] != "-c" or any(sign in argv[2] for sign in "|&;<>$`(){}*?!\n"):
        raise NotSimulatedError("a shell script; the suite runs argument lists")
    words = shlex.split(argv[2])
    if words[:1] == ["exit"]:
        return int(words[1]) if len(words) > 1 else 0
    if words[:1] == ["exec"]:
        words = words[1:]
    from labproof.simlab.pod import programs

    if not programs.exists(words[0], pod):
        io.write_stderr(f"sh: 1: {words[0]}: not found\n".encode())
        return 127
    return await programs.run(words, pod, io)


PROGRAMS: dict[str, Program] = {
    "sleep": run_sleep,
    "true": run_true,
    "false": run_false,
    "echo": run_echo,
    "cat": run_cat,
    "env": run_env,
    "printenv": run_printenv,
    "grep": run_grep,
    "id": run_id,
    "uname": run_uname,
    "ls": run_ls,
    "stat": run_stat,
    "dd": run_dd,
    "rm": run_rm,
    "touch": run_touch,
    "test": run_test,
    "[": run_test,
    "sh": run_sh,
    "bash": run_sh,
}
