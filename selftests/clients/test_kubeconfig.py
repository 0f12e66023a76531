"""Every way a kubeconfig can be wrong has its own words; credential plugins are run, bounded, and told on."""

import json
import ssl
from pathlib import Path

import pytest
import yaml

from labproof.clients import kubeconfig
from labproof.clients.errors import Kind, TransportFailure

from .kubeconfigs import TOKEN, inline
from .kubeconfigs import kubeconfig as write


@pytest.fixture
def written(pve_authority, tmp_path):
    def make(user=None, **cluster):
        return write(tmp_path / "kubeconfig", pve_authority, 6443, user, **cluster)

    return make


@pytest.fixture
def plugin(tmp_path):
    def make(script, **more):
        path = tmp_path / "login-plugin"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login-plugin", **more}}

    return make


def failure_of(path, context=None):
    with pytest.raises(TransportFailure) as caught:
        kubeconfig.load(path, context)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return caught.value


def token_of(path):
    context = kubeconfig.load(path)
    try:
        (setting,) = context.configuration.auth_settings().values()
        return setting["value"]
    finally:
        context.close()


def test_a_token_and_the_cluster(written):
    path = written(**{"tls-server-name": "kubernetes"})
    context = kubeconfig.load(path)
    assert (context.name, context.user, context.namespace) == ("moody", "suite@lab", "media")
    assert context.configuration.host == "https://127.0.0.1:6443"
    assert context.configuration.tls_server_name == "kubernetes"
    assert context.tls.verify_mode is ssl.CERT_REQUIRED
    assert not context.tls.verify_flags & ssl.VERIFY_X509_STRICT
    assert TOKEN not in repr(context)
    folder = Path(context.folder.name)
    context.close()
    assert not folder.exists()
    assert token_of(path) == f"Bearer {TOKEN}"


def test_token_file_basic_login_and_certificate_files(written, tmp_path, pve_authority):
    (tmp_path / "token").write_text("from-file")
    assert token_of(written({"tokenFile": "token"})) == "Bearer from-file"
    assert token_of(written({"username": "u", "password": "p"})).startswith("Basic ")
    issued = pve_authority.issue("suite")
    (tmp_path / "c.pem").write_bytes(issued.certificate)
    (tmp_path / "k.pem").write_bytes(issued.key)
    (tmp_path / "ca.pem").write_bytes(pve_authority.pem)
    user = {"client-certificate": "c.pem", "client-key": str(tmp_path / "k.pem")}
    by_path = {"certificate-authority-data": None, "certificate-authority": "ca.pem"}
    context = kubeconfig.load(written(user, **by_path))
    assert context.configuration.cert_file == str(tmp_path / "c.pem")
    assert not list(Path(context.folder.name).iterdir())
    context.close()


@pytest.mark.parametrize(
    ("user", "cluster", "kind", "word"),
    [
        ({"as": "admin", "token": TOKEN}, {}, Kind.UNSUPPORTED, "impersonates"),
        ({"auth-provider": {"name": "gcp"}}, {}, Kind.UNSUPPORTED, "'gcp'"),
        ({"client-certificate-data": "%%"}, {}, Kind.UNSUPPORTED, "client-certificate-data is not base64"),
        ({"client-certificate": "gone.pem"}, {}, Kind.NOT_FOUND, "gone.pem does not exist"),
        ({"tokenFile": "gone"}, {}, Kind.UNSUPPORTED, "cannot be used"),
        (None, {"certificate-authority-data": inline(b"no PEM")}, Kind.UNSUPPORTED, "certificate authority"),
        (None, {"server": None}, Kind.PROTOCOL, "no server address"),
        (
            {"client-certificate-data": inline(b"no PEM"), "client-key-data": inline(b"x")},
            {},
            Kind.UNSUPPORTED,
            "client certificate or key",
        ),
    ],
)
def test_what_a_context_may_hold(written, user, cluster, kind, word):
    failure = failure_of(written(user, **cluster))
    assert failure.kind is kind
    assert word in str(failure)
    assert "context moody" in str(failure)


@pytest.mark.parametrize(
    ("text", "context", "kind", "word"),
    [
        ("a: [", None, Kind.PROTOCOL, "not YAML"),
        ("text", None, Kind.PROTOCOL, "not a kubeconfig"),
        ("contexts: {moody: {}}", None, Kind.PROTOCOL, "looks like a talosconfig"),
        ("clusters: []\ncontexts: []", None, Kind.NOT_FOUND, "none at all"),
        ("clusters: []\ncontexts: [{name: a}, {name: b}]", None, Kind.NOT_FOUND, "it has a, b"),
        (
            "clusters: []\ncontexts: [{name: moody}]",
            "modoy",
            Kind.NOT_FOUND,
            "no context 'modoy'; did you mean 'moody'?",
        ),
        (
            "clusters: []\ncontexts: [{name: m, context: {cluster: c}}]",
            "m",
            Kind.NOT_FOUND,
            "no cluster 'c'; it has none",
        ),
    ],
)
def test_files_that_are_no_kubeconfig(tmp_path, text, context, kind, word):
    path = tmp_path / "k"
    path.write_text(text)
    failure = failure_of(str(path), context)
    assert failure.kind is kind
    assert word in str(failure)


def test_a_context_without_its_user_or_file(written, tmp_path):
    path = Path(written())
    content = yaml.safe_load(path.read_text())
    content["users"] = [{"name": "suite@lap", "user": {}}]
    path.write_text(yaml.safe_dump(content))
    assert "no user 'suite@lab'; did you mean 'suite@lap'?" in str(failure_of(str(path)))
    assert failure_of(str(tmp_path / "absent")).kind is Kind.NOT_FOUND


def test_a_credential_plugin_gives_a_token(written, plugin):
    answer = {"apiVersion": "x", "kind": "ExecCredential", "status": {"token": TOKEN}}
    script = f"""[ "$GREETING $1" = "hello you" ] || exit 9
echo "$KUBERNETES_EXEC_INFO" | grep -q '"interactive": false' || exit 8
echo '{json.dumps(answer)}'"""
    user = plugin(script, args=["you"], env=[{"name": "GREETING", "value": "hello"}])
    assert token_of(written(user)) == f"Bearer {TOKEN}"


def test_a_credential_plugin_gives_a_certificate(written, plugin, pve_authority, tmp_path):
    issued = pve_authority.issue("suite")
    status = {"clientCertificateData": issued.certificate.decode(), "clientKeyData": issued.key.decode()}
    (tmp_path / "answer").write_text(json.dumps({"status": status}))
    context = kubeconfig.load(written(plugin(f"cat {tmp_path}/answer")))
    assert Path(context.configuration.cert_file).read_bytes() == issued.certificate
    context.close()


@pytest.mark.parametrize(
    ("script", "more", "kind", "word"),
    [
        (
            "",
            {"command": "no-such-plugin", "installHint": "get it\nfrom X"},
            Kind.UNSUPPORTED,
            "not there; get it from X",
        ),
        ("echo session expired >&2; exit 3", {}, Kind.AUTH, "failed (exit 3): session expired"),
        ("echo hello", {}, Kind.PROTOCOL, "gave no credential"),
        ("echo '{\"status\": {}}'", {}, Kind.PROTOCOL, "gave no credential"),
    ],
)
def test_a_credential_plugin_that_fails_is_told(written, plugin, script, more, kind, word):
    failure = failure_of(written(plugin(script, **more)))
    assert failure.kind is kind
    assert word in str(failure)
