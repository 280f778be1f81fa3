"""What the peers of one ensemble say to each other: frozen records of plain values, and the batch they
agree on.

All of them travel on one FIFO link per pair of servers. Three conversations share it:

    election         Notification                                              everybody to everybody
    discovery        FollowerInfo -> LeaderInfo -> AckEpoch                     learner and leader
    synchronization  Diff | Truncate | Snapshot (-> SnapshotInstalled -> Diff), Propose..., NewLeader
                     -> AckNewLeader -> UpToDate
    broadcast        Propose -> Ack, Commit, Heartbeat -> HeartbeatAck
    comparison       StateDigest -> StateVerdict                               once the learner is up to date

An observer is synchronized like any learner, but only once the epoch is established; it gets each batch when
that is committed, in a Propose that commits it, and acknowledges none.

A `FollowerInfo` opens a new conversation with the leader and resets an older one on the same link:
`attempt` comes back in the `LeaderInfo`, and a learner heeds nothing of the leader's before it.
Everything after carries the leader's epoch, so what an earlier leadership left on the link is recognized
and dropped.

`to_wire` and `from_wire` move the payload of a `Propose` out of the CBOR header into the frame's body, so
that one payload, never copied into CBOR, serves every follower's socket.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

from coord.message import MessageError, message

Sid = NewType("Sid", int)
"""A server's number in the configuration (server.N)."""

COUNTER_MAX = 0xFFFFFFFF
"""Zxids of one epoch; the leader gives up before it needs more (20.1)."""
EPOCH_MAX = 0x7FFFFFFF
"""Zxids stay positive signed 64-bit numbers for the clients."""
ZXID_MAX = 0x7FFFFFFFFFFFFFFF
DIGEST_MAX = 0xFFFFFFFFFFFFFFFF


def make_zxid(epoch: int, counter: int) -> int:
    return epoch << 32 | counter


def epoch_of(zxid: int) -> int:
    return zxid >> 32


def counter_of(zxid: int) -> int:
    return zxid & COUNTER_MAX


class Role(IntEnum):
    """What a peer is doing; the numbers go over the wire."""

    LOOKING = 0
    FOLLOWING = 1
    LEADING = 2


@dataclass(frozen=True, slots=True)
class Proposal:
    """One batch as proposed: the atomic unit of proposal, acknowledgement, commit, DIFF and TRUNC.

    Its requests have the zxids `first_zxid` to `last_zxid`, consecutive and of one epoch. `payload` is
    opaque here and the same bytes on every server. A batch is named by its last zxid.
    """

    first_zxid: int
    last_zxid: int
    payload: bytes


@message(1)
class Notification:
    """A vote (20.3), and while the sender is not LOOKING the leader it has.

    `leader_current_epoch` and `leader_zxid` describe the history of `leader`; `current_epoch` and
    `last_zxid` that of the sender, so that a server without history can be told from one with. `membership`
    is the last one that the sender knows committed, as `Membership.encode` writes it: so who has missed
    changes learns of them.
    """

    role: int
    round: int
    leader: int
    leader_current_epoch: int
    leader_zxid: int
    current_epoch: int
    last_zxid: int
    membership: str = ""


@message(2)
class FollowerInfo:
    """Opens a conversation with the leader (20.4)."""

    attempt: int
    accepted_epoch: int
    current_epoch: int
    last_zxid: int
    observes: bool = False
    """It wants what is committed, and acknowledges nothing."""
    feature_level: int = 1
    """The highest that it knows."""


@message(3)
class LeaderInfo:
    """The epoch the leader proposes; `attempt` is that of the `FollowerInfo` it answers."""

    attempt: int
    epoch: int
    observes: bool = False
    """The learner is sent what is committed, and acknowledges nothing: its leader knows best."""
    feature_level: int = 1
    """That of the ensemble; who does not know it stops."""
    compares: bool = False
    """The leader takes `StateDigest`; a release before it does not know that message."""


@message(4)
class AckEpoch:
    """The learner has durably accepted `epoch`.

    `counted` is False if it had accepted the epoch before, not knowing from whom, or if it knows of
    transactions and has no history: such an ack joins the learner but is no vote for the epoch.
    `wants_snapshot` asks for SNAP whatever the zxids say.
    """

    epoch: int
    current_epoch: int
    last_zxid: int
    counted: bool
    wants_snapshot: bool = False


@message(5)
class Diff:
    """Synchronization begins: what the learner has is a prefix of the leader's history; the rest follows."""

    epoch: int


@message(6)
class Truncate:
    """Synchronization begins: drop everything above `zxid`; the rest follows."""

    epoch: int
    zxid: int


@message(7)
class Snapshot:
    """Synchronization begins: the whole state follows in messages of the server's own."""

    epoch: int


@message(8)
class SnapshotInstalled:
    """The learner's state and log are now the leader's snapshot at `zxid`, durably."""

    epoch: int
    zxid: int


@message(9)
class NewLeader:
    """The learner now has all of the leader's initial history, which ends at `last_zxid`."""

    epoch: int
    last_zxid: int


@message(10)
class AckNewLeader:
    """History up to `NewLeader`, then the current epoch, are durable on the learner, in this order."""

    epoch: int


