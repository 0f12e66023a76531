"""The Talos client over real Ed25519 mutual TLS: replies, streams, statuses told apart, and refused certificates."""

import contextlib
import socket
import ssl
import threading
import time
from datetime import timedelta

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from labproof.clients import talos_messages as m
from labproof.clients.errors import Kind, TransportFailure
from labproof.clients.talos import TalosSession, TalosTarget

from .certificates import Authority
from .talos_server import HANG, TalosServer, talosconfig

READER = ("os:reader",)


@pytest.fixture
def serve(talos_authority, tmp_path):
    started = []

    def start(**answers):
        started.append(TalosServer(talos_authority, tmp_path, answers))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def connect(talos_authority, tmp_path):
    sessions = []

    def open_session(port, client=None, *, node=None, timeout_s=10.0, authority=None, endpoint=None, **changes):
        issued = client or talos_authority.issue("suite", READER)
        path = talosconfig(tmp_path / "talosconfig", authority or talos_authority, issued, port=port, **changes)
        target = TalosTarget(str(path), endpoint=endpoint, node=node, timeout_s=timeout_s, retry_pause_s=0.01)
        sessions.append(TalosSession(target))
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.close()


def refuse(status, text):
    def answer(request):
        raise GRPCError(status, text)
        yield

    return answer


def failure_of(what):
    with pytest.raises(TransportFailure) as caught:
        what()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    assert "PRIVATE" not in str(caught.value)
    return caught.value


def test_unary_answers(serve, connect):
    version = m.Version(None, m.VersionInfo(tag="v1.11.6"), m.PlatformInfo("nocloud"), m.FeaturesInfo(True))
    event = m.ServiceEvent("Started task ext-nvidia-persistenced", "Running", m.Timestamp(1_760_000_000, 5))
    service = m.ServiceInfo("ext-nvidia-persistenced", "Running", m.ServiceEvents((event,)), m.ServiceHealth(True))
    server = serve(
        Version=lambda _: [m.VersionResponse((version,))],
        Hostname=lambda _: [m.HostnameResponse((m.Hostname(None, "moody"),))],
        SystemStat=lambda _: [m.SystemStatResponse((m.SystemStat(None, 1_760_000_001),))],
        ServiceList=lambda _: [m.ServiceListResponse((m.ServiceList(None, (service,)),))],
    )
    session = connect(server.port, node="10.0.0.5")
    assert session.version() == version
    assert session.hostname() == "moody"
    assert session.system_stat().boot_time == 1_760_000_001
    assert session.service_list() == (service,)
    assert {node for _, _, node, _ in server.asked} == {"10.0.0.5"}
    assert not any("nodes" in names for *_, names in server.asked)
    assert session.calls == 4
    assert len(server._server._handlers) == 1
    assert session.as_whom == "moody (os:reader)"
    assert session.roles == READER


def test_the_endpoint_itself_is_asked_without_a_node(serve, connect):
    server = serve(Hostname=lambda _: [m.HostnameResponse((m.Hostname(None, "w1"),))])
    assert connect(server.port, node="127.0.0.1").hostname() == "w1"
    assert connect(server.port).hostname() == "w1"
    assert [node for _, _, node, _ in server.asked] == [None, None]


def test_dmesg_is_one_record_a_message(serve, connect):
    good = b"kern:    info: [2025-12-18T12:01:05.483742866Z]: nvidia 0000:01:00.0: enabling device\n"
    lines = (good, b"no form at all \xff")
    server = serve(Dmesg=lambda _: [m.Data(None, line) for line in lines])
    first, second = connect(server.port).dmesg()
    assert (first.facility, first.priority, first.at) == ("kern", "info", "2025-12-18T12:01:05.483742866Z")
    assert first.text == "nvidia 0000:01:00.0: enabling device"
    assert second.facility is None
    assert second.raw == "no form at all \ufffd"


def test_list_streams_entries_with_go_modes(serve, connect):
    def entries(request):
        assert request == m.ListRequest("/dev")
        yield m.FileInfo(name="/dev", relative_name=".", mode=0x800001ED, is_dir=True)
        # c rw-rw-rw- as Go writes it, facts/talos.md 3.4
        yield m.FileInfo(name="/dev/nvidia0", relative_name="nvidia0", mode=69206454)
        yield m.FileInfo(name="/dev/dri", relative_name="dri", mode=0x800001ED, is_dir=True, size=80)
        yield m.FileInfo(name="/dev/l", relative_name="l", mode=0x80001FF, link="nvidia0", uid=1, gid=44)

    server = serve(List=entries)
    device, folder, link = connect(server.port).list_dir("/dev")
    assert (device.name, device.is_char_device, device.permissions) == ("nvidia0", True, 0o666)
    assert (folder.name, folder.is_dir, folder.size, folder.is_char_device) == ("dri", True, 80, False)
    assert (link.link, link.is_link, link.uid, link.gid) == ("nvidia0", True, 1, 44)


