"""The SSH client against Debian's real sshd: commands, host keys, logins, jumps, and every way a connection ends."""

import getpass
import logging
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.ssh import SshSession, SshTarget
from labproof.clients.wait import wait_until

from . import sshd

pytestmark = pytest.mark.skipif(not sshd.present(), reason="NOT PROVEN: no /usr/sbin/sshd (apt install openssh-server)")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    names = {"good": "", "stranger": "", "locked": "open sesame"}
    return {name: sshd.keygen(folder / name, passphrase) for name, passphrase in names.items()}


@pytest.fixture(scope="module")
def server(keys, tmp_path_factory):
    running = sshd.start(tmp_path_factory.mktemp("sshd"), [keys["good"], keys["locked"]])
    yield running
    running.stop()


@pytest.fixture
def boot(keys, tmp_path):
    """Start further servers; whatever becomes of the test, none is left running."""
    started = []

    def start(name, port=0, host_key=None):
        started.append(sshd.start(tmp_path / name, [keys["good"]], port, host_key))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def known_hosts(server, tmp_path):
    path = tmp_path / "known_hosts"
    path.write_text(server.known_hosts_line)
    return path


@pytest.fixture
def target(server, keys, known_hosts):
    def make(**other):
        settings = {
            "host": "127.0.0.1",
            "port": server.port,
            "identity_files": (str(keys["good"]),),
            "known_hosts": (str(known_hosts),),
            "config_file": None,
            "use_agent": False,
            "use_default_keys": False,
            "connect_timeout_s": 5,
        }
        return SshTarget(**{**settings, **other})

    return make


@pytest.fixture
def session(target):
    with SshSession(target()) as opened:
        yield opened


