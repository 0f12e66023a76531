"""The hosts of the lab, provisioned where --provision says so."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def provisioned_host(request):
    """Steps of the host layer (`vfio`); without --provision the host is taken as it is."""
    from labproof.plugin.provisioning import provision_layer

    return provision_layer(request.config, "host")
