"""--notify sends three lines, only when the verdict changed, only to the declared address; loopback here."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from labproof.report.delivery import deliver, refuse_early
from labproof.report.notify import NotNotified, changed, check_address, message, notify

from .made_runs import green, past_of, red


@pytest.fixture
def receiver():
    class Hook(BaseHTTPRequestHandler):
        status = 200

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            server.got.append((self.path, dict(self.headers), body))
            self.send_response(server.status)
            if server.status == 302:
                self.send_header("Location", f"http://127.0.0.1:{server.server_port}/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    server.got, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def before(run, status, broken=()):
    (entry,) = past_of(run, [1.0])
    return [{**entry, "exit_status": status, "first_broken": list(broken)}]


def test_what_counts_as_a_change():
    cause = {"chain": red()["first_broken"][0]["chain"], "clause": "X", "cause": "T10"}
    assert changed(green(), []) is False
    assert changed(red(), []) is True
    assert changed(red(), before(red(), 0)) is True
    assert changed(red(), before(red(), 1, [cause])) is False
    assert changed(red(), before(red(), 1, [{**cause, "cause": "P02"}])) is True
    assert changed(green(), before(green(), 1, [cause])) is True


def test_three_lines():
    run = red()
    assert message(run, before(run, 0)) == [
        "moody-good is red (was green)",
        "first broken: Talos, TALOS-A-001: T10 Title of T10",
        "1 fail, 3 blocked, 1 excepted, 1 pass; 2026-11-20T20:32 UTC",
    ]
    assert len(message(green(), [])) == 3
    run["simulated"] = True
    assert message(run, [])[0] == "SIMULATED lab moody-good is red"


def test_a_webhook_gets_json(receiver):
    assert notify(f"http://127.0.0.1:{receiver.server_port}/hook/secret", red(), []) == "notify: 127.0.0.1 told"
    ((path, headers, body),) = receiver.got
    assert (path, headers["Content-Type"]) == ("/hook/secret", "application/json")
    told = json.loads(body)
    assert told["text"] == told["content"] == "\n".join(message(red(), []))
    assert (told["verdict"], told["lab"]) == ("red", "moody-good")


def test_ntfy_gets_text_with_a_title(receiver):
    run = red()
    run["lab"] = "küche"
    notify(f"ntfy+http://127.0.0.1:{receiver.server_port}/gpu", run, [])
    ((path, headers, body),) = receiver.got
    assert (path, headers["Title"], headers["Priority"]) == ("/gpu", "k?che is red", "high")
    assert body == "\n".join(message(run, []))


def test_nothing_is_sent_when_nothing_changed(receiver):
    address = f"http://127.0.0.1:{receiver.server_port}/"
    assert "not told" in notify(address, green(), before(green(), 0))
    assert receiver.got == []


def test_a_redirect_is_not_followed(receiver):
    receiver.status = 302
    with pytest.raises(NotNotified, match="answered 302"):
        notify(f"http://127.0.0.1:{receiver.server_port}/hook", red(), [])
    assert [path for path, _, _ in receiver.got] == ["/hook"]


def test_no_error_gives_the_address_away(receiver):
    receiver.status = 500
    address = f"http://127.0.0.1:{receiver.server_port}/hook/s3cr3t?token=s3cr3t"
    with pytest.raises(NotNotified) as refused:
        notify(address, red(), [])
    receiver.server_close()
    for wrong in ("ftp://s3cr3t.invalid/s3cr3t", "http:///s3cr3t"):
        with pytest.raises(NotNotified) as bad:
            check_address(wrong)
        assert "s3cr3t" not in str(bad.value)
    assert "s3cr3t" not in str(refused.value)


def test_a_receiver_that_is_gone_does_not_end_the_run(receiver, tmp_path):
    port = receiver.server_port
    receiver.server_close()
    ((line, worked),) = deliver(tmp_path / "runs" / "one", red(), None, f"http://127.0.0.1:{port}/")
    assert worked is False
    assert "could not be reached" in line


def test_a_bad_declaration_is_refused_before_anything_runs(tmp_path):
    assert "no such folder" in refuse_early(tmp_path / "nowhere", None)
    assert "--notify" in refuse_early(None, "gopher://x")
    assert refuse_early(None, None) == ""