def failure_of(what):
    with pytest.raises(TransportFailure) as caught:
        what()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_command_and_what_it_left(session):
    result = session.run("printf out; printf err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_status) == (b"out", b"err", 3)
    assert result.command.startswith("printf out")
    assert 0 < result.seconds < 5


def test_one_connection_for_all_commands_and_threads(session):
    def work(number):
        results[number] = session.run(f"echo {number}").stdout

    results = {}
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n".encode() for number in range(6)}
    assert (session.connections, session.commands) == (1, 6)
    assert session.banner.startswith("SSH-2.0-OpenSSH")
    assert session.as_whom == f"{getpass.getuser()}@127.0.0.1:{session.target.port}"


def test_nodelay_is_set(session):
    session.run("true")
    transport = session._clients[-1].get_transport()
    assert transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_megabytes_on_both_streams_at_once_do_not_lock_up(session):
    # far over SSH's window (paramiko: 2 MiB) on each, stderr first: reading one after the other would hang
    script = "head -c 6000000 /dev/zero >&2; head -c 5000000 /dev/zero; head -c 10 /dev/zero >&2"
    result = session.run(script, timeout_s=20)
    assert (len(result.stdout), len(result.stderr)) == (5_000_000, 6_000_010)


def test_stdin_is_fed_while_output_is_read(session):
    content = os.urandom(4_000_000)
    assert session.run("cat", stdin=content, timeout_s=20).stdout == content
    assert session.run("cat").stdout == b""
    assert session.run("true", stdin=b"nobody reads this" * 100_000).exit_status == 0


def test_a_command_ended_by_a_signal_has_no_exit_status(session):
    assert session.run(f"kill -{int(signal.SIGKILL)} $$").exit_status is None
    assert session.run("echo alive").stdout == b"alive\n"


def test_a_command_that_does_not_end_costs_the_timeout(session):
    started = time.monotonic()
    failure = failure_of(lambda: session.run("echo begun; sleep 30", timeout_s=0.4))
    assert failure.kind is Kind.TIMEOUT
    assert "`echo begun; sleep 30` did not end within 0.4 s" in str(failure)
    assert time.monotonic() - started < 20
    assert session.run("echo alive").stdout == b"alive\n"


def test_unknown_host_key_is_refused_with_the_key_seen(server, target, tmp_path):
    empty = tmp_path / "none_yet"
    failure = failure_of(lambda: SshSession(target(known_hosts=(str(empty),))).run("true"))
    assert failure.kind is Kind.UNKNOWN_HOST_KEY
    shown = os.popen(f"ssh-keygen -lf {server.host_key}.pub").read().split()[1]
    assert f"ssh-ed25519 {shown}" in str(failure)
    assert f"ssh-keyscan -p {server.port} -t ed25519 127.0.0.1 >> {empty}" in str(failure)
    assert not empty.exists(), "a key was added by itself"


def test_changed_host_key_is_another_thing(server, target, keys, tmp_path):
    other = tmp_path / "changed"
    wrong = " ".join((keys["stranger"].with_suffix(".pub")).read_text().split()[:2])
    other.write_text(f"[127.0.0.1]:{server.port} {wrong}\n")
    failure = failure_of(lambda: SshSession(target(known_hosts=(str(other),))).run("true"))
    assert failure.kind is Kind.CHANGED_HOST_KEY
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in str(failure)
    assert str(failure).count("SHA256:") == 2


def test_login_refused_tells_what_was_tried(target, keys, tmp_path):
    files = (str(keys["stranger"]), str(keys["locked"]), str(tmp_path / "absent"))
    failure = failure_of(lambda: SshSession(target(identity_files=files, password="hunter22")).run("true"))
    assert failure.kind is Kind.AUTH
    assert f"key {keys['stranger']}" in str(failure)
    assert f"{keys['locked']} (needs a passphrase)" in str(failure)
    assert "absent (no such file)" in str(failure)
    assert "the server allows publickey" in str(failure)
    assert "hunter22" not in str(failure) + repr(target(password="hunter22"))


def test_a_passphrase_opens_an_encrypted_key(target, keys):
    locked = target(identity_files=(str(keys["locked"]),), passphrase="open sesame")
    assert "sesame" not in repr(locked)
    with SshSession(locked) as session:
        assert session.run("echo in").stdout == b"in\n"


def test_a_key_of_the_agent_is_used_and_identities_only_leaves_it_alone(target, keys, tmp_path, monkeypatch):
    path = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        wait_until(path.exists, bool, limit_s=5, every_s=0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run(["ssh-add", "-q", str(keys["good"])], check=True, capture_output=True)
        with SshSession(target(identity_files=(), use_agent=True)) as session:
            assert session.run("echo by agent").stdout == b"by agent\n"
        config = tmp_path / "config"
        config.write_text("Host *\n  IdentitiesOnly yes\n")
        only = target(identity_files=(), use_agent=True, config_file=str(config))
        failure = failure_of(lambda: SshSession(only).run("true"))
        assert "tried nothing: no key, no agent, no password" in str(failure)
    finally:
        agent.terminate()
        agent.wait(5)


def test_a_connection_that_breaks_while_a_command_runs(server, session, target):
    session.run("true")
    with SshSession(target()) as bystander:
        bystander.run("true")
        threading.Timer(0.3, server.drop_connections).start()
        failure = failure_of(lambda: session.run("sleep 20", timeout_s=20))
        assert failure.kind is Kind.RESET
        assert "sleep 20" in str(failure)
        again = failure_of(lambda: bystander.run("true"))
        assert again.kind is Kind.RESET
    session.reconnect()
    assert session.run("echo back").stdout == b"back\n"
    assert session.connections == 2


def test_waiting_through_a_reboot(boot, target, known_hosts):
    host = boot("before")
    known_hosts.write_text(host.known_hosts_line)
    with SshSession(target(port=host.port)) as session:
        session.run("true")
        host.stop()
        assert failure_of(lambda: session.run("true")).kind is Kind.RESET
        assert failure_of(session.reconnect).kind is Kind.REFUSED
        timer = threading.Timer(0.3, boot, ("after", host.port, host.host_key))
        timer.start()

        def back():
            session.reconnect()
            return session.run("echo up").stdout

        through = {Kind.REFUSED, Kind.RESET, Kind.TIMEOUT}
        assert wait_until(back, lambda out: out == b"up\n", limit_s=10, every_s=0.05, through=through) == b"up\n"
        timer.join()


def test_ports_that_do_not_answer_as_ssh(target):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert failure_of(lambda: SshSession(target(port=port)).run("true")).kind is Kind.REFUSED
    name = target(host="no-such.invalid")
    assert failure_of(lambda: SshSession(name).run("true")).kind is Kind.DNS


@pytest.mark.parametrize(
    ("greeting", "kind"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n" + b"X-Line: 1\r\n" * 150, Kind.PROTOCOL),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Kind.RESET),
        (b"", Kind.RESET),
        (None, Kind.TIMEOUT),
    ],
)
def test_something_else_listens_there(target, greeting, kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = []

        def serve():
            peer, _ = listener.accept()
            kept.append(peer)
            if greeting is not None:
                peer.recv(100)
                peer.sendall(greeting)
                peer.close()

        threading.Thread(target=serve, daemon=True).start()
        session = SshSession(target(port=listener.getsockname()[1], connect_timeout_s=0.4))
        assert failure_of(lambda: session.run("true")).kind is kind
        for peer in kept:
            peer.close()


def test_nothing_of_paramiko_is_logged_above_our_heads(target, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG), pytest.raises(TransportFailure):
        SshSession(target(known_hosts=(str(tmp_path / "none"),))).run("true")
    assert "Traceback" not in caplog.text


def test_through_a_jump_host(server, target, session):
    with SshSession(target(jump=(target(), target()))) as jumped:
        assert jumped.run("head -c 3000000 /dev/zero", timeout_s=20).stdout == bytes(3_000_000)
        assert jumped.connections == 1
    closed = target(port=1, jump=(target(),))
    failure = failure_of(lambda: SshSession(closed).run("true"))
    assert failure.kind is Kind.REFUSED
    assert "the jump host cannot reach it" in str(failure)
