"""`--publish FOLDER`: page, summary and pictures into a git checkout, as one commit of those files; never a push."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from labproof.facts.atomic import write_bytes
from labproof.report.wording import ending

#: What is published; run.json and facts stay at home.
FILES = ("index.html", "summary.md", "badge.svg", "sparkline.svg")
#: Published where the run has it, taken away where an earlier run left it: a comparison belongs to one run.
SOMETIMES = ("compare.md",)
#: Seconds a git command may take: a commit hook or a passphrase prompt must not hold a nightly up for ever.
PATIENCE_S = 60.0


class NotPublished(Exception):
    """The checkout could not take the files; `str()` says why and what to do. The run itself stands."""


def checkout(folder: Path) -> Path:
    """The folder to publish into.

    Raises:
        NotPublished: it is not there, not inside a git work tree, or git is not installed.
    """
    if not folder.is_dir():
        raise NotPublished(
            f"--publish {folder}: no such folder; clone your wiki there, or make the folder in its clone"
        )
    inside = _git(folder, "rev-parse", "--is-inside-work-tree", may_fail=True)
    if inside.strip() != "true":
        raise NotPublished(
            f"--publish {folder}: this is no git work tree; give a folder of a clone, or run `git init` in it"
        )
    return folder


def publish(run: Path, folder: Path, result: dict[str, Any]) -> str:
    """Copy a run's files into the checkout and commit them, and nothing else that may be staged or changed there.

    Args:
        run: the run's folder.
        folder: a folder of a git work tree.
        result: content of run.json, for the commit message.

    Returns:
        One line on what was done.

    Raises:
        NotPublished: git refused (no identity, a hook, an ignored file); its own words are in the text.
    """
    checkout(folder)
    names = [*FILES, *(name for name in SOMETIMES if (run / name).is_file())]
    for name in names:
        write_bytes(folder / name, (run / name).read_bytes())
    for name in (n for n in SOMETIMES if n not in names and (folder / n).is_file()):
        if _git(folder, "ls-files", "--", name).strip():
            (folder / name).unlink()
            names.append(name)
    if not _git(folder, "status", "--porcelain", "--ignored", "--", *names).strip():
        return f"published: {folder} has this run already"
    _git(folder, "add", "--", *names)  # a commit of paths alone passes over files git does not know yet
    _git(folder, "commit", "--quiet", "--only", "--message", _message(result), "--", *names)
    commit = _git(folder, "rev-parse", "--short", "HEAD").strip()
    return f"published: {folder} (commit {commit}, not pushed)"


def _message(result: dict[str, Any]) -> str:
    word = ending(result)[0]
    simulated = "simulated lab " if result["simulated"] else ""
    causes = ", ".join(dict.fromkeys(b["cause"] for b in result["first_broken"]))
    return f"labproof: {simulated}{result['lab']} is {word}{f' ({causes})' if causes else ''}, {result['started'][:16]}"


def _git(folder: Path, *words: str, may_fail: bool = False) -> str:
    # a git hook that runs pytest leaves GIT_DIR and the index of its own repository in the environment
    clean = {
        k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
    }
    try:
        ran = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL,
            env={**clean, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError:
        raise NotPublished("--publish: git is not installed on this machine") from None
    except subprocess.TimeoutExpired:
        raise NotPublished(
            f"--publish: `git {words[0]}` did not end in {PATIENCE_S:.0f} s (a hook or a prompt?)"
        ) from None
    if ran.returncode != 0 and not may_fail:
        said = " ".join((ran.stderr or ran.stdout).split())[:300]
        raise NotPublished(f"--publish {folder}: `git {words[0]}` failed: {said}")
    return ran.stdout
