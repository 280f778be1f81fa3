"""Certificates for tests: an authority, what it signed, and the PEM files that zoo.cfg names."""

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Name, NameAttribute
from cryptography.x509.oid import NameOID

BEGIN = datetime.datetime(2026, 1, 1)
END = BEGIN + datetime.timedelta(days=3650)

Key = ec.EllipticCurvePrivateKey


class Authority:
    """Signs certificates; `path` is its own, as a trust store."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = Name([NameAttribute(NameOID.COMMON_NAME, name)])
        self._serial = 1
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self._sign(self.name, self.key, constraints)
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(self._pem(self.certificate))

    def issue(
        self, common_name: str, *, organisation: str = "Acme", units: int = 0, password: bytes = b""
    ) -> Path:
        """A PEM file with key and certificate for `CN=common_name,O=organisation`, good for localhost."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = Name(
            [
                NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
                *[NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "u" * 60) for _ in range(units)],
                NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )
        certificate = self._sign(subject, key, x509.SubjectAlternativeName([x509.DNSName("localhost")]))
        path = self.directory / f"{common_name}-{certificate.serial_number}.pem"
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            encryption = serialization.BestAvailableEncryption(password)
        kind = serialization.PrivateFormat.PKCS8
        path.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, kind, encryption) + self._pem(certificate)
        )
        return path

    def revoke(self, path: Path) -> bytes:
        """A list (PEM) that names the certificate in a file."""
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(certificate.serial_number)
            .revocation_date(BEGIN)
            .build()
        )
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(BEGIN)
            .next_update(END)
            .add_revoked_certificate(entry)
            .sign(self.key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    def client_context(self, certificate: Path | None = None) -> ssl.SSLContext:
        """Trusts this authority, and shows a certificate."""
        context = ssl.create_default_context(cafile=str(self.path))
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def _sign(self, subject: Name, key: Key, extension: x509.ExtensionType) -> x509.Certificate:
        self._serial += 1
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(self._serial)
            .not_valid_before(BEGIN)
            .not_valid_after(END)
            .add_extension(extension, critical=False)
            .sign(self.key, hashes.SHA256())
        )

    @staticmethod
    def _pem(certificate: x509.Certificate) -> bytes:
        return certificate.public_bytes(serialization.Encoding.PEM)
