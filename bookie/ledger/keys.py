"""What a ledger's password becomes: the master key that bookies check, and the key of its HMAC seals.

Passwords guard against accidents, not against attackers: the metadata record holds them (14.4). The master
key is one-way all the same, since it is sent with every add. An empty password gives well-known keys.
"""

import hashlib

from bookie.ledger.extent import Sealer, SealKind
from bookie.ledger.wire import MASTER_KEY_BYTES


def master_key(password: bytes) -> bytes:
    """The key sent with adds and fencing requests (1.4)."""
    return hashlib.blake2b(password, digest_size=MASTER_KEY_BYTES, person=b"zoolog.master").digest()


def sealer_of(kind: SealKind, password: bytes) -> Sealer:
    """Makes and checks the seals of a ledger of this kind."""
    if kind is SealKind.CRC32C:
        return Sealer()
    return Sealer(kind, hashlib.blake2b(password, digest_size=32, person=b"zoolog.seal").digest())
