"""The guest's image: built once, then taken from a cache outside the tree by what went into it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from hashlib import sha256
from pathlib import Path

RECIPE = Path(__file__).with_name("build_image.sh")
#: Longest time for a build, seconds: 68 s on a quiet machine, and a mirror may be slow.
BUILD_S = 2400
#: An image older than this is built anew: its kernel is no longer the distribution's.
FRESH_S = 30 * 86400
PROGRAMS = (
    "qemu-system-x86_64", "qemu-img", "mmdebstrap", "sfdisk", "partx", "losetup", "mkfs.ext4", "unshare", "setpriv",
    "ssh", "ssh-keygen",
)  # fmt: skip


class CannotBuild(RuntimeError):
    """Why this machine cannot build or run the guest."""


def missing() -> str:
    """What this machine lacks for the lane, empty when nothing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        packages = "qemu-system-x86 qemu-utils mmdebstrap fdisk e2fsprogs util-linux openssh-client"
        return f"without {', '.join(absent)} (apt-get install {packages})"
    if os.geteuid() != 0:
        return "without root: the image is made on a loop device, and the GPUs' ids are written into QEMU's memory"
    return _loops_refused()


def _loops_refused() -> str:
    """Why no loop device can be had, empty when one can: in many containers the nodes are there and refuse."""
    with tempfile.NamedTemporaryFile() as trial:
        trial.truncate(1 << 20)
        done = subprocess.run(["losetup", "-f", "--show", trial.name], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"without loop devices: {done.stderr.strip()}"
        subprocess.run(["losetup", "-d", done.stdout.strip()], check=False)
    return ""


def cache_folder() -> Path:
    """Where images are kept: LABPROOF_REALHOST_CACHE, else the user's cache."""
    chosen = os.environ.get("LABPROOF_REALHOST_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "labproof" / "realhost"


def image(suite: str) -> Path:
    """The base image of a Debian release; built when the cache has none of this recipe.

    Raises:
        CannotBuild: the machine has no mirror, or the build failed; the message ends with its last words.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    key = sha256(suite.encode() + RECIPE.read_bytes()).hexdigest()[:16]
    made = folder / f"{suite}-{key}.qcow2"
    with (folder / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or _age_s(made) > FRESH_S:
            _build(suite, made)
    return made


def mirror() -> str:
    """The mirror this machine installs its own packages from, as its apt configuration names it.

    Raises:
        CannotBuild: there is none.
    """
    codename = _codename()
    # apt's own placeholders: which repository, which release
    form = ["--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"]
    told = subprocess.run(["apt-get", "indextargets", *form], capture_output=True, text=True, check=True).stdout
    for line in told.splitlines():
        address, release, component = line.split()
        if (release, component) == (codename, "main"):
            return address
    raise CannotBuild(f"apt's configuration names no mirror of {codename}")


def _codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise CannotBuild("/etc/os-release names no release")


def _proxies() -> list[str]:
    """The machine's own proxies, which apt in the new root needs too."""
    told = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
    return [line for line in told.splitlines() if "::Proxy" in line and '""' not in line]


def _build(suite: str, made: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="building-", dir=made.parent))
    # Mounts live in a namespace of the build and end with it, however it ends.
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        done = subprocess.run(
            [*alone, "bash", str(RECIPE), suite, mirror(), str(folder), *_proxies()],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_S,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        if done.returncode != 0:
            raise CannotBuild(f"the image of {suite} could not be built: {done.stdout[-2000:]}")
        for old in made.parent.glob(f"{suite}-*.qcow2"):
            old.unlink()
        (folder / "base.qcow2").rename(made)
    except subprocess.TimeoutExpired as late:
        raise CannotBuild(f"the image of {suite} was not built within {BUILD_S} s: {late.output}") from None
    finally:
        _free_loops(folder / "disk.img")
        shutil.rmtree(folder, ignore_errors=True)


def _free_loops(disk: Path) -> None:
    """Give back the loop device of a build that was cut off."""
    told = subprocess.run(["losetup", "-j", str(disk), "-n", "-O", "NAME"], capture_output=True, text=True).stdout
    for name in told.split():
        subprocess.run(["losetup", "-d", name], check=False)


def _age_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime


if __name__ == "__main__":  # .ci/run asks before it starts the lane
    print(missing())
