"""Keys and certificates of a simulated lab, made fresh for every process and kept over resets.

Deliberately as awkward as the real ones: PVE's CA carries no keyUsage extension (facts ecosystem 6), Talos uses
Ed25519 with its own PEM header (facts ecosystem 0.1, 0.2).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_PKCS8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, both PEM (key as PKCS#8)."""

    certificate: str
    key: str

    @property
    def talos_key(self) -> str:
        """The key as talosconfig spells it (`ED25519 PRIVATE KEY`)."""
        return self.key.replace(" PRIVATE KEY-----", " ED25519 PRIVATE KEY-----")


class Authority:
    """A certificate authority."""

    def __init__(
        self, subject: str, *, ed25519_keys: bool = False, key_usage: bool = True, organisation: str = ""
    ) -> None:
        """Make the CA; `key_usage=False` leaves the keyUsage extension out, as PVE does."""
        self._ed25519 = ed25519_keys
        self._key = self._new_key()
        self._name = _name(subject, (organisation,) if organisation else ())
        builder = _builder(self._name, self._name, self._key, days=3650).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        if key_usage:
            builder = builder.add_extension(_ca_usage(), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
        )
        self._certificate = builder.sign(self._key, self._hash())
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(
        self,
        common_name: str,
        *,
        organisations: tuple[str, ...] = (),
        names: tuple[str, ...] = (),
        server: bool = False,
        expired: bool = False,
    ) -> Issued:
        """A leaf certificate: for a server valid for 127.0.0.1, ::1, localhost and `names`, else for a client.

        An `expired` one was made a year and a day ago.
        """
        key = self._new_key()
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(_name(common_name, organisations), self._name, key, days=365, age_days=366 if expired else 0)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_leaf_usage(), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if server:
            builder = builder.add_extension(_alternative_names(names), critical=False)
        certificate = builder.sign(self._key, self._hash())
        return Issued(
            certificate.public_bytes(serialization.Encoding.PEM).decode(), key.private_bytes(*_PKCS8).decode()
        )

    def _new_key(self) -> _Key:
        return ed25519.Ed25519PrivateKey.generate() if self._ed25519 else ec.generate_private_key(ec.SECP256R1())

    def _hash(self) -> hashes.SHA256 | None:
        return None if self._ed25519 else hashes.SHA256()


class Pki:
    """All authorities and keys of one simulated lab, made on first use."""

    def __init__(self) -> None:
        """An empty key store."""
        self._authorities: dict[tuple[str, str], Authority] = {}
        self._issued: dict[tuple[str, ...], Issued] = {}
        self._ssh: dict[str, ed25519.Ed25519PrivateKey] = {}

    def authority(self, kind: str, name: str) -> Authority:
        """The CA of a PVE cluster (`pve`), a Kubernetes cluster (`kube`) or a Talos cluster (`talos`)."""
        key = (kind, name)
        if key not in self._authorities:
            self._authorities[key] = {
                "pve": lambda: Authority(
                    "Proxmox Virtual Environment", key_usage=False, organisation="PVE Cluster Manager CA"
                ),
                "kube": lambda: Authority("", organisation="kubernetes"),  # as Talos makes it: no common name
                "talos": lambda: Authority("", ed25519_keys=True, organisation="talos"),
            }[kind]()
        return self._authorities[key]

    def server(self, kind: str, cluster: str, name: str, *names: str) -> Issued:
        """The certificate of a server `name` of that cluster."""
        key = ("server", kind, cluster, name)
        if key not in self._issued:
            issued = self.authority(kind, cluster).issue(name, names=(name, *names), server=True)
            self._issued[key] = issued
        return self._issued[key]

    def client(self, kind: str, cluster: str, user: str, *groups: str, expired: bool = False) -> Issued:
        """A client certificate: Kubernetes user and groups, or for Talos the roles as organisations."""
        key = ("expired client" if expired else "client", kind, cluster, user, *groups)
        if key not in self._issued:
            self._issued[key] = self.authority(kind, cluster).issue(user, organisations=groups, expired=expired)
        return self._issued[key]

    def server_context(
        self, kind: str, cluster: str, name: str, *names: str, client_certificates: ssl.VerifyMode = ssl.CERT_NONE
    ) -> ssl.SSLContext:
        """A TLS server context; with `client_certificates` clients are verified against the cluster's CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued = self.server(kind, cluster, name, *names)
        with tempfile.TemporaryDirectory(prefix="labproof-tls-") as folder:  # ssl reads files only
            path = Path(folder) / "server.pem"
            path.touch(mode=0o600)
            path.write_text(issued.certificate + issued.key, encoding="ascii")
            context.load_cert_chain(path)
        if client_certificates is not ssl.CERT_NONE:
            context.load_verify_locations(cadata=self.authority(kind, cluster).pem)
            context.verify_mode = client_certificates
        return context

    def ssh_private(self, name: str) -> str:
        """An Ed25519 SSH private key in OpenSSH form, by name: `host/<host>` or `user`."""
        return (
            self._ssh_key(name)
            .private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
            .decode()
        )

    def ssh_public(self, name: str) -> str:
        """Its public half as one line of authorized_keys or known_hosts (type and base64)."""
        public = self._ssh_key(name).public_key()
        return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()

    def _ssh_key(self, name: str) -> ed25519.Ed25519PrivateKey:
        return self._ssh.setdefault(name, ed25519.Ed25519PrivateKey.generate())


def _name(common_name: str, organisations: tuple[str, ...]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organisations]
    if common_name:
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    return x509.Name(attributes)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: _Key, *, days: int, age_days: int = 0
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC) - dt.timedelta(days=age_days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _alternative_names(names: tuple[str, ...]) -> x509.SubjectAlternativeName:
    seen: dict[str, x509.GeneralName] = {}
    for name in ("127.0.0.1", "::1", "localhost", *names):
        try:
            seen[name] = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            seen[name] = x509.DNSName(name)
    return x509.SubjectAlternativeName(list(seen.values()))


def _ca_usage() -> x509.KeyUsage:
    return _usage(signs_certificates=True)


def _leaf_usage() -> x509.KeyUsage:
    return _usage(signs_certificates=False)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