@message(11)
class UpToDate:
    """The epoch is established. `committed_zxid` is the leader's latest, not the one the learner acked.
    `service` is the epoch in which the leader's service began; it goes on through epochs that only renew it.
    """

    epoch: int
    committed_zxid: int
    service: int = 0


@dataclass(frozen=True, slots=True)
class Propose:
    """One batch, after the batch `previous_zxid` (0: the first ever). `epoch` is the sender's; that of
    the batch's zxids may be lower during synchronization. On the wire: `ProposeHeader` and the payload as
    the body.
    """

    epoch: int
    previous_zxid: int
    committed_zxid: int
    proposal: Proposal


@message(12)
class ProposeHeader:
    """`Propose` without its payload."""

    epoch: int
    previous_zxid: int
    committed_zxid: int
    first_zxid: int
    last_zxid: int


@message(13)
class Ack:
    """Everything up to and including the batch `zxid` is durable on the learner."""

    epoch: int
    zxid: int


@message(14)
class Commit:
    """Everything up to and including the batch `zxid` is committed."""

    epoch: int
    zxid: int


@message(15)
class Heartbeat:
    """The leader lives; asks for `serial` back, which confirms that it still leads."""

    epoch: int
    serial: int
    committed_zxid: int


@message(16)
class HeartbeatAck:
    """`disk_ms`: how long the learner's log takes for a write at present."""

    epoch: int
    serial: int
    disk_ms: int = 0


@message(17)
class HandOver:
    """The leader gives up for `successor`, which has all that was proposed in `epoch`: it gets this first,
    and leads; the others, once it says that it does, and follow. Nobody votes. A leader that names itself
    takes another epoch, because the zxids of this one are used up.
    """

    epoch: int
    successor: int


@message(18)
class StateDigest:
    """The learner's state as of `zxid`; `digest` has 64 bits. Only for a leader that `compares`."""

    epoch: int
    zxid: int
    digest: int


@message(19)
class StateVerdict:
    """A quorum's states as of `zxid` have this digest; or, where not `agreed`, no quorum has one. Only for
    learners that have sent a `StateDigest`.
    """

    epoch: int
    zxid: int
    digest: int
    agreed: bool


Message = (
    Notification
    | FollowerInfo
    | LeaderInfo
    | AckEpoch
    | Diff
    | Truncate
    | Snapshot
    | SnapshotInstalled
    | NewLeader
    | AckNewLeader
    | UpToDate
    | Propose
    | Ack
    | Commit
    | Heartbeat
    | HeartbeatAck
    | HandOver
    | StateDigest
    | StateVerdict
)

WireMessage = (
    Notification
    | FollowerInfo
    | LeaderInfo
    | AckEpoch
    | Diff
    | Truncate
    | Snapshot
    | SnapshotInstalled
    | NewLeader
    | AckNewLeader
    | UpToDate
    | ProposeHeader
    | Ack
    | Commit
    | Heartbeat
    | HeartbeatAck
    | HandOver
    | StateDigest
    | StateVerdict
)

WIRE_MESSAGES: tuple[type, ...] = (
    Notification,
    FollowerInfo,
    LeaderInfo,
    AckEpoch,
    Diff,
    Truncate,
    Snapshot,
    SnapshotInstalled,
    NewLeader,
    AckNewLeader,
    UpToDate,
    ProposeHeader,
    Ack,
    Commit,
    Heartbeat,
    HeartbeatAck,
    HandOver,
    StateDigest,
    StateVerdict,
)
"""For the server's `coord.message.Protocol`; their codes are 1 to 31."""


def to_wire(sent: Message) -> tuple[WireMessage, bytes]:
    """The record for the CBOR header and the frame's body (empty but for a `Propose`)."""
    if isinstance(sent, Propose):
        batch = sent.proposal
        header = ProposeHeader(
            sent.epoch, sent.previous_zxid, sent.committed_zxid, batch.first_zxid, batch.last_zxid
        )
        return header, batch.payload
    return sent, b""


def from_wire(received: WireMessage, body: bytes = b"") -> Message:
    """The message back.

    Raises:
        MessageError: a zxid, epoch or number outside its range. The sender is at fault; close its link.
    """
    for name in received.__dataclass_fields__:
        value = getattr(received, name)
        if isinstance(value, str):
            continue
        value_max = EPOCH_MAX if "epoch" in name else DIGEST_MAX if name == "digest" else ZXID_MAX
        if value < 0 or value > value_max:
            raise MessageError(f"{type(received).__name__}.{name} out of range: {value}")
    if isinstance(received, ProposeHeader):
        first, last = received.first_zxid, received.last_zxid
        if counter_of(first) == 0 or last < first or epoch_of(first) != epoch_of(last):
            raise MessageError(f"expected a batch within one epoch, got zxids {first:#x} to {last:#x}")
        return Propose(
            received.epoch, received.previous_zxid, received.committed_zxid, Proposal(first, last, body)
        )
    if isinstance(received, Notification) and received.role > Role.LEADING:
        raise MessageError(f"expected a role of 0 to 2, got {received.role}")
    return received
