"""Fixtures of the client tests: authorities and misbehaving servers."""

import pytest

from .certificates import Authority
from .https_server import Answer, HttpsServer, Reply


@pytest.fixture(scope="session")
def pve_authority():
    """A CA as PVE makes it: no keyUsage."""
    return Authority(edwards=False, bare=True)


@pytest.fixture(scope="session")
def talos_authority():
    """A CA as Talos makes it: Ed25519."""
    return Authority(edwards=True)


@pytest.fixture
def https(pve_authority, tmp_path):
    """Start HTTPS servers on 127.0.0.1 with certificates of the PVE-like CA."""
    started = []
    issued = pve_authority.issue("server")

    def start(answer: Answer | Reply) -> HttpsServer:
        serve = (lambda asked: answer) if isinstance(answer, Reply) else answer
        started.append(HttpsServer(issued, tmp_path, serve))
        return started[-1]

    yield start
    for server in started:
        server.close()
