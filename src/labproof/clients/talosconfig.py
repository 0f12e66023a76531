"""Reading a talosconfig: which endpoints, which certificate, which roles it grants, until when.

Source: Talos `pkg/machinery/client/config/config.go` (facts/talos.md 3.2). Two things are special: private keys
carry the header `ED25519 PRIVATE KEY`, which OpenSSL does not know although the body is plain PKCS#8, and a context
made by Omni has no certificate at all.
"""

import base64
import binascii
import difflib
import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from labproof.clients import plain_yaml
from labproof.clients.errors import Kind, TransportFailure

DEFAULT_PORT = 50000  # apid


@dataclass(frozen=True)
class TalosContext:
    """One context of a talosconfig, checked.

    Attributes:
        endpoints: host and port of each API endpoint, in the file's order.
        nodes: the nodes the context aims at by default.
        roles: the `O` values of the client certificate's subject, e.g. `os:reader`.
        expires: when the client certificate ends.
    """

    name: str
    endpoints: tuple[tuple[str, int], ...]
    nodes: tuple[str, ...]
    roles: tuple[str, ...]
    expires: datetime
    ca_pem: bytes | None = field(repr=False)
    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)

    @property
    def as_whom(self) -> str:
        """The context and the roles of its certificate: `moody-good (os:reader)`."""
        return f"{self.name} ({', '.join(self.roles) or 'no role'})"


def load(path: str, context: str | None = None, now: datetime | None = None) -> TalosContext:
    """Read one context of a talosconfig.

    Args:
        path: the file; `~` is understood.
        context: its name; None: the file's own choice.
        now: the time to judge the certificate's validity by.

    Raises:
        TransportFailure: not_found (no such file or context), protocol (not a talosconfig), unsupported (Omni, a
            proxy, a PEM that cannot be read, no certificate), auth (the certificate is not valid now).
    """
    file = Path(path).expanduser()
    found = _context(file, context)
    name, body = found
    target = f"talosconfig {file} context {name}"
    auth = body.get("auth")
    if isinstance(auth, dict) and "siderov1" in auth:
        raise TransportFailure(
            Kind.UNSUPPORTED,
            target,
            "it logs in through Omni (auth: siderov1), which signs each request interactively; give a talosconfig "
            "with a certificate, e.g. `omnictl talosconfig --break-glass`",
        )
    if body.get("proxy-url"):
        raise TransportFailure(Kind.UNSUPPORTED, target, "it wants a proxy (proxy-url), which is not supported")
    missing = [key for key in ("crt", "key") if not body.get(key)]
    if missing:
        raise TransportFailure(
            Kind.UNSUPPORTED,
            target,
            f"it has no {' and no '.join(missing)}; make one with `talosctl config new --roles=os:reader`",
        )
    certificate_pem = _pem(target, "crt", body["crt"])
    certificate = _certificate(target, certificate_pem)
    _check_validity(target, certificate, now or datetime.now(UTC))
    names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    endpoints = [*_strings(body.get("endpoints")), *_strings([body.get("target")])]
    return TalosContext(
        name=name,
        endpoints=tuple(parse_endpoint(endpoint) for endpoint in endpoints),
        nodes=tuple(_strings(body.get("nodes"))),
        roles=tuple(str(part.value) for part in names),
        expires=certificate.not_valid_after_utc,
        ca_pem=_pem(target, "ca", body["ca"]) if body.get("ca") else None,
        certificate_pem=certificate_pem,
        key_pem=as_openssl_reads(_pem(target, "key", body["key"])),
    )


def as_openssl_reads(key_pem: bytes) -> bytes:
    """Talos' key with the header OpenSSL knows: the body is PKCS#8 already."""
    return key_pem.replace(b" ED25519 PRIVATE KEY-----", b" PRIVATE KEY-----")


