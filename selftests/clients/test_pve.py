"""The PVE client against a real HTTPS server with a CA like PVE's: answers, credentials, every transport fault."""

import logging
import socket
import ssl
import threading
import traceback
import warnings
from urllib.parse import parse_qs

import pytest
import requests

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.pve import PveSession, PveTarget, PveTls

from .https_server import Reply

TOKEN = "0b1c2d3e-secret-token-value"
PASSWORD = "pass-that-must-not-show"


@pytest.fixture
def ca_file(pve_authority, tmp_path):
    path = tmp_path / "pve-root-ca.pem"
    path.write_bytes(pve_authority.pem)
    return str(path)


@pytest.fixture
def by_token(ca_file):
    sessions = []

    def open_session(port, **more):
        settings = {"token_name": "ro", "token_value": TOKEN, "ca_file": ca_file, "retry_pause_s": 0.01, **more}
        sessions.append(PveSession(PveTarget("127.0.0.1", "suite@pve", port, **settings)))
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.close()


def failure_of(session, path="/version"):
    with pytest.raises(TransportFailure) as caught:
        session.get(path)
    failure = caught.value
    shown_with_locals = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert not any(secret in shown_with_locals for secret in (TOKEN, PASSWORD))
    assert failure.__suppress_context__ or failure.__context__ is None, "a library's traceback would be shown"
    assert "\n" not in str(failure)
    assert str(session.target.port) in str(failure)
    for secret in (TOKEN, PASSWORD):
        assert secret not in str(failure) + repr(failure) + repr(session) + repr(session.target)
    return failure


def test_data_of_an_answer_and_the_token_header(https, by_token):
    server = https(Reply.of({"data": {"version": "9.2.11"}, "added-later": 1}))
    session = by_token(server.port)
    assert session.get("/version") == {"version": "9.2.11"}
    assert session.get("nodes/pve5/hardware/pci", **{"pci-class-blacklist": "", "verbose": None}) == {
        "version": "9.2.11"
    }
    assert server.asked[0].headers["authorization"] == f"PVEAPIToken=suite@pve!ro={TOKEN}"
    assert server.asked[1].path == "/api2/json/nodes/pve5/hardware/pci?pci-class-blacklist="
    assert session.requests == 2
    assert session.as_whom == "suite@pve!ro"


def test_a_ticket_is_asked_over_the_same_tls_and_used(https, ca_file):
    def answer(asked):
        if asked.path.endswith("/access/ticket"):
            assert parse_qs(asked.body.decode()) == {"username": ["root@pam"], "password": [PASSWORD]}
            return Reply.of({"data": {"ticket": "PVE:root@pam:T", "CSRFPreventionToken": "csrf"}})
        assert asked.headers["cookie"] == "PVEAuthCookie=PVE:root@pam:T"
        assert asked.headers.get("csrfpreventiontoken") == (None if asked.method == "GET" else "csrf")
        return Reply.of({"data": asked.method})

    server = https(answer)
    with PveSession(
        PveTarget("127.0.0.1", "root@pam", server.port, password=PASSWORD, ca_file=ca_file, retry_pause_s=0.01)
    ) as pve:
        assert pve.get("/version") == "GET"
        assert pve.put("/nodes/pve5/qemu/105/config", onboot=1) == "PUT"
        assert pve.post("/nodes/pve5/qemu/105/status/start") == "POST"
        assert pve.delete("/cluster/mapping/pci/gpu") == "DELETE"
        assert pve.requests == 5


def test_a_refused_password_and_a_second_factor_are_told(https, ca_file):
    def session(server):
        return PveSession(
            PveTarget("127.0.0.1", "root@pam", server.port, password=PASSWORD, ca_file=ca_file, retry_pause_s=0.01)
        )

    refused = failure_of(session(https(Reply.of({"data": None}, 401, reason="authentication failure"))))
    assert refused.kind is Kind.AUTH
    assert "as root@pam: 401 authentication failure" in str(refused)
    wanted = {"data": {"ticket": "PVE:!tfa!", "CSRFPreventionToken": "c", "NeedTFA": 1}}
    second = failure_of(session(https(Reply.of(wanted))))
    assert second.kind is Kind.UNSUPPORTED
    assert "API token" in str(second)


@pytest.mark.parametrize(
    ("status", "reason", "kind", "asked"),
    [
        (401, "invalid token value!", Kind.AUTH, 1),
        (403, "Permission check failed (/vms/1105, VM.Audit)", Kind.FORBIDDEN, 1),
        (400, "Parameter verification failed.", Kind.REJECTED, 1),
        (404, "Not Found", Kind.NOT_FOUND, 1),
        (429, "Too Many Requests", Kind.RATE_LIMITED, 3),
        (500, "got timeout", Kind.UNAVAILABLE, 3),
        (500, "Configuration file 'nodes/pve5/qemu-server/9.conf' does not exist", Kind.NOT_FOUND, 1),
        (501, "Method 'GET /x' not implemented", Kind.UNSUPPORTED, 1),
        (503, "Service Unavailable", Kind.UNAVAILABLE, 3),
        (595, "Connection refused", Kind.UNAVAILABLE, 3),
    ],
)
def test_http_statuses(https, by_token, status, reason, kind, asked):
    server = https(Reply.of({"data": None, "errors": {"vmid": "bad"}}, status, reason=reason))
    session = by_token(server.port)
    failure = failure_of(session)
    assert (failure.kind, failure.status) == (kind, status)
    assert f"as suite@pve!ro: {status} {reason}" in str(failure)
    assert len(server.asked) == session.requests == asked


