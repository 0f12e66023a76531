"""`--plan`, `--provision`, `--undo`: the options' meaning, the run's bench, and what is said about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labproof.plugin.options import choose_lab
from labproof.plugin.run import Run, open_run, prepare

if TYPE_CHECKING:
    from labproof.inventory.models import Lab
    from labproof.provision.bench import Bench
    from labproof.provision.runner import Outcome

#: Steps of which this session has taken which; one list a process.
_OUTCOMES = pytest.StashKey[dict[str, "Outcome"]]()


#: The word of `--allow` that, typed by itself, opts in to the proof of the second start.
RESTART = "vm-restart"


def refuse_early(config: pytest.Config) -> None:
    """Refuse options that contradict each other, before anything is contacted.

    Raises:
        pytest.UsageError: exit status 4.
    """
    option = config.getoption
    asked = [name for name in ("--plan", "--provision", "--undo") if option(name)]
    if option("--plan-json") and not option("--plan"):
        raise pytest.UsageError("--plan-json goes with --plan")
    if "--undo" in asked and len(asked) > 1:
        raise pytest.UsageError(f"{' and '.join(asked)} contradict each other: give one of them")
    if option("--allow") and not asked and set(_words(config)) != {RESTART}:
        raise pytest.UsageError(
            "--allow goes with --provision, --plan or --undo (alone: `--allow vm-restart`, the second start)"
        )
    if RESTART in _words(config) and option("--facts"):
        raise pytest.UsageError(f"--allow {RESTART} needs a lab; --facts judges saved facts")
    if RESTART in _words(config) and option("dist", "no") != "no":
        raise pytest.UsageError(f"--allow {RESTART} restarts one lab's VMs in one order: leave -n out")
    if not asked:
        return
    if option("--facts"):
        raise pytest.UsageError(f"{asked[0]} needs a lab; --facts judges saved facts")
    if "--undo" in asked and not option("--lab") and (option("--sim") or choose_lab(config).kind == "sim"):
        raise pytest.UsageError("--undo: a simulated lab that this run would start has nothing to take back")
    if option("dist", "no") != "no":
        raise pytest.UsageError(f"{asked[0]} changes one lab in one order: leave -n out")
    _allowed(config)


def _words(config: pytest.Config) -> list[str]:
    """Words of `--allow` as they were typed."""
    return [word for text in config.getoption("--allow") for word in text.split(",")]


def opted_in(config: pytest.Config, lab: Lab) -> Lab:
    """The lab with the experiments that this run allows by name; `--allow all` means none of them."""
    if RESTART not in _words(config) or config.getoption("--undo") or RESTART in lab.rights.acts:
        return lab
    rights = lab.rights.model_copy(update={"acts": (*lab.rights.acts, RESTART)})
    return lab.model_copy(update={"rights": rights})


def _allowed(config: pytest.Config) -> frozenset[str]:
    from labproof.provision.scopes import UnknownScope, allowed

    try:
        return allowed(config.getoption("--allow"))
    except UnknownScope as unknown:
        raise pytest.UsageError(f"--allow: {unknown}") from None


def may_write(config: pytest.Config) -> bool:
    """Whether this run may change more than its own pods."""
    option = config.getoption
    return bool(option("--provision") or option("--undo") or RESTART in _words(config)) and not option("--plan")


def header(config: pytest.Config) -> list[str]:
    """What the run may change, before its first packet."""
    option, lines = config.getoption, []
    if option("--bare"):
        lines.append("  as it was before anybody provisioned it (--bare)")
    if option("--plan"):
        lines.append("  --plan: only reads, and changes nothing")
    elif not option("--provision") and not option("--undo") and RESTART in _words(config):
        lines.append("  --allow vm-restart: drains, shuts down and starts each VM with a GPU twice")
    elif option("--provision") or option("--undo"):
        verb = "--undo: takes back, within" if option("--undo") else "--provision: may change, within"
        lines.append(f"  {verb} --allow {' '.join(sorted(_allowed(config))) or 'nothing'}")
    return lines


def instead_of_tests(session: pytest.Session) -> bool:
    """Do what --plan or --undo ask in place of the tests; whether that was asked."""
    config = session.config
    planning = bool(config.getoption("--plan"))
    if not planning and not config.getoption("--undo"):
        return False
    run = open_run(config)
    try:
        with _bench(run) as bench:
            if planning:
                _plan(run, bench)
            else:
                from labproof.provision import runner

                outcome = runner.undo(bench)
                _say(config, list(outcome.lines))
                session.testsfailed = 0 if outcome.complete else 1
    finally:
        folder, run.folder = run.folder, None  # nothing was judged: no report
        shutil.rmtree(folder or "", ignore_errors=True)
    return True


def _plan(run: Run, bench: Bench) -> None:
    from labproof.facts.atomic import write_text
    from labproof.provision import runner

    plan = runner.make_plan(bench, run.layers)
    _say(run.config, plan.lines())
    into = run.config.getoption("--plan-json")
    if into:
        write_text(Path(run.config.invocation_params.dir) / into, json.dumps(plan.as_json(), indent=1) + "\n")


def provision_layer(config: pytest.Config, layer: str) -> Outcome | None:
    """Bring one layer to what lab.yaml declares, once a session; None without --provision.

    A layer that was not selected (`-m`) is left alone. What remained undone makes the run red.
    """
    run = prepare(config)
    done = config.stash.setdefault(_OUTCOMES, {})
    if not config.getoption("--provision") or layer not in run.layers:
        return None
    if layer not in done:
        from labproof.provision import runner

        if any(not outcome.complete for outcome in done.values()):
            return None  # a layer below did not end well: nothing above it is begun
        open_run(config)
        with _bench(run) as bench:
            outcome = done[layer] = runner.provision(bench, (layer,))
        if outcome.changed:
            run.look_again()
        run.others_failed = run.others_failed or not outcome.complete
        _say(config, list(outcome.lines) or [f"{layer}: nothing to do"])
    return done[layer]


@contextmanager
def _bench(run: Run) -> Iterator[Bench]:
    """The bench of this run, alone on its lab."""
    from filelock import FileLock, Timeout

    from labproof.provision.bench import Bench, Limits
    from labproof.provision.journal import Journal

    timings = run.lab.timings
    limits = Limits(
        initramfs_s=timings.initramfs_s, reboot_s=timings.reboot_s, shutdown_s=timings.shutdown_s,
        poll_s=timings.poll_s, drain_s=timings.drain_s, upgrade_s=timings.upgrade_s, pods_s=3 * timings.pod_start_s,
    )  # fmt: skip
    folder = _journal_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            bench = Bench(
                run.lab, run.facts, Journal(folder), allow=_allowed(run.config), limits=limits,
                tell=lambda line: _say(run.config, [line]),
            )  # fmt: skip
            with bench:
                yield bench
    except Timeout:
        raise pytest.UsageError(f"another labproof is provisioning lab {run.lab.lab} right now ({folder})") from None


def _journal_folder(run: Run) -> Path:
    """Beside the reports of a real lab, so that a later --undo finds it; a simulated lab dies with its run."""
    assert run.folder is not None
    if run.choice.kind == "sim":
        return run.folder / "provision"
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in run.lab.lab)
    return Path(run.config.invocation_params.dir) / str(run.config.getoption("reports")) / "provision" / name


def _say(config: pytest.Config, lines: list[str]) -> None:
    """Write to the terminal at once, past pytest's capturing."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:
        return
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        reporter.ensure_newline()
        for line in lines:
            reporter.write_line(line)
