"""Collection: which clauses run for which targets, and in which order.

Heavy modules are imported only where an item of ours was found: this module is loaded in every pytest run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labproof.plugin.clause import MARK_HELP, MARKS_OF

if TYPE_CHECKING:
    from labproof.checks.registry import Clause
    from labproof.inventory.chains import Target

#: Node ids of clauses whose probes act on a GPU, with the chain's id.
_ACTING = re.compile(r"\b(?:workload|transcode)/test_\w+\.py::\w+\[(.+)\]")
#: Parameter of a clause that has no target in this lab; such items are deselected.
NOT_DECLARED = "not declared"
_WORDS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_about_us(config: pytest.Config) -> bool:
    """Whether this pytest run is pointed at labproof's suites.

    Only then is lab.yaml read or a simulated lab started: an unrelated project in the same environment never notices.
    """
    if hasattr(config, "workerinput"):
        return "labproof" in config.workerinput
    from labproof import places

    suites = places.folder("suites").resolve()
    for arg in config.args:
        name = str(arg).split("::", 1)[0]
        if config.getoption("pyargs", False) and (name == "labproof" or name.startswith("labproof.")):
            return True
        given = (Path(config.invocation_params.dir) / name).resolve()
        if given == suites or given in suites.parents or suites in given.parents:
            return not _elsewhere(given, suites)
    return False


def _elsewhere(given: Path, suites: Path) -> bool:
    """A folder above the suites counts only when it is their own clone (`pytest .`), not the root of a disk."""
    return given in suites.parents and given != suites.parent


def clause_id_of(item: pytest.Item | pytest.Function) -> str | None:
    """Id of the clause an item states, if it states one."""
    mark = item.get_closest_marker("clause")
    return str(mark.args[0]) if mark else None


def clause_of(item: pytest.Item) -> Clause | None:
    """The clause an item states.

    Raises:
        pytest.UsageError: the suite names a clause that no check stands behind.
    """
    ident = clause_id_of(item)
    if ident is None:
        return None
    from labproof.checks.registry import clauses

    known = clauses()
    if ident not in known:
        raise pytest.UsageError(f"{item.nodeid}: no check stands behind clause {ident}")
    return known[ident]


def target_of(item: pytest.Item) -> Target | None:
    """The target an item is parametrised with; None when the lab has none for it."""
    from labproof.inventory.chains import Target

    params = getattr(getattr(item, "callspec", None), "params", {})
    target = params.get("target")
    return target if isinstance(target, Target) else None


def ours(items: Iterable[pytest.Item]) -> bool:
    """Whether any item states a clause."""
    return any(clause_id_of(item) for item in items)


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give a clause's test one run per target of the lab."""
    mark = metafunc.definition.get_closest_marker("clause")
    if mark is None or "target" not in metafunc.fixturenames:
        return
    from labproof.checks.gate import expected_targets
    from labproof.checks.registry import clauses
    from labproof.plugin.run import prepare

    lab = prepare(metafunc.config).lab
    clause = clauses().get(str(mark.args[0]))
    targets: Sequence[Target] = expected_targets(lab, clause) if clause is not None else ()
    if targets:
        metafunc.parametrize("target", targets, ids=[t.name for t in targets])
    else:
        metafunc.parametrize("target", [NOT_DECLARED], ids=[NOT_DECLARED])