def tls_context(context: TalosContext) -> ssl.SSLContext:
    """Mutual TLS with HTTP/2, as apid wants it.

    Raises:
        TransportFailure: unsupported, when OpenSSL cannot use the certificate, the key or the CA.
    """
    target = f"talosconfig context {context.name}"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.set_alpn_protocols(["h2"])
    try:
        if context.ca_pem is None:
            tls.load_default_certs()
        else:
            tls.load_verify_locations(cadata=context.ca_pem.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError) as error:
        raise TransportFailure(Kind.UNSUPPORTED, target, f"its ca cannot be read ({_why(error)})") from None
    # Python's ssl takes a client key from a file only; it lives for this one call, readable by us alone.
    with tempfile.TemporaryDirectory(prefix="labproof-") as folder:
        certificate, key = Path(folder, "crt"), Path(folder, "key")
        certificate.write_bytes(context.certificate_pem)
        key.write_bytes(context.key_pem)
        try:
            tls.load_cert_chain(certificate, key, password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            raise TransportFailure(
                Kind.UNSUPPORTED,
                target,
                f"its key cannot be used with its certificate ({_why(error)}); was the PEM edited or cut?",
            ) from None
    return tls


def parse_endpoint(word: str) -> tuple[str, int]:
    """`host`, `host:port`, `[v6]:port` or a bare IPv6 address, as host and port (50000 when none is given)."""
    word = word.removeprefix("https://").rstrip("/")
    if word.startswith("["):
        host, _, port = word[1:].partition("]")
        port = port.removeprefix(":")
    elif word.count(":") == 1:
        host, _, port = word.partition(":")
    else:
        host, port = word, ""
    return host, int(port) if port.isdigit() else DEFAULT_PORT


def _context(file: Path, wanted: str | None) -> tuple[str, dict[str, Any]]:
    target = f"talosconfig {file}"
    try:
        content = plain_yaml.load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TransportFailure(Kind.NOT_FOUND, target, "there is no such file") from None
    except OSError as error:
        raise TransportFailure(Kind.FORBIDDEN, target, f"it cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        # The parser's message quotes the text around the fault, which may be the key.
        raise TransportFailure(Kind.PROTOCOL, target, "it is not YAML; is it a talosconfig?") from None
    contexts = content.get("contexts") if isinstance(content, dict) else None
    if not isinstance(contexts, dict):
        hint = "; it looks like a kubeconfig" if isinstance(content, dict) and "clusters" in content else ""
        raise TransportFailure(Kind.PROTOCOL, target, f"it has no contexts: not a talosconfig{hint}")
    if not contexts:
        raise TransportFailure(Kind.PROTOCOL, target, "its list of contexts is empty: merge one into it")
    name = wanted or content.get("context") or (next(iter(contexts)) if len(contexts) == 1 else None)
    known = ", ".join(sorted(str(key) for key in contexts))
    if name is None:
        raise TransportFailure(Kind.NOT_FOUND, target, f"it selects no context; name one of {known}")
    if not isinstance(contexts.get(name), dict):
        near = difflib.get_close_matches(str(name), [str(key) for key in contexts], 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {known}"
        raise TransportFailure(Kind.NOT_FOUND, target, f"it has no context {name!r}; {hint}")
    return str(name), contexts[name]


def _check_validity(target: str, certificate: x509.Certificate, now: datetime) -> None:
    ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if now > ends:
        text = f"its client certificate expired on {ends:%Y-%m-%d %H:%M} UTC; make a new one on the control plane"
        raise TransportFailure(Kind.AUTH, target, text + " with `talosctl config new`")
    if now < begins:
        text = f"its client certificate is valid only from {begins:%Y-%m-%d %H:%M} UTC; check this machine's clock"
        raise TransportFailure(Kind.AUTH, target, text)


def _pem(target: str, key: str, value: object) -> bytes:
    try:
        pem = base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError):
        raise TransportFailure(Kind.UNSUPPORTED, target, f"its {key} is not base64") from None
    if b"-----BEGIN " not in pem:
        raise TransportFailure(Kind.UNSUPPORTED, target, f"its {key} is not PEM")
    return pem


def _certificate(target: str, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise TransportFailure(Kind.UNSUPPORTED, target, "its crt is not a certificate") from None


def _strings(value: object) -> list[str]:
    return [str(word) for word in value if word] if isinstance(value, list) else []


def _why(error: Exception) -> str:
    return getattr(error, "reason", None) or type(error).__name__
