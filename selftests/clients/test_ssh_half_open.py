"""A host that goes down after the connection stands and before it answers a request."""

import socket
import threading
import time

import paramiko
import pytest

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.ssh import SshSession, SshTarget

from . import sshd


class NeverAnswers(paramiko.ServerInterface):
    """Takes any key and any channel, and never says whether a command begins."""

    def __init__(self):
        self.over = threading.Event()

    def check_auth_publickey(self, username, key):
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username):
        return "publickey"

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        self.over.wait(60)
        return False


def test_a_request_that_is_never_answered_ends_as_a_timeout(tmp_path):
    user, host = sshd.keygen(tmp_path / "user"), sshd.keygen(tmp_path / "host")
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {host.with_suffix('.pub').read_text()}")
    server = NeverAnswers()

    def serve():
        transport = paramiko.Transport(listener.accept()[0])
        transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(host)))
        transport.start_server(server=server)

    threading.Thread(target=serve, daemon=True).start()
    target = SshTarget(
        "127.0.0.1", "root", port, identity_files=(str(user),), known_hosts=(str(tmp_path / "known_hosts"),),
        use_agent=False, connect_timeout_s=20,
    )  # fmt: skip
    began = time.monotonic()
    with SshSession(target) as session, pytest.raises(TransportFailure) as failed:
        session.run("true", timeout_s=2)
    server.over.set()
    listener.close()
    assert failed.value.kind is Kind.TIMEOUT
    assert time.monotonic() - began < 50  # a hang, not a speed
