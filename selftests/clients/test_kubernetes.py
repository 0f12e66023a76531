"""The Kubernetes client against a real HTTPS server: plain dicts, paging, refusals, and every transport fault."""

import json
import logging
import socket
import threading
import time
import traceback
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3

from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.kubernetes import KubeSession, KubeTarget, PodLog

from .https_server import Reply
from .kubeconfigs import TOKEN, inline, kubeconfig


@pytest.fixture
def connect(pve_authority, tmp_path):
    sessions = []

    def open_session(port, *, timeout_s=5.0, **more):
        path = kubeconfig(tmp_path / "kubeconfig", pve_authority, port, **more)
        sessions.append(KubeSession(KubeTarget(path, timeout_s=timeout_s, connect_timeout_s=2, retry_pause_s=0.01)))
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.close()


def status(code, reason, message, **more):
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return Reply.of(body, code, **more)


def failure_of(what):
    with pytest.raises(TransportFailure) as caught:
        what()
    failure = caught.value
    shown_with_locals = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert not any(secret in shown_with_locals for secret in (TOKEN,))
    assert failure.__suppress_context__ or failure.__context__ is None
    assert "\n" not in str(failure)
    assert TOKEN not in str(failure) + repr(failure)
    return failure


def query(asked):
    return {name: value[0] for name, value in parse_qs(urlsplit(asked.path).query).items()}


def test_an_object_is_a_plain_dict_whatever_is_in_it(https, connect):
    node = {"kind": "Node", "status": {"allocatable": {"nvidia.com/gpu": "4"}}, "brandNewField": [None, 1]}
    server = https(Reply.of(node))
    session = connect(server.port)
    assert session.get_json("/api/v1/nodes/moody", pretty=None) == node
    assert server.asked[0].path == "/api/v1/nodes/moody"
    assert server.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert session.requests == 1
    assert session.as_whom == "suite@lab (context moody)"
    assert session.context.namespace == "media"


def test_a_list_is_read_page_by_page(https, connect):
    def answer(asked):
        start = int(query(asked).get("continue", 0))
        meta = {"continue": str(start + 2)} if start < 4 else {}
        return Reply.of({"kind": "PodList", "metadata": meta, "items": [start, start + 1]})

    server = https(answer)
    session = connect(server.port)
    found = session.list_json("/api/v1/pods", page=2, labelSelector="a=b,c!=d")
    assert found["items"] == [0, 1, 2, 3, 4, 5]
    assert found["kind"] == "PodList"
    assert query(server.asked[2]) == {"limit": "2", "continue": "4", "labelSelector": "a=b,c!=d"}


def test_a_list_whose_place_was_forgotten_is_begun_anew(https, connect):
    gone = status(410, "Expired", "The provided continue parameter is too old")
    more = Reply.of({"metadata": {"continue": "x"}, "items": [1]})
    last = Reply.of({"metadata": {}, "items": [2]})
    replies = iter([more, gone, more, last])
    session = connect(https(lambda asked: next(replies)).port)
    assert session.list_json("/api/v1/pods")["items"] == [1, 2]
    always = connect(https(gone).port)
    failure = failure_of(lambda: always.list_json("/api/v1/pods"))
    assert (failure.kind, failure.status, always.requests) == (Kind.UNAVAILABLE, 410, 3)


def test_writes_say_what_they_are(https, connect):
    server = https(Reply.of({"ok": True}))
    session = connect(server.port)
    pod = {"spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": 1}}}]}}
    session.create("/api/v1/namespaces/media/pods", pod, dry_run=True)
    session.apply("/api/v1/namespaces/media/pods/p", pod, force=True)
    session.merge_patch("/api/v1/nodes/moody", {"metadata": {"labels": {"x": None}}})
    session.delete("/api/v1/namespaces/media/pods/p", grace_s=0, uid="u-1")
    create, apply, merge, delete = server.asked
    assert (create.method, query(create), json.loads(create.body)) == ("POST", {"dryRun": "All"}, pod)
    assert apply.headers["content-type"] == "application/apply-patch+yaml"
    assert (apply.method, query(apply)) == ("PATCH", {"fieldManager": "labproof", "force": "true"})
    assert merge.headers["content-type"] == "application/merge-patch+json"
    assert json.loads(merge.body) == {"metadata": {"labels": {"x": None}}}
    options = json.loads(delete.body)
    assert (delete.method, options["gracePeriodSeconds"], options["preconditions"]) == ("DELETE", 0, {"uid": "u-1"})


