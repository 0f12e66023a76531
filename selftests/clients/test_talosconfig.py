"""Every way a talosconfig can be wrong has its own words, and none of them shows the key."""

import base64
from datetime import timedelta

import pytest

from labproof.clients import plain_yaml, talosconfig
from labproof.clients.errors import Kind, TransportFailure

from .certificates import talos_key
from .talos_server import talosconfig as write


@pytest.fixture
def client(talos_authority):
    return talos_authority.issue("suite", ("os:reader", "os:etcd:backup"))


@pytest.fixture
def written(talos_authority, client, tmp_path):
    def make(**changes):
        return str(write(tmp_path / "talosconfig", talos_authority, client, port=50000, **changes))

    return make


def failure_of(path, context=None):
    with pytest.raises(TransportFailure) as caught:
        talosconfig.tls_context(talosconfig.load(path, context))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "PRIVATE KEY" not in str(caught.value)
    return caught.value


def test_a_talosconfig_as_talosctl_writes_it(written, client):
    found = talosconfig.load(written(nodes=["10.0.0.5"], endpoints=["10.0.0.5", "cp:6000", "[2001:db8::1]:7"]))
    assert found.endpoints == (("10.0.0.5", 50000), ("cp", 6000), ("2001:db8::1", 7))
    assert (found.name, found.nodes, found.roles) == ("moody", ("10.0.0.5",), ("os:reader", "os:etcd:backup"))
    assert found.key_pem == client.key
    assert client.key.decode().splitlines()[1] not in repr(found)
    assert talosconfig.tls_context(found)
    assert talosconfig.load(written(), "moody-admin").name == "moody-admin"


def test_the_key_is_really_in_talos_spelling(client):
    spelled = talos_key(client.key)
    assert spelled.startswith(b"-----BEGIN ED25519 PRIVATE KEY-----")
    assert talosconfig.as_openssl_reads(spelled) == client.key


@pytest.mark.parametrize(
    ("changes", "kind", "word"),
    [
        ({"crt": None, "key": None, "auth": {"siderov1": {"identity": "me"}}}, Kind.UNSUPPORTED, "Omni"),
        ({"crt": None}, Kind.UNSUPPORTED, "it has no crt;"),
        ({"crt": None, "key": None}, Kind.UNSUPPORTED, "it has no crt and no key;"),
        ({"key": "not base64!"}, Kind.UNSUPPORTED, "its key is not base64"),
        ({"crt": base64.b64encode(b"hello").decode()}, Kind.UNSUPPORTED, "its crt is not PEM"),
        ({"crt": base64.b64encode(b"-----BEGIN X-----").decode()}, Kind.UNSUPPORTED, "not a certificate"),
        ({"key": base64.b64encode(b"-----BEGIN X-----").decode()}, Kind.UNSUPPORTED, "its key cannot be used"),
        ({"ca": base64.b64encode(b"-----BEGIN X-----").decode()}, Kind.UNSUPPORTED, "its ca cannot be read"),
        ({"proxy-url": "socks5://x"}, Kind.UNSUPPORTED, "proxy"),
    ],
)
def test_what_a_context_may_lack(written, changes, kind, word):
    failure = failure_of(written(**changes))
    assert failure.kind is kind
    assert word in str(failure)
    assert "context moody" in str(failure)


def test_a_key_of_another_certificate(written, talos_authority):
    other = talos_authority.issue("other")
    failure = failure_of(written(key=base64.b64encode(talos_key(other.key)).decode()))
    assert (failure.kind, "KEY_VALUES_MISMATCH" in str(failure)) == (Kind.UNSUPPORTED, True)


def test_expired_and_not_yet_valid(written, talos_authority):
    expired = talos_authority.issue("x", lasts=timedelta(days=-2))
    failure = failure_of(written(crt=base64.b64encode(expired.certificate).decode()))
    assert failure.kind is Kind.AUTH
    found = talosconfig.load(written())
    with pytest.raises(TransportFailure, match="check this machine's clock"):
        talosconfig.load(written(), now=found.expires - timedelta(days=900))


@pytest.mark.parametrize(
    ("text", "kind", "word"),
    [
        ("a: [", Kind.PROTOCOL, "not YAML"),
        ("just text", Kind.PROTOCOL, "not a talosconfig"),
        ("contexts: {}", Kind.PROTOCOL, "empty"),
        ("clusters: []\ncontexts: []", Kind.PROTOCOL, "looks like a kubeconfig"),
        ("contexts: {a: {}, b: {}}", Kind.NOT_FOUND, "name one of a, b"),
        ("context: moodi\ncontexts: {moody: {}}", Kind.NOT_FOUND, "did you mean 'moody'?"),
        ("context: zzz\ncontexts: {moody: {}}", Kind.NOT_FOUND, "it has moody"),
    ],
)
def test_files_that_are_no_talosconfig(tmp_path, text, kind, word):
    path = tmp_path / "t"
    path.write_text(text)
    failure = failure_of(str(path))
    assert failure.kind is kind
    assert word in str(failure)


def test_no_such_file(tmp_path):
    assert failure_of(str(tmp_path / "absent")).kind is Kind.NOT_FOUND


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0000:01:00.0", "0000:01:00.0"),
        ("0000:41:00.0", "0000:41:00.0"),
        ("1e:00.0", "1e:00.0"),
        ("81:00.0", "81:00.0"),
        ("10:20", "10:20"),
        ("0300", "0300"),
        ("on", "on"),
        ("2026-11-20", "2026-11-20"),
        ("12", 12),
        ("-1.5e3", -1500.0),
        ("0x10", 16),
        ("true", True),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ("a: 1\n---\nb: 2", [{"a": 1}, {"b": 2}]),
    ],
)
def test_yaml_is_read_without_guesses(text, value):
    found = plain_yaml.load(text)
    assert found == value
    assert type(found) is type(value)
