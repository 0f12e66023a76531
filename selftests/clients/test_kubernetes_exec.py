"""Exec over a real WebSocket: exit codes, commands that cannot start, handshakes refused, connections that break."""

import asyncio
import json
import socket
import threading
import time
import traceback

import pytest

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.kubernetes import KubeSession, KubeTarget
from labproof.clients.kubernetes_exec import ending

from .exec_server import STATUS, STDERR, STDOUT, ExecServer, exited, success, until_closed
from .kubeconfigs import TOKEN, kubeconfig


@pytest.fixture
def serve(pve_authority, tmp_path):
    opened = []

    def start(play=None, refuse=None):
        server = ExecServer(pve_authority.issue("server"), tmp_path, play, refuse)
        path = kubeconfig(tmp_path / "kubeconfig", pve_authority, server.port)
        session = KubeSession(KubeTarget(path, connect_timeout_s=2))
        opened.extend((session, server))
        return server, session

    yield start
    for thing in opened:
        thing.close()


def frames(*parts):
    async def play(link, request):
        for part in parts:
            await link.send_bytes(part)
        await link.close()

    return play


def failure_of(what):
    with pytest.raises(TransportFailure) as caught:
        what()
    shown_with_locals = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert not any(secret in shown_with_locals for secret in (TOKEN,))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert TOKEN not in str(caught.value)
    return caught.value


def test_both_streams_and_the_exit_code(serve):
    parts = (STDOUT, STDERR, STDOUT + b"Tesla ", STDERR + b"warn", STDOUT + b"T4\xff\n", success())
    server, session = serve(frames(*parts))
    result = session.exec("media", "jellyfin", ["nvidia-smi", "-L", "a b&c"], "main")
    assert (result.exit_code, result.stdout, result.stderr, result.failure) == (0, b"Tesla T4\xff\n", b"warn", None)
    (asked,) = server.asked
    assert asked.query.getall("command") == ["nvidia-smi", "-L", "a b&c"]
    assert (asked.query["container"], asked.query["stdout"], asked.query["stderr"]) == ("main", "true", "true")
    assert asked.headers["sec-websocket-protocol"] == "v4.channel.k8s.io"
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert session.requests == 1


@pytest.mark.parametrize("code", [1, 7, 137])
def test_other_exit_codes(serve, code):
    _, session = serve(frames(STDOUT + b"x", exited(code)))
    result = session.exec("d", "p", ["false"])
    assert (result.exit_code, result.failure, result.kind) == (code, None, None)


def test_a_command_that_cannot_start_is_told_in_the_servers_words(serve):
    message = 'Internal error occurred: exec: "nvidia-smi": executable file not found in $PATH'
    status = {"status": "Failure", "reason": "InternalError", "message": message, "code": 500}
    status["details"] = {"causes": [{"message": "exec failed"}]}
    _, session = serve(frames(STATUS + json.dumps(status).encode()))
    result = session.exec("d", "p", ["nvidia-smi"])
    assert (result.exit_code, result.failure, result.kind) == (None, message, Kind.REJECTED)


def test_megabytes_in_many_frames(serve):
    parts = [STDOUT + b"x" * 32_000] * 150 + [STDERR + b"y" * 32_000] * 50
    _, session = serve(frames(*parts, success()))
    result = session.exec("d", "p", ["cat"])
    assert (len(result.stdout), len(result.stderr), result.exit_code) == (4_800_000, 1_600_000, 0)