@pytest.mark.parametrize(
    ("code", "reason", "message", "kind", "asked"),
    [
        (400, "BadRequest", "bad", Kind.REJECTED, 1),
        (401, "Unauthorized", "Unauthorized", Kind.AUTH, 1),
        (403, "Forbidden", 'pods is forbidden: User "suite" cannot list resource "pods"', Kind.FORBIDDEN, 1),
        (404, "NotFound", 'pods "nopod" not found', Kind.NOT_FOUND, 1),
        (409, "AlreadyExists", 'pods "p" already exists', Kind.REJECTED, 1),
        (422, "Invalid", "must be an integer", Kind.REJECTED, 1),
        (429, "TooManyRequests", "slow down", Kind.RATE_LIMITED, 3),
        (500, "InternalError", "etcdserver: request timed out", Kind.UNAVAILABLE, 3),
        (503, "ServiceUnavailable", "the server is currently unable to handle the request", Kind.UNAVAILABLE, 3),
    ],
)
def test_refusals(https, connect, code, reason, message, kind, asked):
    server = https(status(code, reason, message))
    session = connect(server.port)
    failure = failure_of(lambda: session.get_json("/api/v1/pods"))
    assert (failure.kind, failure.status, failure.reason, failure.answer) == (kind, code, reason, message)
    assert f"Kubernetes API https://127.0.0.1:{server.port} as suite@lab (context moody): " in str(failure)
    assert len(server.asked) == session.requests == asked
    before = len(server.asked)
    failure_of(lambda: session.create("/api/v1/pods", {}))
    assert len(server.asked) == before + 1, "a write was sent twice"


def test_retry_after_is_kept(https, connect):
    replies = iter([status(429, "TooManyRequests", "x", headers={"retry-after": "1"}), Reply.of({"a": 1})])
    started = time.monotonic()
    assert connect(https(lambda asked: next(replies)).port).get_json("/x") == {"a": 1}
    assert 1 <= time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply(body=b"<html>login</html>", content_type="text/html"), Kind.PROTOCOL, "not JSON (18 bytes)"),
        (Reply.of(["a", "list"]), Kind.PROTOCOL, "no object"),
        (Reply(body=b'{"items": ['), Kind.PROTOCOL, "not JSON"),
        (Reply(body=b'{"items": [', length=900), Kind.RESET, "half-way"),
        (Reply(reset=True), Kind.RESET, "broke"),
        (Reply(status=302, headers={"location": "https://evil.example/"}), Kind.PROTOCOL, "login page"),
        (Reply(status=502, body=b"<html>" + b"x" * 9000), Kind.UNAVAILABLE, "502"),
    ],
)
def test_answers_that_are_none(https, connect, reply, kind, text):
    server = https(reply)
    failure = failure_of(lambda: connect(server.port).get_json("/api/v1/nodes"))
    assert failure.kind is kind
    assert text in str(failure)
    assert len(str(failure)) < 400
    assert len(server.asked) == (3 if kind in (Kind.RESET, Kind.UNAVAILABLE) else 1)


def test_a_slow_answer_costs_the_timeout(https, connect):
    stop = threading.Event()
    server = https(Reply.of({}, wait=stop))
    started = time.monotonic()
    failure = failure_of(lambda: connect(server.port, timeout_s=0.3).get_json("/x"))
    stop.set()
    assert failure.kind is Kind.TIMEOUT
    assert time.monotonic() - started < 20


def test_chunked_answers(https, connect):
    chunks = (b'{"items": [', b'"x' + b"x" * 200_000, b'"]}')
    server = https(Reply(chunks=chunks))
    session = connect(server.port)
    assert session.get_json("/x") == {"items": ["x" + "x" * 200_000]}
    assert session.get_json("/x")
    broken = connect(https(Reply(chunks=(b'{"a":', None))).port)
    assert failure_of(lambda: broken.get_json("/x")).kind is Kind.RESET


def test_a_server_that_trickles_is_cut_off(https, connect):
    server = https(Reply(chunks=(b" ",) * 1000, pause=0.05))
    started = time.monotonic()
    failure = failure_of(lambda: connect(server.port, timeout_s=0.4).get_json("/x"))
    assert failure.kind is Kind.TIMEOUT
    assert time.monotonic() - started < 20


