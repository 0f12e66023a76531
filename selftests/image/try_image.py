"""Run the Containerfile's steps in clean Debian roots, and the result as a container would: not root, read-only.

    python selftests/image/try_image.py WORK_FOLDER

There is no container engine in it: a root made by mmdebstrap from this machine's own package sources stands for the
base image, chroot and mount namespaces for the engine. What it needs and does not find, it says; it never passes then.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from selftests.image.containerfile import copied, environment, lint, read

ROOT = Path(__file__).parents[2]
#: What `python:X-slim` has that a minimal Debian does not.
PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
FRESH_S = 7 * 86400
CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"  # the image's PATH has no sbin
NEEDED = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "chroot": "coreutils", "tar": "tar"}
#: How the package index is reached from this machine; the steps may need it, the image must not keep it.
NETWORK = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
HOST_FILES = ("etc/pip.conf", "etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt")


def cannot(reason):
    """Say loudly that nothing was tried."""
    sys.exit(f"image: CANNOT RUN: {reason}")


def run(*command, expect=0, **options):
    """Run one command; its output, or the end of this script with it."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    if done.returncode != expect:
        said = f"{done.stdout}\n{done.stderr}"[-4000:]
        sys.exit(f"image: `{shlex.join(map(str, command))[-300:]}`: {done.returncode}, expected {expect}\n{said}")
    return done.stdout + done.stderr


def base(work):
    """Tar of a minimal Debian of this machine's own release, made anew once a week."""
    tar = work / "base.tar"
    if tar.is_file() and time.time() - tar.stat().st_mtime < FRESH_S:
        return tar
    release = dict(line.partition("=")[::2] for line in Path("/etc/os-release").read_text().splitlines())
    sources = [p for p in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))) if
               p.suffix in (".list", ".sources") and p.is_file() and p.read_text().strip()]  # fmt: skip
    part = tar.with_suffix(".part.tar")
    run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "--aptopt=APT::Sandbox::User \"root\"",
        release["VERSION_CODENAME"].strip('"'), part, *sources)  # fmt: skip
    part.rename(tar)
    return tar


def inside(root, command, environment_of, setup=""):
    """argv that runs a command in a root, with /proc and /dev, in a mount namespace of its own."""
    mounts = setup or f'mount -t proc proc "{root}/proc"; mount --rbind /dev "{root}/dev";'
    pairs = [f"{k}={v}" for k, v in environment_of.items()]
    return ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", f'{mounts} exec "$@"', "sh", "env", "-i", *pairs,
            *command]  # fmt: skip


def build(stage, root, others):
    """Run a stage's steps in its root."""
    folder, steps = "/", 0
    known = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    known |= {name: os.environ[name] for name in NETWORK if name in os.environ}
    for word, text in stage.steps:
        if word == "WORKDIR":
            folder = text
            (root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            options, sources, target = copied(text)
            origin = others[options["from"]] if "from" in options else ROOT
            to = root / (target if target.startswith("/") else f"{folder}/{target}").lstrip("/")
            for source in sources:
                _copy(origin / source.lstrip("/"), to / Path(source).name if target.endswith("/") else to)
        elif word == "RUN":
            run(*inside(root, [CHROOT, root, "sh", "-ec", f"cd {folder}; {text}"], known))
        else:
            continue
        steps += 1
        print(f"  {word} {text[:90]}", flush=True)
    return steps


def _copy(source, target):
    if not source.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        target = target / source.name if target.is_dir() else target
        shutil.copy2(source, target)
        return
    skip = shutil.ignore_patterns("__pycache__", ".venv", "*.egg-info")
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=skip)


def main(work):
    """Lint, build both stages, run the result."""
    text = (ROOT / "Containerfile").read_text("utf-8")
    wrong = lint(text, ROOT)
    if wrong:
        sys.exit("image: " + "\n".join(wrong))
    missing = [package for command, package in NEEDED.items() if shutil.which(command) is None]
    if missing:
        cannot(f"apt install {' '.join(missing)}")
    if os.geteuid() != 0:
        cannot("it needs root, for chroot and mounts")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        cannot("mount namespaces are refused here")
    work.mkdir(parents=True, exist_ok=True)
    tar, roots = base(work), {}
    stages = read(text)
    for number, stage in enumerate(stages):
        root = work / f"stage-{number}"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        run("tar", "--extract", "--file", tar, "--directory", root, "--exclude=./dev/*")
        for name in HOST_FILES if stage is not stages[-1] else ():
            if Path("/", name).is_file():
                _copy(Path("/", name), root / name)
        print(f"stage {stage.name or number}", flush=True)
        build(stage, root, roots)
        roots[stage.name] = root
    try_it(stages[-1], root, work)


def try_it(stage, root, work):
    """Run the image: USER, read-only root, a volume, a /tmp of its own."""
    volume = work / "volume"
    shutil.rmtree(volume, ignore_errors=True)
    volume.mkdir()
    user = stage.last("USER")
    run("chown", user, volume)
    (folder,) = json.loads(stage.last("VOLUME"))
    known = {k: v.replace("$PATH", "/usr/local/bin:/usr/bin:/bin") for k, v in environment(stage).items()}
    setup = (
        f'mount --bind "{root}" "{root}"; mount --bind "{volume}" "{root}{folder}"; mount -t tmpfs tmpfs "{root}/tmp";'
        f' mount -t proc proc "{root}/proc"; mount --rbind /dev "{root}/dev"; mount -o remount,bind,ro "{root}";'
    )

    def container(*command, expect=0):
        go = [CHROOT, f"--userspec={user}", root, "sh", "-c", f'cd {stage.last("WORKDIR")}; exec "$@"', "sh"]
        return run(*inside(root, [*go, *command], known, setup), expect=expect)

    entry, command = json.loads(stage.last("ENTRYPOINT")), json.loads(stage.last("CMD"))
    assert container("id", "-u").strip() == user.partition(":")[0]
    assert "Read-only file system" in container("touch", "/opt/labproof/x", expect=1)
    assert '"labproof lab.yaml"' in container(*entry, "schema")
    said = container(*entry, *command, expect=4)
    assert "/etc/labproof/lab.yaml" in said, said
    words = ["-p", "no:cacheprovider", "--pyargs", "labproof.suites", "--sim=t4-jellyfin", "-m", "proxmox"]
    said = container("python", "-m", "pytest", *words, f"--reports={folder}/reports")
    assert "SIMULATED lab moody-good" in said, said
    assert (volume / "reports" / "latest" / "index.html").is_file()
    size = int(run("du", "-sm", root / "opt" / "labproof").split()[0])
    print(f"image: built and run as {user} on a read-only root; /opt/labproof has {size} MiB: ok")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
