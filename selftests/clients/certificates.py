"""Certificates as the real things make them: PVE's CA without keyUsage, Talos' Ed25519 with its own PEM header."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """A certificate authority. `bare`: without keyUsage, as PVE makes its own."""

    def __init__(self, *, edwards: bool, bare: bool = False) -> None:
        self.edwards = edwards
        self._key = self._new_key()
        self._name = _name("test CA", ())
        builder = self._builder(self._name, self._key, timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        if not bare:
            usage = {"digital_signature": True, "key_cert_sign": True, "crl_sign": True}
            builder = builder.add_extension(_usage(**usage), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        self._certificate = self._sign(builder)
        self.pem = self._certificate.public_bytes(Encoding.PEM)

    def issue(self, name: str, organizations: tuple[str, ...] = (), *, lasts: timedelta = timedelta(hours=1)) -> Issued:
        """A leaf for 127.0.0.1 and localhost; a negative `lasts` has ended already."""
        key = self._new_key()
        builder = self._builder(_name(name, organizations), key, lasts)
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        builder = builder.add_extension(names, critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        certificate = self._sign(builder).public_bytes(Encoding.PEM)
        return Issued(certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def _new_key(self) -> Key:
        return ed25519.Ed25519PrivateKey.generate() if self.edwards else ec.generate_private_key(ec.SECP256R1())

    def _builder(self, name: x509.Name, key: Key, lasts: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + lasts)
        )

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self._key, None if self.edwards else hashes.SHA256())


def talos_key(pem: bytes) -> bytes:
    """The key as a talosconfig spells it."""
    return pem.replace(b" PRIVATE KEY-----", b" ED25519 PRIVATE KEY-----")


def _name(common: str, organizations: tuple[str, ...]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, word) for word in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(**on: bool) -> x509.KeyUsage:
    words = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{word: on.get(word, False) for word in words.split()})
