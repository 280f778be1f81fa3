"""What the servers of an ensemble say to each other beside Zab: on the same links, in the same order.

Between a follower and its leader one FIFO carries forwarded writes, session attachments and syncs, and that
order is what the guarantees rest on: an attachment's answer covers every write forwarded before it, and a
write forwarded through an older owner after it is refused.
"""

from struct import Struct
from typing import Final

from coord.message import MessageError, Protocol, message
from coord.zab import WIRE_MESSAGES

_LONG: Final = Struct(">q")


@message(32)
class Forward:
    """Writes of a follower's clients; the frame's body is one encoded block."""

    epoch: int


@message(33)
class Touch:
    """Sessions heard of since the last one; the body is their ids, 8 bytes each, big-endian."""

    epoch: int


@message(34)
class Attach:
    """A client wants to take its session up again at the sender. `number` comes back in the answer."""

    epoch: int
    number: int
    session_id: int
    timeout_ms: int
    password: bytes


@message(35)
class Attached:
    """`ok`: the sender of `Attach` owns the session from now on; it tells the client once it has executed
    `zxid`.
    """

    epoch: int
    number: int
    ok: bool
    zxid: int


@message(36)
class SyncAsk:
    """All syncs of one tick. `number` comes back in the answer."""

    epoch: int
    number: int


@message(37)
class Synced:
    """A quorum has confirmed that the sender still led when it named `zxid`, the last it had proposed."""

    epoch: int
    number: int
    zxid: int


@message(38)
class ForwardChange:
    """A client's reconfiguration; the frame's body is one encoded block that holds nothing else."""

    epoch: int


PEER_PROTOCOL: Final = Protocol(
    "peers", [*WIRE_MESSAGES, Forward, Touch, Attach, Attached, SyncAsk, Synced, ForwardChange]
)


def encode_session_ids(session_ids: list[int]) -> bytes:
    return Struct(f">{len(session_ids)}q").pack(*session_ids)


def decode_session_ids(body: bytes | memoryview) -> tuple[int, ...]:
    """The sessions of a `Touch`.

    Raises:
        MessageError: not a whole number of ids.
    """
    count, rest = divmod(len(body), _LONG.size)
    if rest:
        raise MessageError(f"expected session ids of {_LONG.size} bytes each, got {len(body)} bytes")
    return Struct(f">{count}q").unpack(body)