@pytest.mark.parametrize(
    ("status", "body", "kind", "answer"),
    [
        (400, "pod pend does not have a host assigned", Kind.REJECTED, None),
        (403, 'pods "p" is forbidden: cannot create resource "pods/exec"', Kind.FORBIDDEN, None),
        (404, 'pods "nopod" not found', Kind.NOT_FOUND, None),
        (500, "error dialing backend: dial tcp 10.0.0.5:10250: connect: connection refused", Kind.UNAVAILABLE, None),
        (401, "Unauthorized", Kind.AUTH, None),
        (500, None, Kind.NOT_FOUND, 'container not found ("main")'),
    ],
)
def test_handshakes_refused(serve, status, body, kind, answer):
    text = answer or json.dumps({"kind": "Status", "status": "Failure", "message": body, "code": status})
    _, session = serve(refuse=(status, text))
    failure = failure_of(lambda: session.exec("d", "p", ["true"]))
    assert (failure.kind, failure.status, failure.answer) == (kind, status, body or answer)
    assert "exec in d/p" in str(failure)


def test_a_command_that_does_not_end_keeps_what_it_said(serve):
    async def play(link, request):
        await link.send_bytes(STDERR + b"frame= 100")
        await until_closed(link)

    _, session = serve(play)
    started = time.monotonic()
    result = session.exec("d", "p", ["ffmpeg"], timeout_s=0.4)
    assert (result.exit_code, result.stderr, result.kind) == (None, b"frame= 100", Kind.TIMEOUT)
    assert "0.4 s" in result.failure
    assert 0.3 < time.monotonic() - started < 20


def test_a_connection_that_breaks_keeps_what_it_said(serve):
    async def play(link, request):
        await link.send_bytes(STDOUT + b"half")
        await asyncio.sleep(0.05)
        request.transport.abort()

    _, session = serve(play)
    result = session.exec("d", "p", ["cat"])
    assert (result.exit_code, result.stdout, result.kind) == (None, b"half", Kind.RESET)


def test_a_stream_closed_without_a_status_is_no_success(serve):
    _, session = serve(frames(STDOUT + b"x"))
    result = session.exec("d", "p", ["true"])
    assert (result.exit_code, result.kind) == (None, Kind.RESET)


def test_exec_and_reads_at_once_from_threads(serve):
    _, session = serve(frames(STDOUT + b"ok", success()))
    seen = []

    def work(number):
        for _ in range(5):
            if number % 2:
                seen.append(session.exec("d", "p", ["true"]).exit_code)
            else:
                seen.append(len(session.list_json("/api/v1/nodes")["items"]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [0] * 30


def test_no_stream_comes_about(pve_authority, tmp_path):
    def session(port):
        path = kubeconfig(tmp_path / "kubeconfig", pve_authority, port)
        return KubeSession(KubeTarget(path, timeout_s=0.4))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with session(free.getsockname()[1]) as refused:
            assert failure_of(lambda: refused.exec("d", "p", ["true"])).kind is Kind.REFUSED
    with socket.create_server(("127.0.0.1", 0)) as silent, session(silent.getsockname()[1]) as waiting:
        failure = failure_of(lambda: waiting.exec("d", "p", ["true"]))
        assert failure.kind is Kind.TIMEOUT
        assert "0.4 s" in str(failure)


def test_exec_goes_through_the_proxy_of_the_kubeconfig_and_no_other(pve_authority, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        said = []

        def serve():
            peer, _ = proxy.accept()
            with peer:
                said.append(peer.recv(4096))
                peer.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        path = kubeconfig(
            tmp_path / "kubeconfig", pve_authority, 6443, server="https://192.0.2.1:6443", **{"proxy-url": address}
        )
        with KubeSession(KubeTarget(path, timeout_s=2)) as session:
            failure_of(lambda: session.exec("d", "p", ["true"]))
        assert said[0].startswith(b"CONNECT 192.0.2.1:6443 ")
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.9:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        path = kubeconfig(tmp_path / "kubeconfig", pve_authority, free.getsockname()[1])
        with KubeSession(KubeTarget(path, timeout_s=2)) as session:
            assert failure_of(lambda: session.exec("d", "p", ["true"])).kind is Kind.REFUSED


@pytest.mark.parametrize("status", [b"", b"not JSON", b"[]", b'"x"', b'{"status": 3}', b"null"])
def test_an_end_told_strangely_is_no_exit_code(status):
    code, failure = ending(status)
    assert code is None
    assert failure