def arrange(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect and order our items; other items keep their places behind them."""
    if not ours(items):
        return
    from labproof.plugin.run import prepare

    expression = str(config.getoption("markexpr") or "")
    _refuse_unknown_marks(config, expression)
    selected = _selected_layers(items, expression)
    prepare(config).layers = selected
    kept, dropped = [], []
    for item in items:
        clause = clause_of(item)
        if clause is None or (target_of(item) is not None and set(clause.reads) <= selected):
            kept.append(item)
        else:
            dropped.append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    if not config.pluginmanager.has_plugin("randomly"):
        kept.sort(key=_height)
    if config.getoption("allure_report_dir", None):
        _label_for_allure(kept)
    items[:] = kept


def scheduler(config: pytest.Config, log: Any) -> Any:
    """For `--dist loadgroup`: all work on one node's GPUs goes to one xdist worker, since a lock serialises it anyway.

    By our own reading of the node ids: xdist 3.8 writes its groups where pytest from 9.2 on does not look.

    Returns:
        xdist's own scheduler with that grouping; None where ours is not asked for.
    """
    from labproof.plugin.run import RUN

    prepared = config.stash.get(RUN, None)
    if prepared is None or config.getoption("dist", "no") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]

    from labproof.inventory.chains import chains_of

    nodes = {chain.id: chain.node.name for chain in chains_of(prepared.lab) if chain.node is not None}

    class ByGpu(LoadGroupScheduling):  # type: ignore[misc]
        """Groups by node what acts on a GPU."""

        def _split_scope(self, nodeid: str) -> str:
            found = _ACTING.search(nodeid)
            node = nodes.get(found[1]) if found else None
            return f"gpu-{node}" if node is not None else str(super()._split_scope(nodeid))

    return ByGpu(config, log)


def _label_for_allure(items: Iterable[pytest.Item]) -> None:
    from labproof.report.allure import label_item

    for item in items:
        clause, target = clause_of(item), target_of(item)
        if clause is not None and target is not None:
            label_item(item, clause, target.name)


def _height(item: pytest.Item) -> tuple[int, int]:
    from labproof.checks.registry import LAYERS

    clause = clause_of(item)
    return (LAYERS.index(clause.layer), clause.order) if clause is not None else (len(LAYERS), 0)


def _selected_layers(items: Iterable[pytest.Item], expression: str) -> frozenset[str]:
    """Layers of which `-m` leaves something; all of them without `-m`. `-k`, `--lf` and node ids change nothing."""
    from labproof.checks.registry import LAYERS

    if not expression:
        return frozenset(LAYERS)
    from _pytest.mark import MarkMatcher  # pytest has no public way to evaluate an expression; pinned to pytest 9
    from _pytest.mark.expression import Expression

    wanted = Expression.compile(expression)
    layers = set()
    for item in items:
        clause = clause_of(item)
        if clause is not None and wanted.evaluate(MarkMatcher.from_markers(item.iter_markers())):
            layers.add(clause.layer)
    return frozenset(layers)


def _refuse_unknown_marks(config: pytest.Config, expression: str) -> None:
    """An unknown word in `-m` is an error also from a wheel, where the project's strict settings are not there."""
    known = {line.split(":", 1)[0].split("(", 1)[0].strip() for line in config.getini("markers")}
    words = set(_WORDS.findall(re.sub(r"\(.*?=.*?\)", "", expression))) - {"and", "or", "not", "True", "False", "None"}
    for word in sorted(words - known):
        near = difflib.get_close_matches(word, [*MARK_HELP], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        layers = ", ".join(sorted({name for names in MARKS_OF.values() for name in names}))
        raise pytest.UsageError(f"-m: unknown mark {word!r}{hint} (layers: {layers})")


def remember_deselected(items: Iterable[pytest.Item]) -> None:
    """Keep what was left out, with the reason, for run.json."""
    from labproof.plugin.run import RUN

    for item in items:
        clause = clause_id_of(item)
        prepared = item.config.stash.get(RUN, None)
        if clause is None or prepared is None:
            continue
        target = target_of(item)
        reason = "not selected" if target is not None else "not declared in lab.yaml"
        prepared.deselected.append({"clause": clause, "target": target.name if target else "", "reason": reason})


def remember_expected(session: pytest.Session) -> None:
    """Keep what is going to be judged."""
    from labproof.plugin.run import RUN

    prepared = session.config.stash.get(RUN, None)
    if prepared is None:
        return
    for item in session.items:
        clause, target = clause_id_of(item), target_of(item)
        if clause is not None and target is not None:
            prepared.expected.append({"clause": clause, "target": target.name})
    prepared.save_plan()