def test_a_deep_list_says_how_deep(serve, connect):
    server = serve(List=lambda _: [])
    assert connect(server.port).list_dir("/sys", depth=3) == ()
    assert server.asked[0][1] == m.ListRequest("/sys", True, 3)


def test_cosi_resources_keep_pci_addresses_as_text(serve, connect):
    text = "class_id: \"0x03\"\nvendor_id: '0x10de'\ndriver: nvidia\naddress: 0000:01:00.0\nn: 3\n"
    meta = m.CosiMetadata(
        "hardware",
        "PCIDevices.hardware.talos.dev",
        "0000:01:00.0",
        "2",
        "hardware.PCIDevicesController",
        "running",
        m.Timestamp(1_760_000_000),
        labels={"a": "b", "c": ""},
    )
    reply = m.CosiReply(m.CosiResource(meta, m.CosiSpec(text)))
    server = serve(CosiList=lambda _: [reply, reply], CosiGet=lambda _: [reply])
    session = connect(server.port)
    first, _ = session.cosi_list("hardware", "PCIDevices.hardware.talos.dev")
    assert first == session.cosi_get("hardware", "PCIDevices.hardware.talos.dev", "0000:01:00.0")
    assert (first.id, first.labels, first.created) == ("0000:01:00.0", {"a": "b", "c": ""}, "2025-10-09T08:53:20Z")
    assert first.spec["address"] == "0000:01:00.0"
    assert first.spec["n"] == 3
    assert server.asked[1][1] == m.CosiGetRequest("hardware", "PCIDevices.hardware.talos.dev", "0000:01:00.0")


def test_read_file_joins_the_pieces(serve, connect):
    server = serve(Read=lambda _: [m.Data(None, b"NVRM "), m.Data(None, b"version\n" * 200_000)])
    content = connect(server.port).read_file("/proc/driver/nvidia/version")
    assert len(content) == 5 + 8 * 200_000


@pytest.mark.parametrize(
    ("status", "text", "kind", "word"),
    [
        (Status.PERMISSION_DENIED, 'resource type "x" is not supported', Kind.UNSUPPORTED, "this Talos version"),
        (Status.PERMISSION_DENIED, "not authorized", Kind.FORBIDDEN, "role does not allow"),
        (Status.PERMISSION_DENIED, "no request forwarding", Kind.UNSUPPORTED, "worker"),
        (Status.NOT_FOUND, "resource doesn't exist", Kind.NOT_FOUND, "doesn't exist"),
        (Status.UNKNOWN, "lstat /x: no such file or directory", Kind.NOT_FOUND, "lstat"),
        (Status.UNKNOWN, "something odd", Kind.REJECTED, "odd"),
        (Status.INVALID_ARGUMENT, "one-2-many proxying is not supported", Kind.REJECTED, "one-2-many"),
        (Status.UNIMPLEMENTED, "unknown service", Kind.UNSUPPORTED, "unknown service"),
        (Status.UNAUTHENTICATED, "missing authentication", Kind.AUTH, "missing"),
        (Status.UNAVAILABLE, "dial tcp 10.0.0.9:50000: connect: connection refused", Kind.UNAVAILABLE, "10.0.0.9"),
        (Status.RESOURCE_EXHAUSTED, "too many", Kind.RATE_LIMITED, "too many"),
    ],
)
def test_statuses(serve, connect, status, text, kind, word):
    server = serve(CosiList=refuse(status, text))
    session = connect(server.port, node="10.0.0.9")
    failure = failure_of(lambda: session.cosi_list("runtime", "X.talos.dev"))
    assert (failure.kind, failure.answer, failure.reason) == (kind, text, status.name)
    assert word in str(failure)
    assert f"Talos API 127.0.0.1:{server.port} node 10.0.0.9 as moody (os:reader)" in str(failure)
    assert len(server.asked) == (3 if kind in (Kind.UNAVAILABLE, Kind.RATE_LIMITED) else 1)


