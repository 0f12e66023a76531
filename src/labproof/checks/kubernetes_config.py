"""K8S-CONF: the plugin's configuration: valid as written, live as written, and what lab.yaml says."""

from __future__ import annotations

from labproof.checks.judgement import Evidence, Fail, Judgement, Pass, Problem, verdict_of
from labproof.checks.kubernetes_plugin_faults import last_line, log_source
from labproof.checks.kubernetes_view import CONFIG_LABEL, NVIDIA_FLAVOURS, ConfiguredPlugin, NodeView
from labproof.checks.registry import BLOCKING, DEGRADED, HYGIENE, clause_check
from labproof.checks.subject import Subject
from labproof.facts.plugin_config import FATAL, Finding, Flaw, parse_plugin_config
from labproof.facts.plugin_log import EffectiveConfig, Line
from labproof.facts.reading import Unjudged, absent

_NVIDIA = ("nvidia", "device-plugin")
_FLAW_CAUSE = {Flaw.NO_RESOURCES: "K01", Flaw.FEW_REPLICAS: "K02"}


@clause_check(
    "K8S-CONF-001",
    title="The plugin's configuration is valid as written",
    severity=BLOCKING,
    scope="node",
    reads=("kubernetes",),
    causes=("K01", "K02", "K04", "K05", "K07", "K93"),
    wants=_NVIDIA,
    after=("K8S-NODE-001",),
)
def configuration_is_valid(subject: Subject) -> Judgement:
    """The parser's own rules on the ConfigMap, and whether the key chosen for this node exists (facts 1.1, 1.3)."""
    view = NodeView(subject)
    maps = tuple(view.plugin_config_maps())
    source = view.facts.config_maps.source
    if not maps:
        return Pass((Evidence(source, "the plugin mounts no configuration"),))
    keys = sorted({key for config_map in maps for key in config_map.data})
    told = Evidence(source, f"configurations: {', '.join(keys)}")
    labelled = view.node.labels.get(CONFIG_LABEL, "")
    if labelled and labelled not in keys:
        label = Evidence(view.facts.nodes.source, f"{view.name}: {CONFIG_LABEL}={labelled}")
        return Fail((Problem("K04", view.name, (label, told), view.values()),))
    default = view.default_config()
    if not labelled and default and default not in keys:
        named = Evidence(view.facts.daemonsets.source, f"DEFAULT_CONFIG={default}")
        return Fail((Problem("K05", view.name, (named, told), view.values()),))
    configured = view.configured
    if configured is None:
        if view.cluster.plugin.flavour == "gpu-operator":
            return Pass((told,))  # an empty configuration is applied: K8S-CONF-002 speaks of it
        return Fail((Problem("K07", view.name, (told,), view.values()),))
    fatal = [f for f in configured.findings if f.flaw in FATAL]
    seen = Evidence(configured.source, _describe(configured.settings))
    return verdict_of([_flaw(view, configured.source, f) for f in fatal], [seen])


def _other_plugin(view: NodeView) -> Pass | None:
    """A pass when the NVIDIA card is served by another plugin (`generic`), whose configuration is its own."""
    if view.cluster.plugin.flavour in NVIDIA_FLAVOURS:
        return None
    return Pass((Evidence("lab.yaml", f"plugin.flavour {view.cluster.plugin.flavour}: not NVIDIA's configuration"),))


def _flaw(view: NodeView, source: str, finding: Finding) -> Problem:
    told = Evidence(source, f"{finding.path}: {finding.text}" if finding.path else finding.text)
    return Problem(_FLAW_CAUSE.get(finding.flaw, "K93"), source, (told,), view.values())


def _describe(settings: EffectiveConfig) -> str:
    shared = ", ".join(f"{name} x{count}" for name, count in sorted((settings.replicas or {}).items()))
    rename = ", renamed" if settings.rename else ""
    return f"sharing {settings.strategy}{' ' + shared if shared else ''}{rename}"


