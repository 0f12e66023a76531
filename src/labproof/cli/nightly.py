"""`labproof nightly`: one unattended run: a real lab, compared with the last, kept, pruned; one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

#: EX_TEMPFAIL of sysexits.h: another run goes on, try again later. No pytest status has this number.
ANOTHER_RUN = 75
KEPT_RUNS = 60
LOCK = ".nightly.lock"


def nightly(given: Sequence[str]) -> int:
    """Run the suite as a nightly job does.

    Args:
        given: further arguments for pytest; they win over the nightly's own.

    Returns:
        The run's exit status, or 75 when another nightly run holds the reports folder.
    """
    for refused in ("--sim", "--fault", "--variation", "--facts", "--collect-only", "--co"):
        if any(word == refused or word.startswith(f"{refused}=") for word in given):
            print(f"labproof nightly: {refused} is no nightly run of a real lab; use pytest", file=sys.stderr)
            return 4
    reports = _option(given, "--reports") or "reports"
    arguments = ["--require-lab", "-p", "no:cacheprovider", *_joined(given)]
    if _option(given, "--compare") is None:
        arguments.insert(0, "--compare=last")
    if _option(given, "--keep") is None:
        arguments.insert(0, f"--keep={KEPT_RUNS}")
    if not any(word.startswith(("--junitxml", "--junit-xml")) for word in given):
        arguments.insert(0, f"--junitxml={reports}/junit.xml")
    with _alone(Path(reports)) as holder:
        if holder is not None:
            print(f"labproof nightly: {holder}; this one ends here", file=sys.stderr)
            return ANOTHER_RUN
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    import pytest

    # process 1 of a container gets no SIGTERM that it does not handle; the run handles it itself once it is on
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    return int(pytest.main(list(arguments)))  # --require-lab lets the plugin add the suites


@contextlib.contextmanager
def _alone(reports: Path) -> Iterator[str | None]:
    """Hold the lock of a reports folder; yields who holds it when somebody else does.

    The lock is the kernel's (flock), so it is gone with its process, however that ended.
    """
    from filelock import FileLock, Timeout

    reports.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(str(reports / LOCK), timeout=0), reports / f"{LOCK}.json"
    try:
        lock.acquire()
    except Timeout:
        yield _holder(note)
        return
    try:
        about = {"pid": os.getpid(), "machine": socket.gethostname(), "since": _now()}
        note.write_text(json.dumps(about), "utf-8")
        yield None
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _holder(note: Path) -> str:
    try:
        about = json.loads(note.read_text("utf-8"))
        return f"another nightly run goes on: process {about['pid']} on {about['machine']} since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another nightly run goes on (it has just begun)"


def _option(given: Sequence[str], name: str) -> str | None:
    """Value of an option in `--name value` or `--name=value`."""
    for index, word in enumerate(given):
        if word == name and index + 1 < len(given):
            return given[index + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


#: Options with a value: pytest takes a folder behind a blank for the one to run in, before it knows our options.
_VALUED = ("--reports", "--compare", "--keep", "--lab", "--publish", "--notify", "--fail-on")


def _joined(given: Sequence[str]) -> list[str]:
    words, rest = [], list(given)
    while rest:
        word = rest.pop(0)
        words.append(f"{word}={rest.pop(0)}" if word in _VALUED and rest else word)
    return words


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
