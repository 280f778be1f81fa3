"""The passwords of ZooKeeper's sessions, which it never stores: they follow from the session's id.

    password = 16 bytes of java.util.Random(id XOR 0xB3415C00)                         (specification 4.2)

So a session that was taken over can be taken up again by its client, which knows nothing of the change.
"""

from typing import Final

_SECRET: Final = 0xB3415C00
_MULTIPLIER: Final = 0x5DEECE66D
_MASK: Final = (1 << 48) - 1


def session_password(session_id: int) -> bytes:
    """The 16 bytes that ZooKeeper gave the client of this session."""
    state = ((session_id ^ _SECRET) ^ _MULTIPLIER) & _MASK
    parts = []
    for _ in range(4):
        state = (state * _MULTIPLIER + 0xB) & _MASK
        parts.append((state >> 16 & 0xFFFFFFFF).to_bytes(4, "little"))
    return b"".join(parts)