@clause_check(
    "K8S-CONF-002",
    title="The plugin runs with the configuration that is written",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K03", "K06"),
    wants=_NVIDIA,
    after=("K8S-PLUGIN-001",),
)
def live_configuration_is_the_written_one(subject: Subject) -> Judgement:
    """The JSON in the plugin's log against its ConfigMap: config-manager does not notice an edit under the same key."""
    view = NodeView(subject)
    maps = tuple(view.plugin_config_maps())
    configured, live = view.configured, view.live_config
    if not maps:
        return Pass((Evidence(view.facts.config_maps.source, "the plugin mounts no configuration"),))
    logs = view.logs("plugin")
    if configured is None:
        written = ", ".join(sorted(key for m in maps for key in m.data))
        told = [Evidence(view.facts.config_maps.source, f"configurations {written}, none is chosen for {view.name}")]
        fallback = last_line(logs, Line.EMPTY_CONFIG)
        return Fail((Problem("K06", view.name, (*told, *([fallback] if fallback else [])), view.values()),))
    if live is None:
        return _by_the_numbers(view, configured)
    settings, log = live
    written_as = Evidence(configured.source, _describe(configured.settings))
    runs_with = Evidence(log_source(log), f"running with {_describe(settings)}")
    if _shares(settings) == _shares(configured.settings):
        return Pass((written_as, runs_with))
    fallback = last_line(logs, Line.EMPTY_CONFIG)
    if fallback is not None and settings.strategy == "none":
        return Fail((Problem("K06", view.name, (written_as, runs_with, fallback), view.values()),))
    return Fail((Problem("K03", view.name, (written_as, runs_with), view.values(pod=log.pod)),))


def _by_the_numbers(view: NodeView, configured: ConfiguredPlugin) -> Judgement:
    """Without a configuration in the log (rotated away) the numbers can still prove it; they cannot disprove it."""
    offered = view.node.allocatable.get(view.resource, 0)
    each = configured.settings.slots_per_card(view.cluster.plugin.resource_name)
    if offered == view.cards * each:
        written_as = Evidence(configured.source, _describe(configured.settings))
        return Pass(
            (written_as, Evidence(view.facts.nodes.source, f"allocatable {offered} = {view.cards} cards x {each}"))
        )
    unread = view.unread_logs()
    raise Unjudged(unread[0] if unread else absent("plugin log", "the plugin's log shows no configuration (rotated?)"))


def _shares(settings: EffectiveConfig) -> tuple[str, dict[str, int], bool]:
    return settings.strategy, dict(settings.replicas or {}), settings.rename


@clause_check(
    "K8S-CONF-003",
    title="Sharing is configured as lab.yaml declares",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K08", "K10", "K93"),
    wants=_NVIDIA,
    after=("K8S-PLUGIN-001",),
)
def sharing_is_as_declared(subject: Subject) -> Judgement:
    """What is written (without a ConfigMap: what runs) against `sharing:`; K8S-CONF-002 speaks of stale plugins."""
    view = NodeView(subject)
    other = _other_plugin(view)
    if other is not None:
        return other
    configured, live = view.configured, view.live_config
    if configured is not None:
        settings, source = configured.settings, configured.source
    elif tuple(view.plugin_config_maps()):
        return Pass((Evidence(view.facts.config_maps.source, "no configuration is chosen: K8S-CONF-002 speaks of it"),))
    elif live is not None:
        settings, source = live[0], log_source(live[1])
    else:
        settings, source = EffectiveConfig(), view.facts.config_maps.source
    declared, resource = view.cluster.sharing, view.cluster.plugin.resource_name
    found = settings.slots_per_card(resource)
    seen = Evidence(source, _describe(settings))
    want = Evidence("lab.yaml", f"sharing {declared.strategy}, replicas {declared.replicas}, rename {declared.rename}")
    wanted = declared.replicas if declared.strategy != "none" else 1
    if found != wanted:
        return Fail((Problem("K08", view.name, (want, seen), view.values()),))
    if wanted > 1 and settings.rename != declared.rename:
        return Fail((Problem("K10", view.name, (want, seen), view.values()),))
    if settings.strategy != declared.strategy:
        return Fail((Problem("K93", view.name, (want, seen), view.values()),))
    return Pass((seen,))


