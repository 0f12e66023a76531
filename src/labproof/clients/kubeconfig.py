"""Reading a kubeconfig into the official client's Configuration, with a clear word for every way it can fail.

The official loader does the reading of clusters and users. Before it, three things it does badly: inline
certificates go into a private folder of the session (it writes them into the shared temporary folder and keeps
them until the process ends), a credential plugin that is missing or fails is told (it logs, and then asks
anonymously), and what it ignores (impersonation, dead auth providers) is refused.
"""

import base64
import binascii
import difflib
import json
import os
import shutil
import ssl
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client.configuration import Configuration
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.kube_config import KubeConfigLoader

from labproof.clients import plain_yaml
from labproof.clients.errors import Kind, TransportFailure, one_line

PLUGIN_LIMIT_S = 60.0


@dataclass
class KubeContext:
    """One context of a kubeconfig, ready to use.

    Attributes:
        name: the context.
        user: its user entry's name, for "as whom" where the server does not tell.
        namespace: its default namespace.
        folder: holds the certificates that were inline; `close()` removes it.
    """

    name: str
    user: str
    namespace: str
    configuration: Configuration = field(repr=False)
    tls: ssl.SSLContext = field(repr=False)
    folder: "tempfile.TemporaryDirectory[str]" = field(repr=False)

    def close(self) -> None:
        """Remove the certificates."""
        self.folder.cleanup()


def load(path: str, context: str | None = None) -> KubeContext:
    """Read one context of a kubeconfig.

    Args:
        path: the file; `~` is understood.
        context: its name; None: the file's current context.

    Raises:
        TransportFailure: not_found (no such file, context, cluster or user), protocol (not a kubeconfig),
            unsupported (a missing plugin, bad base64 or PEM, a login method this client cannot do), auth (the
            plugin failed).
    """
    file = Path(path).expanduser()
    target = f"kubeconfig {file}"
    content = _read(file, target)
    name = _choose(content, context, target)
    target = f"{target} context {name}"
    chosen = _named(content, "contexts", name, target).get("context") or {}
    cluster = dict(_named(content, "clusters", str(chosen.get("cluster", "")), target).get("cluster") or {})
    user_name = str(chosen.get("user", ""))
    user = dict(_named(content, "users", user_name, target).get("user") or {})
    if not cluster.get("server"):
        raise TransportFailure(Kind.PROTOCOL, target, "its cluster has no server address")
    _refuse_what_is_ignored(user, target)
    folder = tempfile.TemporaryDirectory(prefix="labproof-")
    try:
        if user.get("exec"):
            user.update(_ask_plugin(user.pop("exec"), cluster, file.parent, target))
        _to_file(cluster, "certificate-authority", folder.name, file.parent, target)
        _to_file(user, "client-certificate", folder.name, file.parent, target)
        _to_file(user, "client-key", folder.name, file.parent, target)
        configuration = _configure(name, cluster, user, file.parent, target)
        tls = _tls(configuration, target)
    except BaseException:
        folder.cleanup()
        raise
    return KubeContext(name, user_name, str(chosen.get("namespace") or "default"), configuration, tls, folder)


def _read(file: Path, target: str) -> dict[str, Any]:
    try:
        content = plain_yaml.load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TransportFailure(Kind.NOT_FOUND, target, "there is no such file") from None
    except OSError as error:
        raise TransportFailure(Kind.FORBIDDEN, target, f"it cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        # The parser's message quotes the text around the fault, which may be a key.
        raise TransportFailure(Kind.PROTOCOL, target, "it is not YAML; is it a kubeconfig?") from None
    if not isinstance(content, dict) or not isinstance(content.get("clusters"), list):
        hint = ""
        if isinstance(content, dict) and isinstance(content.get("contexts"), dict):
            hint = "; it looks like a talosconfig"
        raise TransportFailure(Kind.PROTOCOL, target, f"it has no list of clusters: not a kubeconfig{hint}")
    return content


def _choose(content: dict[str, Any], wanted: str | None, target: str) -> str:
    names = [str(entry.get("name")) for entry in _entries(content, "contexts")]
    name = wanted or content.get("current-context") or (names[0] if len(names) == 1 else None)
    if not name:
        listed = ", ".join(names) or "none at all"
        raise TransportFailure(Kind.NOT_FOUND, target, f"it selects no context; it has {listed}")
    return str(name)


def _entries(content: dict[str, Any], section: str) -> list[dict[str, Any]]:
    return [entry for entry in content.get(section) or [] if isinstance(entry, dict)]


def _named(content: dict[str, Any], section: str, name: str, target: str) -> dict[str, Any]:
    entries = _entries(content, section)
    for entry in entries:
        if entry.get("name") == name:
            return entry
    names = [str(entry.get("name")) for entry in entries]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names) or 'none'}"
    raise TransportFailure(Kind.NOT_FOUND, target, f"it has no {section[:-1]} {name!r}; {hint}")


