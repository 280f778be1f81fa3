"""What an auth packet proves (specification 11.4): a pure function from credentials to identities."""

import base64
import hashlib

from coord.protocol.jute import Reader
from coord.protocol.records import Identity


class CredentialError(Exception):
    """The scheme takes no credentials, or these are none of it; the connection ends with AuthFailed."""


def identities_of(body: bytes) -> tuple[Identity, ...]:
    """The identities that an AuthPacket adds to its connection.

    Raises:
        CredentialError: refused.
        DecodeError: the bytes are no AuthPacket.
    """
    reader = Reader(body)
    reader.read_int()
    scheme = reader.read_text()
    credentials = reader.read_buffer()
    if scheme == "ip":
        return ()
    if scheme != "digest" or credentials is None:
        raise CredentialError(f"no credentials of scheme {scheme!r} are accepted")
    text = credentials.decode("utf-8", "replace")
    user = text.partition(":")[0]
    digest = base64.b64encode(hashlib.sha1(credentials, usedforsecurity=False).digest()).decode()
    return (Identity("digest", f"{user}:{digest}"),)
