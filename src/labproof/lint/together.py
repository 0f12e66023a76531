"""What two files of one lab contradict each other in."""

from __future__ import annotations

import re

from labproof.lint.image import version_of
from labproof.lint.scope import Scope


def judge_together(scope: Scope) -> None:
    """Rules over all files of a scope."""
    _talos_versions(scope)
    _nfd(scope)


def _talos_versions(scope: Scope) -> None:
    """A page describes one lab: the image that boots the VM and the one that is installed share a version.

    Only pages: a repository may hold several clusters.
    """
    if not scope.sources or not scope.sources[0].scope or len(scope.tags) != 1:
        return
    tag, (path, line) = next(iter(scope.tags.items()))
    for file in scope.hcl:
        for attribute in file.objects:
            if attribute.name == "talos_version" and attribute.literal:
                other = version_of(attribute.value)
                if other is not None and other != tag:
                    source = next(s for s in scope.sources if s.path == file.path)
                    text = f"Terraform says Talos {other}, the install image (line {line}) {tag}: one lab, two versions"
                    scope.find(source, attribute.line, "K99", text)
    del path


def _nfd(scope: Scope) -> None:
    """Two charts that each bring NFD label the same nodes differently (facts kubernetes-gpu 2.2)."""
    bringing = []
    for chart in scope.charts:
        own = chart.values.get("nfd", "enabled")
        on = own is not None and own.plain is True
        if (chart.name == "gpu-operator" and (on or own is None)) or (chart.name == "nvidia-device-plugin" and on):
            bringing.append((chart, chart.values.at("nfd", "enabled")))
        elif re.fullmatch(r"node-feature-discovery", chart.name):
            bringing.append((chart, chart.values.line))
    folders = {chart.document.source.path.rpartition("/")[0] for chart, _ in bringing}
    if len(bringing) < 2 or len(folders) > 1:
        return  # other folders may be other clusters
    names = sorted({chart.name for chart, _ in bringing})
    chart, line = next(((c, n) for c, n in bringing if c.name != "node-feature-discovery"), bringing[0])
    if len(names) > 1:
        scope.find(chart.document.source, line, "K89", f"{' and '.join(names)} each bring NFD")
