"""One run: its lab, its folder, its facts, the simulated lab behind it, and how it ends."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labproof.plugin import cut_off, keeping
from labproof.plugin.options import Choice, choose_lab, refuse_misread_folder

if TYPE_CHECKING:
    from labproof.checks.gate import Gate
    from labproof.facts.bundle import Facts
    from labproof.inventory.models import Lab
    from labproof.simlab.starter import Handle

#: What the collecting processes tell the one that writes the reports.
PLAN = "plan.json"


class Run:
    """The run of this process: the whole run, or an xdist worker's share of it."""

    def __init__(self, config: pytest.Config, choice: Choice, lab: Lab) -> None:
        self.config = config
        self.choice = choice
        self.lab = lab
        self.layers: frozenset[str] = frozenset()
        self.expected: list[dict[str, str]] = []
        self.deselected: list[dict[str, str]] = []
        self.verdicts: dict[tuple[str, str], dict[str, Any]] = {}
        self.began = self.opened = time.time()
        self.others_failed = False
        self.folder: Path | None = None
        self.result: dict[str, Any] | None = None
        self.told: list[tuple[str, bool]] = []
        self._gate: Gate | None = None
        self._facts: Facts | None = None
        self._simulation: Handle | None = None

    # -------------------------------------------------------------- opening

    @property
    def run_id(self) -> str:
        """Sortable, unique on one machine."""
        return f"{datetime.fromtimestamp(self.opened, UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"

    def open(self) -> None:
        """Make the run's folder; start the simulated lab; from here on facts can be read."""
        if self.folder is not None:
            return
        from labproof.facts import meta
        from labproof.inventory.load import load_lab

        folder = Path(self.config.invocation_params.dir) / str(self.config.getoption("reports")) / "runs" / self.run_id
        if self.choice.kind == "facts":
            self.began = meta.read(self.choice.path).now
        elif self.choice.kind == "sim":
            self._start_simulation()
        else:
            self.lab = _opted_in(self.config, _loaded(load_lab, self.choice.path))
        (folder / "facts").mkdir(parents=True)
        self.folder = folder
        if self.choice.kind != "facts":
            meta.write(folder / "facts", meta.Meta(self.began, self.lab, str(self.choice.path)))

    def _start_simulation(self) -> None:
        from labproof.inventory.load import load_lab
        from labproof.simlab.starter import SimulationRefused, start

        option = self.config.getoption
        try:
            self._simulation = start(
                self.choice.path.parent, variation=option("variation"), faults=option("fault"), bare=option("bare")
            )
        except SimulationRefused as refused:
            raise pytest.UsageError(f"--sim: {refused}") from None
        self.lab = _opted_in(self.config, _loaded(load_lab, self.choice.path, self._simulation.overlay))

    def share(self) -> dict[str, Any]:
        """What a worker needs to take part."""
        return {
            "folder": str(self.folder),
            "kind": self.choice.kind,
            "path": str(self.choice.path),
            "overlay": self._simulation.overlay if self._simulation else {},
            "began": self.began,
        }

    def join(self, shared: dict[str, Any]) -> None:
        """Take part in the controller's run."""
        from labproof.inventory.load import load_lab

        self.folder = Path(shared["folder"])
        self.began = shared["began"]
        self.lab = self.lab if self.choice.kind == "facts" else _loaded(load_lab, self.choice.path, shared["overlay"])

    # -------------------------------------------------------------- facts

    @property
    def facts(self) -> Facts:
        """Facts of this run, read when first asked for."""
        if self._facts is None:
            from labproof.facts.bundle import Facts
            from labproof.facts.scrub import Scrubber
            from labproof.facts.store import FactsStore
            from labproof.inventory.secrets import secrets_of
            from labproof.plugin.probing import add_probes

            assert self.folder is not None, "the run is not open"
            if self.choice.kind == "facts":
                store = FactsStore(self.choice.path, frozen=True)
            else:
                store = FactsStore(self.folder / "facts", scrubber=Scrubber(secrets_of(self.lab)))
                add_probes(store, self.lab)
            self._facts = Facts(store, self.began)
        return self._facts

    def recorded_facts(self) -> Facts:
        """What has been read so far; asking it reads nothing new."""
        from labproof.facts.bundle import Facts
        from labproof.facts.store import FactsStore

        assert self.folder is not None, "the run is not open"
        folder = self.choice.path if self.choice.kind == "facts" else self.folder / "facts"
        return Facts(FactsStore(folder, frozen=True), self.began)

    @property
    def gate(self) -> Gate:
        """The judge of this run's clauses."""
        if self._gate is None:
            from labproof.checks.gate import Gate

            self._gate = Gate(self.facts, self.lab, self.layers)
        return self._gate

    def look_again(self) -> None:
        """Something was changed: judge anew, and take this moment for the one at which the facts begin."""
        from labproof.facts import meta

        assert self.folder is not None, "the run is not open"
        self._gate = None
        self.began = self.facts.now = time.time()
        meta.write(self.folder / "facts", meta.Meta(self.began, self.lab, str(self.choice.path)))

    # -------------------------------------------------------------- telling

    def header(self) -> list[str]:
        """What this run is about, before anything is contacted."""
        from labproof.report.announce import announcement

        faults = self.config.getoption("fault")
        from labproof.plugin.provisioning import header, may_write

        told = announcement(
            self.lab, self.choice.kind, self.choice.path, self.choice.fallback, faults, may_write=may_write(self.config)
        )
        return [*told, *header(self.config)]

    def save_plan(self) -> None:
        """Let the controller know what is expected: every worker writes the same."""
        if self.folder is None:
            return
        from labproof.facts.atomic import write_text

        plan = {"expected": self.expected, "deselected": self.deselected, "layers": sorted(self.layers)}
        write_text(self.folder / PLAN, json.dumps(plan))

    def load_plan(self) -> None:
        """Under xdist the workers did the collecting."""
        assert self.folder is not None
        if not self.expected and (self.folder / PLAN).is_file():
            plan = json.loads((self.folder / PLAN).read_text("utf-8"))
            self.expected, self.deselected = plan["expected"], plan["deselected"]

    def close(self) -> None:
        """Stop what this run started."""
        if self._simulation is not None:
            self._simulation.close()
            self._simulation = None