def test_a_server_that_echoes_the_token_does_not_spread_it(https, by_token):
    server = https(Reply.of({"data": None}, 401, reason=f"no such token {TOKEN}"))
    assert "no such token ***" in str(failure_of(by_token(server.port)))


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply(body=b"<html>login</html>", content_type="text/html"), Kind.PROTOCOL, "not JSON (text/html, 18 bytes)"),
        (Reply.of(["no", "envelope"]), Kind.PROTOCOL, 'no "data"'),
        (Reply.of({"nodata": 1}), Kind.PROTOCOL, 'no "data"'),
        (Reply(body=b'{"data": [1, 2'), Kind.PROTOCOL, "not JSON"),
        (Reply(body=b'{"data": [1, 2', length=400), Kind.RESET, "half-way"),
        (Reply(body=b""), Kind.PROTOCOL, "not JSON"),
        (Reply(reset=True), Kind.RESET, "broke the connection"),
        (Reply(body=b'{"data": [', length=400, reset=True), Kind.RESET, "the"),
    ],
)
def test_answers_that_are_none(https, by_token, reply, kind, text):
    server = https(reply)
    failure = failure_of(by_token(server.port))
    assert failure.kind is kind
    assert text in str(failure)
    assert len(server.asked) == (3 if kind is Kind.RESET else 1)


def test_a_write_is_never_sent_twice(https, by_token):
    server = https(Reply(status=503))
    with pytest.raises(TransportFailure) as caught:
        by_token(server.port).post("/nodes/pve5/qemu/105/status/start")
    assert caught.value.kind is Kind.UNAVAILABLE
    assert len(server.asked) == 1


def test_a_slow_server_costs_the_timeout_and_no_more(https, by_token):
    stop = threading.Event()
    server = https(Reply.of({"data": 1}, wait=stop))
    failure = failure_of(by_token(server.port, timeout_s=0.3, short_timeout=True))
    stop.set()
    assert failure.kind is Kind.TIMEOUT
    assert "0.3 s" in str(failure)
    assert len(server.asked) == 1
    assert PveTarget("h", "u", timeout_s=5).read_timeout_s == 30


def test_nothing_listens(by_token):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert failure_of(by_token(port)).kind is Kind.REFUSED


def test_a_name_that_does_not_resolve(ca_file):
    session = PveSession(PveTarget("no-such.invalid", "u@pve", token_name="t", token_value=TOKEN, ca_file=ca_file))
    failure = failure_of(session)
    assert failure.kind is Kind.DNS
    assert "'no-such.invalid'" in str(failure)


def test_a_server_of_another_ca_is_refused(https, by_token, talos_authority, tmp_path):
    other = tmp_path / "other.pem"
    other.write_bytes(talos_authority.pem)
    server = https(Reply.of({"data": 1}))
    assert failure_of(by_token(server.port, ca_file=str(other))).kind is Kind.TLS
    assert failure_of(by_token(server.port, ca_file=None)).kind is Kind.TLS
    assert not server.asked


def test_the_ca_is_one_that_strict_python_refuses_and_our_context_is_the_one_that_judges(
    https, by_token, pve_authority, tmp_path
):
    """Python 3.13 sets VERIFY_X509_STRICT by itself; set by hand, any Python shows what it does to PVE's CA."""
    path = tmp_path / "ca.pem"
    path.write_bytes(pve_authority.pem)
    server = https(Reply.of({"data": 1}))
    strict = ssl.create_default_context(cafile=str(path))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    lenient = ssl.create_default_context(cafile=str(path))
    lenient.verify_flags &= ~ssl.VERIFY_X509_STRICT
    url = f"https://127.0.0.1:{server.port}/"
    with requests.Session() as session:
        session.mount("https://", PveTls(strict))
        with pytest.raises(requests.exceptions.SSLError, match="key usage"):
            session.get(url, verify=str(path), timeout=5)
        session.mount("https://", PveTls(lenient))
        assert session.get(url, verify=str(path), timeout=5).json() == {"data": 1}
    ours = by_token(server.port)
    assert ours.get("/version") == 1
    judge = ours._session.get_adapter(url)._context
    assert not judge.verify_flags & ssl.VERIFY_X509_STRICT
    assert judge.check_hostname


def test_plain_text_on_the_port_is_told_as_tls(by_token):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk():
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(100)
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=talk, daemon=True).start()
        failure = failure_of(by_token(listener.getsockname()[1]))
        assert failure.kind is Kind.TLS
        assert "does not speak TLS" in str(failure)


@pytest.mark.parametrize("content", [None, b"no PEM at all"])
def test_a_ca_file_that_cannot_be_used(by_token, tmp_path, content):
    path = tmp_path / "broken.pem"
    if content is not None:
        path.write_bytes(content)
    failure = failure_of(by_token(1, ca_file=str(path)))
    assert failure.kind is Kind.UNSUPPORTED
    assert str(path) in str(failure)


def test_no_credential_is_told_before_anything_is_contacted():
    failure = failure_of(PveSession(PveTarget("192.0.2.1", "u@pve")))
    assert failure.kind is Kind.UNSUPPORTED


def test_importing_the_client_leaves_warnings_and_logging_alone(https, by_token, caplog):
    import urllib3

    assert not any(
        action == "ignore" and issubclass(urllib3.exceptions.InsecureRequestWarning, category)
        for action, _, category, _, _ in warnings.filters
    )
    server = https(Reply.of({"data": 1}))
    with caplog.at_level(logging.DEBUG):
        by_token(server.port).get("/version")
    assert TOKEN not in caplog.text
