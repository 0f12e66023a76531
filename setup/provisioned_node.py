"""The Talos nodes of the lab, provisioned where --provision says so."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def provisioned_node(request, provisioned_vm):
    """Steps of the talos layer (`talos_image`), after the VM's; without --provision the node is taken as it is."""
    from labproof.plugin.provisioning import provision_layer

    return provision_layer(request.config, "talos")
