"""The VMs of the lab, provisioned where --provision says so."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def provisioned_vm(request, provisioned_host):
    """Steps of the vm layer (`hostpci`), after the host's; without --provision the VM is taken as it is."""
    from labproof.plugin.provisioning import provision_layer

    return provision_layer(request.config, "vm")