@clause_check(
    "K8S-CONF-004",
    title="A container cannot take two shared slots",
    severity=HYGIENE,
    scope="node",
    reads=("kubernetes",),
    causes=("K12",),
    wants=("sharing", *_NVIDIA),
    after=("K8S-PLUGIN-001",),
)
def shared_slots_are_taken_one_at_a_time(subject: Subject) -> Judgement:
    """`failRequestsGreaterThanOne`: a request for two is granted twice the same card without it; MPS always refuses."""
    view = NodeView(subject)
    other = _other_plugin(view)
    if other is not None:
        return other
    live, configured = view.live_config, view.configured
    settings = live[0] if live is not None else (configured.settings if configured is not None else None)
    if settings is None:
        raise Unjudged(absent("plugin log", "neither a ConfigMap nor the plugin's log shows the configuration"))
    source = log_source(live[1]) if live is not None else (configured.source if configured else "")
    seen = Evidence(source, f"failRequestsGreaterThanOne {str(settings.refuse_many).lower()}, {_describe(settings)}")
    fine = settings.refuse_many or settings.strategy != "time-slicing"
    return verdict_of([] if fine else [Problem("K12", view.name, (seen,), view.values())], [seen])


@clause_check(
    "K8S-CONF-005",
    title="The plugin's configuration has no key that does nothing",
    severity=HYGIENE,
    scope="node",
    reads=("kubernetes",),
    causes=("K93",),
    wants=_NVIDIA,
    after=("K8S-CONF-001",),
)
def configuration_has_no_dead_keys(subject: Subject) -> Judgement:
    """Keys the plugin ignores or resets without an error, in every configuration, also those not chosen here."""
    view = NodeView(subject)
    problems, seen = [], []
    for config_map in view.plugin_config_maps():
        for key, text in sorted(config_map.data.items()):
            source = f"configmap {config_map.namespace}/{config_map.name} key {key}"
            dead = [f for f in parse_plugin_config(text)[1] if f.flaw not in FATAL]
            seen.append(Evidence(source, f"{len(dead)} keys without effect"))
            if dead:
                told = Evidence(source, "; ".join(f"{f.path}: {f.text}" for f in dead)[:500])
                problems.append(Problem("K93", source, (told,), view.values()))
    return verdict_of(problems, seen)


@clause_check(
    "K8S-CONF-006",
    title="The plugin's discovery strategy is the declared one",
    severity=DEGRADED,
    scope="node",
    reads=("kubernetes",),
    causes=("K93",),
    wants=_NVIDIA,
    after=("K8S-PLUGIN-001",),
)
def discovery_strategy_is_as_declared(subject: Subject) -> Judgement:
    """From the log's effective configuration, else from the DaemonSet's environment; nothing declared, nothing said."""
    view = NodeView(subject)
    declared = view.cluster.plugin.discovery
    live = view.live_config
    set_env = next((d.env["DEVICE_DISCOVERY_STRATEGY"] for d in view.daemonsets("plugin")
                    if d.env.get("DEVICE_DISCOVERY_STRATEGY")), "")  # fmt: skip
    found = (live[0].discovery if live is not None else "") or set_env
    source = log_source(live[1]) if live is not None and live[0].discovery else view.facts.daemonsets.source
    seen = Evidence(source, f"deviceDiscoveryStrategy {found or 'not shown'}")
    if declared is None or not found or found == declared:
        return Pass((seen,))
    want = Evidence("lab.yaml", f"plugin.discovery {declared}")
    return Fail((Problem("K93", view.name, (want, seen), view.values()),))
