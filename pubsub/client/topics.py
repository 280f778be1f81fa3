"""Facts of a topic, as the command and applications read them."""

from dataclasses import dataclass

from pubsub.core.wire import TopicInfoReply


@dataclass(frozen=True, slots=True)
class LedgerInfo:
    """One ledger of a topic's chain; `last` is None while it is being written."""

    ledger_id: int
    first: int
    last: int | None
    bytes: int
    copies: int


@dataclass(frozen=True, slots=True)
class SubscriptionInfo:
    """A durable subscription: `consumed` is everything up to this sequence, `backlog` how many are not
    consumed.
    """

    id: str
    consumed: int
    backlog: int


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as its owner sees it.

    Attributes:
        owner: address of the hub that serves it.
        last_seq_id: sequence of the last stored message, 0 when there was none.
        log_start: the lowest sequence that is kept.
    """

    topic: str
    owner: str
    epoch: int
    last_seq_id: int
    log_start: int
    ledgers: tuple[LedgerInfo, ...]
    subscriptions: tuple[SubscriptionInfo, ...]
    producers: int


def topic_info(topic: str, reply: TopicInfoReply) -> TopicInfo:
    """From the hub's answer."""
    last = reply.last_sequence
    return TopicInfo(
        topic,
        reply.owner,
        reply.epoch,
        last,
        reply.log_start,
        tuple(
            LedgerInfo(ledger_id, first, None if end < 0 else end, size, copies)
            for ledger_id, first, end, size, copies in reply.ledgers
        ),
        tuple(
            SubscriptionInfo(name, mark, max(0, last - max(mark, reply.log_start - 1)))
            for name, mark in sorted(reply.subscriptions)
        ),
        reply.producers,
    )
