"""What a terminal shows while a run goes on: a line for each layer as it settles, in place of pytest's dots.

On a terminal the line of the layer that is being judged is rewritten in place; elsewhere (CI, a pipe) only settled
lines are written. `-v` and whoever runs tests of their own beside ours get pytest's output; `-q` gets one line at the
very end.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from _pytest.terminal import TerminalReporter

#: Below pytest's own -q: no closing line of counts either.
SILENT = -2
QUIET = pytest.StashKey[bool]()


def quieten(config: pytest.Config) -> None:
    """`-q` leaves everything to the one line at the end; listing tests with it stays pytest's."""
    if config.option.verbose == -1 and not config.option.collectonly:
        config.option.verbose = SILENT
        config.stash[QUIET] = True


def is_quiet(config: pytest.Config) -> bool:
    """Whether this run ends in one line."""
    return config.stash.get(QUIET, False)


def begin(session: pytest.Session) -> None:
    """Take the terminal over from pytest's dots, where all collected tests are ours and this process runs them."""
    from labproof.plugin import collect

    config = session.config
    terminal: Any = config.pluginmanager.getplugin("terminalreporter")
    distributed = config.getoption("dist", "no") != "no" or hasattr(config, "workerinput")
    if terminal is None or distributed or config.option.verbose > 0 or config.option.collectonly:
        return
    layers = []
    for item in session.items:
        clause = collect.clause_of(item)
        if clause is None:
            return
        layers.append(clause.layer)
    terminal.showfspath = False
    terminal._show_progress_info = False  # no public way: console_output_style is read before we know whose tests run
    config.pluginmanager.register(_Progress(terminal, layers, is_quiet(config)), "labproof-progress")


class _Progress:
    """Counts verdicts by layer as reports come in."""

    def __init__(self, terminal: TerminalReporter, layers: list[str], quiet: bool) -> None:
        self._terminal = terminal
        self._left = Counter(layers)
        self._whole = Counter(layers)
        self._verdicts: dict[str, Counter[str]] = {layer: Counter() for layer in self._left}
        self._began: dict[str, float] = {}
        self._quiet = quiet
        self._live = terminal.isatty and not quiet and not os.environ.get("CI")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_report_teststatus(self) -> Generator[None, Any, Any]:
        """Counted as ever, shown by the layer's line."""
        status = yield
        return (status[0], "", "") if status else status

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Say which layer is being read, before its first probe takes its time."""
        from labproof.plugin import collect

        clause = collect.clause_of(item)
        if clause is not None:
            self._began.setdefault(clause.layer, time.monotonic())
            self._show(clause.layer)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the verdict a report carries; a layer whose last one this is has settled."""
        record = getattr(report, "labproof", None)
        if record is None:
            return
        layer = record["layer"]
        self._verdicts[layer][record["verdict"]] += 1
        self._left[layer] -= 1
        if self._left[layer] == 0:
            self._settle(layer)

    def _show(self, layer: str) -> None:
        if self._live:
            done = self._whole[layer] - self._left[layer]
            self._terminal.rewrite(f"  {layer:<11}{done} of {self._whole[layer]} ...", erase=True)

    def _settle(self, layer: str) -> None:
        if self._quiet:
            return
        from labproof.report.tree import layer_line

        text, colour = layer_line(self._terminal, layer, self._verdicts[layer], time.monotonic() - self._began[layer])
        if self._live:
            self._terminal.rewrite("", erase=True)
            self._terminal.rewrite("")
        self._terminal.write_line(text, **{colour: True})
