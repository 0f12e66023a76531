"""The clusters of the lab, provisioned where --provision says so."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def provisioned_cluster(request, provisioned_node):
    """Steps of the kubernetes layer, after those below; without --provision the cluster is taken as it is."""
    from labproof.plugin.provisioning import provision_layer

    return provision_layer(request.config, "kubernetes")