def _refuse_what_is_ignored(user: dict[str, Any], target: str) -> None:
    provider = user.get("auth-provider")
    if isinstance(provider, dict):
        text = f"it logs in through auth-provider {provider.get('name')!r}; use a credential plugin (exec) or a token"
        raise TransportFailure(Kind.UNSUPPORTED, target, text)
    if any(key in user for key in ("as", "as-uid", "as-groups", "as-user-extra")):
        # The official client drops it silently: everything would be done with the wider right.
        text = "it impersonates somebody (as: ...), which the Python client ignores; give a context of that account"
        raise TransportFailure(Kind.UNSUPPORTED, target, text)


def _to_file(entry: dict[str, Any], key: str, folder: str, base: Path, target: str) -> None:
    """Replace `key-data` by a file of our own, and make a path of the file's own absolute."""
    inline = entry.pop(f"{key}-data", None)
    if inline:
        try:
            pem = base64.b64decode(str(inline), validate=True)
        except (binascii.Error, ValueError):
            raise TransportFailure(Kind.UNSUPPORTED, target, f"its {key}-data is not base64") from None
        path = Path(folder, key)
        path.touch(mode=0o600)
        path.write_bytes(pem)
        entry[key] = str(path)
    elif entry.get(key):
        path = base / Path(str(entry[key])).expanduser()
        if not path.is_file():
            raise TransportFailure(Kind.NOT_FOUND, target, f"its {key} file {path} does not exist")
        entry[key] = str(path)


def _ask_plugin(plugin: Any, cluster: dict[str, Any], base: Path, target: str) -> dict[str, Any]:
    """Run a credential plugin (client.authentication.k8s.io) and return what it adds to the user entry."""
    command = str(plugin.get("command", "")) if isinstance(plugin, dict) else ""
    path = shutil.which(str(base / command) if "/" in command else command)
    if not command or path is None:
        hint = one_line(str(plugin.get("installHint") or "install it")) if isinstance(plugin, dict) else ""
        text = f"its credential plugin {command!r} is not there; {hint}"
        raise TransportFailure(Kind.UNSUPPORTED, target, text)
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = cluster
    asked = {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": spec}
    extra = {str(item["name"]): str(item["value"]) for item in plugin.get("env") or []}
    environment = {**os.environ, **extra, "KUBERNETES_EXEC_INFO": json.dumps(asked)}
    try:
        done = subprocess.run(
            [path, *map(str, plugin.get("args") or [])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PLUGIN_LIMIT_S,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        text = f"its credential plugin {command!r} did not end within {PLUGIN_LIMIT_S:g} s; log in with it by hand"
        raise TransportFailure(Kind.TIMEOUT, target, text) from None
    except OSError as error:
        text = f"its credential plugin {command!r} cannot be run ({error.strerror})"
        raise TransportFailure(Kind.UNSUPPORTED, target, text) from None
    if done.returncode != 0:
        said = one_line(done.stderr.decode("utf-8", "replace"), 300)
        text = f"its credential plugin {command!r} failed (exit {done.returncode}): {said}"
        raise TransportFailure(Kind.AUTH, target, text)
    try:
        status = json.loads(done.stdout)["status"]
        if status.get("token"):
            return {"token": status["token"]}
        return {
            f"{key}-data": base64.b64encode(status[word].encode()).decode()
            for key, word in (("client-certificate", "clientCertificateData"), ("client-key", "clientKeyData"))
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        text = f"its credential plugin {command!r} gave no credential"
        raise TransportFailure(Kind.PROTOCOL, target, text) from None


def _configure(name: str, cluster: dict[str, Any], user: dict[str, Any], base: Path, target: str) -> Configuration:
    content = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
    }
    configuration = Configuration()
    try:
        loader: Any = KubeConfigLoader(content, config_base_path=str(base))  # type: ignore[no-untyped-call]
        loader.load_and_set(configuration)
    except (ConfigException, OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "a field has a wrong form"
        raise TransportFailure(Kind.UNSUPPORTED, target, f"it cannot be used ({why})") from None
    return configuration


def _tls(configuration: Configuration, target: str) -> ssl.SSLContext:
    """As kubectl judges certificates: Go does not ask for the extensions that Python 3.13's strict flag wants."""
    part = "certificate authority"
    try:
        tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not configuration.verify_ssl:  # insecure-skip-tls-verify: the owner's own choice
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            part = "client certificate or key"
            tls.load_cert_chain(configuration.cert_file, configuration.key_file, password=lambda: b"")
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise TransportFailure(Kind.UNSUPPORTED, target, f"its {part} cannot be used ({why})") from None
    return tls
