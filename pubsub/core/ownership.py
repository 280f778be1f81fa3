"""Who serves a topic: decisions of a hub that is asked for one it does not hold (1.11, P10 to P14, DESIGN 6).

Stealing is safe at any time: the record's compare-and-set picks one winner, and fencing the last ledger stops
the loser. So liveness may be judged by a probe, and a wrong judgement costs a hand-over, never data. The
shell feeds `decide` with what it read and learned, and carries out the answer.
"""

from collections.abc import Container
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, assert_never

from pubsub.core.record import STATE_DELETED, Owner, TopicRecord

PROBE_TIMEOUT_MS: Final = 2000
"""An owner that has not answered a probe for so long is taken for dead."""
STEAL_JITTER_MS: Final = 40
"""Hubs that steal the same topic at once are spread over this time, so the second one mostly finds a live
owner.
"""
PROBE_TRUST_MS: Final = 500
"""A probe's good news is reused for so long: a thousand topics of one hub cost one probe."""


class Chance(Protocol):
    """A source of random numbers, such as `random.Random`."""

    def randrange(self, start: int, /) -> int:
        """From 0 to below `start`."""
        ...


class ProbeResult(Enum):
    """What asking the owner showed."""

    ALIVE = "alive"
    OTHER_REGISTRATION = "answered with another registration id"
    REFUSED = "refused or reset"
    SILENT = "no answer within the time"


@dataclass(frozen=True, slots=True)
class Unknown:
    """The topic does not exist and is not to be created, or is being deleted."""


@dataclass(frozen=True, slots=True)
class Create:
    """Write a first record with this hub as its owner; it must not exist."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Compare-and-set this hub in as owner with the next epoch, after a jitter, and acquire.

    `dead` is the owner it is taken from, when that may still believe in itself.
    """

    delay_ms: int
    dead: Owner | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask this owner whether it lives, then decide again."""

    owner: Owner


@dataclass(frozen=True, slots=True)
class Redirect:
    """Another hub serves it. The epoch lets the client ignore an older hint (P6)."""

    address: str
    epoch: int


Decision = Unknown | Create | Claim | Probe | Redirect


def decide(
    record: TopicRecord | None,
    me: Owner,
    registered: Container[int],
    probe: ProbeResult | None,
    *,
    create: bool,
    chance: Chance,
) -> Decision:
    """Decide about a topic this hub does not hold.

    Args:
        record: as read now; None when there is none.
        me: this hub's address and present registration.
        registered: registration ids of the hubs that have an ephemeral now.
        probe: what asking the record's owner showed, None when it was not asked.
        create: the request may bring a topic into being.
    """
    if record is None:
        return Create() if create else Unknown()
    if record.state == STATE_DELETED:
        # Whoever deletes it goes on; a hub that is asked finishes a dead one's deletion by claiming it.
        return Claim(0) if record.owner is None or record.owner == me else Unknown()
    owner = record.owner
    if owner is None or owner == me:
        # Released, or ours by name only: given up after a failed add, or a claim that was never finished.
        return Claim(0)
    if owner.address == me.address:
        # An earlier registration of this very process or its predecessor cannot answer a probe any more.
        return Claim(0)
    if owner.registration not in registered:
        return Claim(0, owner)
    if probe is None:
        return Probe(owner)
    match probe:
        case ProbeResult.ALIVE:
            return Redirect(owner.address, record.epoch)
        case ProbeResult.OTHER_REGISTRATION | ProbeResult.REFUSED | ProbeResult.SILENT:
            return Claim(chance.randrange(STEAL_JITTER_MS), owner)
    assert_never(probe)


def still_owner(record: TopicRecord | None, me: Owner, epoch: int) -> bool:
    """Whether a record read later still names this hub in this epoch; otherwise it stops serving at once."""
    return (
        record is not None and record.owner == me and record.epoch == epoch and record.state != STATE_DELETED
    )