RUN = pytest.StashKey[Run]()


def prepare(config: pytest.Config) -> Run:
    """The run of this configuration; lab.yaml is read the first time.

    Raises:
        pytest.UsageError: no such lab, contradictory options, or a lab.yaml with errors (exit status 4).
    """
    if RUN not in config.stash:
        from labproof.facts import meta
        from labproof.inventory.load import load_lab

        worker = getattr(config, "workerinput", None)
        if worker is None:
            refuse_misread_folder(config)
        choice = choose_lab(config)
        if worker is None:
            _refuse_early(config)
            keeping.refuse_early(config)
        if choice.kind == "facts":
            lab = meta.read(choice.path).lab
        else:
            patch = _variation(config, choice)
            lab = _opted_in(config, _loaded(load_lab, choice.path, patch, read_secrets=False))
        config.stash[RUN] = Run(config, choice, lab)
        config.pluginmanager.register(_Gatherer(config.stash[RUN]), "labproof-gatherer")
        if worker is not None and "labproof" in worker:
            config.stash[RUN].join(worker["labproof"])
    return config.stash[RUN]


def _deliver_to(config: pytest.Config) -> tuple[Path | None, str | None]:
    """Where the owner wants the finished run: a folder of a git checkout, an address."""
    into = config.getoption("publish")
    return (Path(config.invocation_params.dir) / into if into else None), config.getoption("notify") or None


def _refuse_early(config: pytest.Config) -> None:
    from labproof.plugin import provisioning

    provisioning.refuse_early(config)
    into, address = _deliver_to(config)
    if into is None and address is None:
        return
    from labproof.report.delivery import refuse_early

    wrong = refuse_early(into, address)
    if wrong:
        raise pytest.UsageError(wrong)


def _variation(config: pytest.Config, choice: Choice) -> dict[str, Any]:
    """What a variation changes in lab.yaml: needed to collect, before anything is started."""
    name = config.getoption("variation")
    if not name:
        return {}
    from labproof.inventory.yaml_marks import read

    folder = choice.path.parent / "variations"
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise pytest.UsageError(f"--variation: {choice.path.parent.name} has no variation {name!r}; known: {known}")
    content, _ = read(file.read_text("utf-8"), str(file))
    patch = content.get("lab", {}) if isinstance(content, dict) else {}
    return dict(patch or {})


def _opted_in(config: pytest.Config, lab: Lab) -> Lab:
    from labproof.plugin.provisioning import opted_in

    return opted_in(config, lab)


def _loaded(load: Any, *args: Any, **options: Any) -> Lab:
    from labproof.inventory.load import LabError

    try:
        lab: Lab = load(*args, **options)
        return lab
    except LabError as wrong:
        raise pytest.UsageError(*wrong.lines) from None


def open_run(config: pytest.Config) -> Run:
    """The open run of this process (already open in a worker)."""
    run = prepare(config)
    if run.folder is None:
        run.open()
        cut_off.watch(run)
    run.save_plan()
    return run


def hand_to_worker(node: Any) -> None:
    """Open the run on the controller and tell a new worker about it."""
    config: pytest.Config = node.config
    if RUN in config.stash:
        node.workerinput["labproof"] = open_run(config).share()


class _Gatherer:
    """Registered as a plugin of its own: the report hook is not told which configuration a report belongs to."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the verdict a report carries, on the process that has the terminal."""
        record = getattr(report, "labproof", None)
        if record is not None:
            self._run.verdicts[(record["clause"], record["target"])] = record
        elif report.failed and "target" not in report.keywords:
            self._run.others_failed = True


def finish(session: pytest.Session, exitstatus: int) -> None:
    """Write run.json and what is rendered from it, and set the exit status."""
    run = session.config.stash.get(RUN, None)
    if run is None or hasattr(session.config, "workerinput") or run.folder is None:
        return
    run.load_plan()
    from labproof.report.write import Ended, finish_run

    ended = Ended(
        lab=run.lab,
        facts=run.recorded_facts(),
        run_id=run.run_id,
        folder=run.folder,
        began=run.began,
        seconds=time.time() - run.opened,
        verdicts=list(run.verdicts.values()),
        expected=run.expected,
        deselected=run.deselected,
        pytests=exitstatus,
        fail_on=str(session.config.getoption("fail_on")),
        others_failed=run.others_failed,
        cut_off=cut_off.ended(session.config),
    )
    run.result = finish_run(ended)
    keeping.keep(run, run.result)
    _hand_on(run, run.folder, run.result)
    session.exitstatus = run.result["exit_status"]


def _hand_on(run: Run, folder: Path, result: dict[str, Any]) -> None:
    """Allure's surroundings, the checkout and the message, each only where it was asked for."""
    if (folder / "compare.json").is_file():
        from labproof.report.write import render

        render(folder, result)  # the comparison was made of the finished run; its reports tell it too
    option = run.config.getoption
    allure = option("allure_report_dir", None)
    if allure and not option("collectonly"):
        from labproof.report.allure import write_surroundings

        write_surroundings(Path(run.config.invocation_params.dir) / allure, result)
    into, address = _deliver_to(run.config)
    if into is not None or address is not None:
        from labproof.report.delivery import deliver

        run.told = deliver(folder, result, into, address)
