"""Metrics of the lab's clusters, provisioned where --provision says so."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def provisioned_metrics(request, provisioned_cluster):
    """Step `metrics`, after those of the cluster; without --provision what there is is taken as it is."""
    from labproof.plugin.provisioning import provision_layer

    return provision_layer(request.config, "metrics")
