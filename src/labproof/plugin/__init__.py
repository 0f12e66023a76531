"""The pytest plugin. Loading it imports nothing heavy; its hooks act only when labproof clauses are collected."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from labproof.plugin.clause import MARK_HELP
from labproof.plugin.options import add_options

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add labproof's options."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Let `pytest` alone run the suites in the folder of a lab.yaml."""
    from labproof.plugin.arguments import point_at_suites

    point_at_suites(early_config, args)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the marks and the fixtures of the layers."""
    from labproof.plugin import collect

    if collect.is_about_us(config):
        # Our closing tree tells every failure once, with cause and remedy: pytest's own sections would tell them again.
        # Whoever asks for them (-r, --tb) gets them.
        if config.option.reportchars == "fE":
            config.option.reportchars = ""
        if config.option.tbstyle == "auto":
            config.option.tbstyle = "no"
        from labproof.plugin import progress

        progress.quieten(config)
    for name, text in MARK_HELP.items():
        config.addinivalue_line("markers", f"{name}: {text}")
    from labproof.plugin.fixture_modules import register

    register(config)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Read lab.yaml before anything is collected, so that a bad one is one clear message and exit status 4."""
    from labproof.plugin import collect, run

    if collect.is_about_us(session.config):
        run.prepare(session.config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which lab is judged, and what will be contacted as whom."""
    from labproof.plugin.run import RUN

    prepared = config.stash.get(RUN, None)
    return prepared.header() if prepared is not None else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per clause and target."""
    from labproof.plugin import collect

    collect.parametrize(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what the lab does not declare and what reads an unselected layer; lowest layer first."""
    from labproof.plugin import collect

    collect.arrange(config, items)


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remember what the owner left out."""
    from labproof.plugin import collect

    collect.remember_deselected(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write down what is expected to run: fewer verdicts than that is never green."""
    from labproof.plugin import collect

    collect.remember_expected(session)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Open the run (and start the simulated lab) once something of ours is really going to be judged.

    --plan and --undo come in place of the tests.
    """
    from labproof.plugin import collect, run

    if collect.ours(session.items) and not session.config.getoption("collectonly"):
        run.open_run(session.config)
        from labproof.plugin import progress, provisioning

        if provisioning.instead_of_tests(session):
            return True
        progress.begin(session)
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist: the controller opens the run; workers are told where it is."""
    from labproof.plugin import run

    run.hand_to_worker(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """xdist: with `--dist loadgroup`, one worker for each node's GPUs."""
    from labproof.plugin import collect

    return collect.scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the verdict on the report, and its explanation in place of a traceback."""
    report = yield
    from labproof.plugin import collect

    if collect.clause_id_of(item):
        from labproof.plugin import judging

        judging.decorate(item, call, report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the reports and say the run's exit status."""
    from labproof.plugin import run

    run.finish(session, int(exitstatus))


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """End with the stack as a tree, the first broken layer, and where the report is."""
    from labproof.plugin.run import RUN

    prepared = config.stash.get(RUN, None)
    from labproof.plugin import progress

    if prepared is not None and prepared.result is None and progress.is_quiet(config):
        terminalreporter.write_line(f"{prepared.lab.lab}: nothing was judged")
    if prepared is not None and prepared.result is not None:
        from labproof.plugin import keeping
        from labproof.report.tree import one_line, write_tree

        if progress.is_quiet(config):
            terminalreporter.write_line(one_line(prepared.result, prepared.folder))
            for line in (text for text, worked in prepared.told if not worked):
                terminalreporter.write_line(line)
            return
        write_tree(terminalreporter, prepared.result, prepared.folder)
        keeping.tell(terminalreporter, config)
        for line, worked in prepared.told:
            terminalreporter.write_line(line, **({} if worked else {"red": True, "bold": True}))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the simulated lab."""
    from labproof.plugin.run import RUN

    prepared = config.stash.get(RUN, None)
    if prepared is not None:
        prepared.close()