def test_an_error_inside_an_ok_reply_is_a_failure(serve, connect):
    broken = m.Metadata("moody", "rpc error: node is down")
    server = serve(
        Hostname=lambda _: [m.HostnameResponse((m.Hostname(broken),))],
        Dmesg=lambda _: [m.Data(broken)],
        List=lambda _: [m.FileInfo(None, "/x", relative_name=".", error="lstat /x: no such file or directory")],
        Version=lambda _: [m.VersionResponse((m.Version(), m.Version()))],
    )
    session = connect(server.port)
    assert failure_of(session.hostname).kind is Kind.UNAVAILABLE
    assert failure_of(session.dmesg).kind is Kind.UNAVAILABLE
    assert failure_of(lambda: session.list_dir("/x")).kind is Kind.NOT_FOUND
    assert failure_of(session.version).kind is Kind.PROTOCOL


def test_a_deadline_is_kept(serve, connect):
    server = serve(Hostname=lambda _: [HANG], Dmesg=lambda _: [m.Data(None, b"x"), HANG])
    session = connect(server.port, timeout_s=0.3)
    started = time.monotonic()
    assert failure_of(session.hostname).kind is Kind.TIMEOUT
    assert failure_of(session.dmesg).kind is Kind.TIMEOUT
    assert time.monotonic() - started < 20


def test_a_connection_that_breaks_is_made_again_for_a_read(serve, connect):
    server = serve(Hostname=lambda _: [m.HostnameResponse((m.Hostname(None, "up"),))])
    session = connect(server.port)
    assert session.hostname() == "up"

    (before,) = server._server._handlers

    async def drop():
        for transport in list(server._loop._transports.values()):
            transport.abort()

    server._run(drop())
    assert session.hostname() == "up"
    assert before not in server._server._handlers or len(server._server._handlers) == 2


def test_the_next_endpoint_is_tried(serve, connect):
    server = serve(Hostname=lambda _: [m.HostnameResponse((m.Hostname(None, "cp2"),))])
    session = connect(server.port, endpoints=["127.0.0.1:1", f"127.0.0.1:{server.port}"], node="10.0.0.5")
    assert session.hostname() == "cp2"


def test_a_client_certificate_of_another_cluster_is_told_as_such(serve, connect):
    server = serve(Hostname=lambda _: [])
    stranger = Authority(edwards=True)
    failure = failure_of(connect(server.port, stranger.issue("suite", READER)).hostname)
    assert failure.kind is Kind.TLS
    assert "does not accept our client certificate" in str(failure)


def test_the_alert_of_a_server_that_sends_one_is_told(connect, talos_authority, tmp_path):
    """As Go's TLS does (asyncio's server above hangs up before its alert is out)."""
    issued = talos_authority.issue("node")
    pem = tmp_path / "node.pem"
    pem.write_bytes(issued.certificate + issued.key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    tls.load_verify_locations(cadata=talos_authority.pem.decode())
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.set_alpn_protocols(["h2"])
    told = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk(peer):
            with tls.wrap_socket(peer, server_side=True, do_handshake_on_connect=False) as secured:
                with contextlib.suppress(OSError):
                    secured.do_handshake()
                told.wait(5)  # hang up only when the alert has been read

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    threading.Thread(target=talk, args=(peer,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        stranger = Authority(edwards=True).issue("suite", READER)
        failure = failure_of(connect(listener.getsockname()[1], stranger, timeout_s=2).hostname)
        told.set()
    assert failure.kind is Kind.TLS
    assert "another CA issued it" in str(failure)


def test_a_server_of_another_ca_is_not_trusted(serve, connect):
    server = serve(Hostname=lambda _: [])
    failure = failure_of(connect(server.port, authority=Authority(edwards=True)).hostname)
    assert failure.kind is Kind.TLS
    assert "not trusted" in str(failure)
    assert not server.asked


def test_an_expired_certificate_is_told_with_its_date_before_contact(connect, talos_authority):
    expired = talos_authority.issue("suite", READER, lasts=timedelta(days=-3))
    failure = failure_of(lambda: connect(1, expired))
    assert failure.kind is Kind.AUTH
    assert "expired on 20" in str(failure)


def test_nothing_listens_and_nothing_answers(connect):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert failure_of(connect(free.getsockname()[1]).hostname).kind is Kind.REFUSED
    assert failure_of(connect(1, endpoint="no-such.invalid:5").hostname).kind is Kind.DNS
    with socket.create_server(("127.0.0.1", 0)) as silent:
        failure = failure_of(connect(silent.getsockname()[1], timeout_s=0.3).hostname)
        assert failure.kind is Kind.TIMEOUT


def test_plain_text_on_the_port(connect):
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
        assert failure_of(connect(listener.getsockname()[1]).hostname).kind is Kind.TLS


def test_threads_share_a_session(serve, connect):
    server = serve(Hostname=lambda _: [m.HostnameResponse((m.Hostname(None, "up"),))])
    session = connect(server.port)
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(session.hostname())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["up"] * 8