def test_nothing_listens_wrong_ca_and_no_such_name(https, connect, talos_authority, pve_authority):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        session = connect(free.getsockname()[1])
        assert failure_of(lambda: session.get_json("/version")).kind is Kind.REFUSED
        assert session.requests == 3
    unknown = connect(1, server="https://no-such.invalid")
    assert failure_of(lambda: unknown.get_json("/version")).kind is Kind.DNS
    server = https(Reply.of({}))
    data = {"certificate-authority-data": inline(talos_authority.pem)}
    failure = failure_of(lambda: connect(server.port, **data).get_json("/version"))
    assert failure.kind is Kind.TLS
    assert not server.asked
    skipping = {"insecure-skip-tls-verify": True, "certificate-authority-data": None}
    with pytest.warns(urllib3.exceptions.InsecureRequestWarning):
        assert connect(server.port, **skipping).get_json("/version") == {}


def test_logs_are_bytes_or_a_reason(https, connect):
    body = b'{"streams": [1]}\n\xff'
    server = https(Reply(body=body, content_type="text/plain"))
    found = connect(server.port).log("media", "enc", "main", previous=True, tail_lines=5)
    assert found == PodLog(body, None)
    assert query(server.asked[0]) == {"container": "main", "previous": "true", "tailLines": "5"}
    assert connect(https(Reply(body=b"")).port).log("media", "pend") == PodLog(b"", None)
    waiting = 'container "main" in pod "wt" is waiting to start: ErrImageNeverPull'
    assert connect(https(status(400, "BadRequest", waiting)).port).log("d", "wt") == PodLog(None, waiting)
    dead = 'Get "https://10.0.0.5:10250/containerLogs/d/k/m": dial tcp 10.0.0.5:10250: connect: connection refused'
    assert connect(https(status(500, "InternalError", dead)).port).log("d", "k") == PodLog(None, dead)
    forbidden = connect(https(status(403, "Forbidden", "no")).port)
    assert failure_of(lambda: forbidden.log("d", "k")).kind is Kind.FORBIDDEN


def test_reviews(https, connect):
    def answer(asked):
        if asked.path.endswith("selfsubjectreviews"):
            return Reply.of({"status": {"userInfo": {"username": "system:serviceaccount:lab:suite"}}}, 201)
        wanted = json.loads(asked.body)["spec"]["resourceAttributes"]
        return Reply.of({"status": {"allowed": wanted["verb"] == "get"}}, 201)

    server = https(answer)
    session = connect(server.port)
    assert session.whoami() == "system:serviceaccount:lab:suite"
    assert session.can_i("get", "", "pods", "exec", "media")
    assert not session.can_i("create", "", "pods")
    wanted = {"verb": "get", "group": "", "resource": "pods", "subresource": "exec", "namespace": "media"}
    assert json.loads(server.asked[1].body)["spec"]["resourceAttributes"] == wanted
    assert connect(https(status(404, "NotFound", "no such path")).port).whoami() == "suite@lab (context moody)"


def test_threads_share_a_session(https, connect):
    server = https(lambda asked: Reply.of({"path": asked.path}))
    session = connect(server.port)
    seen = []
    threads = [threading.Thread(target=lambda n=n: seen.append(session.get_json(f"/{n}")["path"])) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted(f"/{n}" for n in range(12))
    assert session.requests == 12


def test_certificates_are_gone_after_close_and_nothing_is_logged(https, connect, pve_authority, caplog):
    client = pve_authority.issue("suite")
    user = {"client-certificate-data": inline(client.certificate), "client-key-data": inline(client.key)}
    with caplog.at_level(logging.DEBUG):
        first = connect(https(Reply.of({})).port, user=user)
        second = connect(https(Reply.of({})).port, user=user)
        folder = Path(first.context.folder.name)
        assert {path.name for path in folder.iterdir()} == {
            "certificate-authority",
            "client-certificate",
            "client-key",
        }
        assert folder.stat().st_mode & 0o077 == 0
        first.get_json("/version")
        first.close()
        assert not folder.exists()
        # the same certificates elsewhere are not touched (the official loader shares such files)
        assert second.get_json("/version") == {}
    assert TOKEN not in caplog.text
