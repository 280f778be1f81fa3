"""TLS contexts from PEM files, with the settings every listener and link of ours uses.

TLS 1.2 and newer, no renegotiation (a peer could make us pay for handshakes at will), no compression.
"""

import ssl
from pathlib import Path


def server_context(
    certificate_path: str | Path,
    key_path: str | Path | None = None,
    *,
    key_password: str = "",
    client_ca_path: str | Path | None = None,
    requires_certificate: bool = True,
) -> ssl.SSLContext:
    """What a listener presents.

    Args:
        certificate_path: PEM, the server's own certificate first, then its chain.
        key_path: PEM of the private key; None when it stands in `certificate_path`.
        key_password: of an encrypted key. OpenSSL never asks on the terminal.
        client_ca_path: PEM of the authorities whose clients are let in; given, a client must show a
            certificate.
        requires_certificate: False lets clients without one in all the same.

    Raises:
        OSError: a file cannot be read.
        ssl.SSLError: a file is not what it should be, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.load_cert_chain(certificate_path, key_path, lambda: key_password)
    if client_ca_path is not None:
        context.load_verify_locations(client_ca_path)
        context.verify_mode = ssl.CERT_REQUIRED if requires_certificate else ssl.CERT_OPTIONAL
    return context


def client_context(
    ca_path: str | Path,
    *,
    certificate_path: str | Path | None = None,
    key_path: str | Path | None = None,
    check_hostname: bool = True,
) -> ssl.SSLContext:
    """What a link expects of its server, and presents if asked.

    Args:
        ca_path: PEM of the authorities that may sign the server's certificate; the system's are not trusted.
        certificate_path: PEM of our own certificate, for servers that require one.
        key_path: PEM of its key; None when it stands in `certificate_path`.
        check_hostname: whether the certificate must name the host we connected to.

    Raises:
        OSError: a file cannot be read.
        ssl.SSLError: a file is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.check_hostname = check_hostname
    context.load_verify_locations(ca_path)
    if certificate_path is not None:
        context.load_cert_chain(certificate_path, key_path)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
