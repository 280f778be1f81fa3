"""One subscriber's connection to one subscription: what it has been sent, what it may still be sent.

A delivery stands at `next`, the sequence that is due. A confirmed entry is pushed to every delivery that is
due for it and has credit. One that is not stays behind; when its client grants credit again it is served from
memory (`RecentEntries`) or, further back, by a task that reads ledgers, until it has caught up.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from coord.rpc import Peer
from pubsub.core.credit import CreditWindow
from pubsub.core.cursor import Cursor
from pubsub.core.errors import PubsubError
from pubsub.core.subscription import SubscriptionRecord
from pubsub.core.wire import Closed, Deliver, Moved

if TYPE_CHECKING:
    from pubsub.hub.topic import Topic

DELIVER_BYTES: Final = 1 << 20
"""Entries are grouped into one frame up to about this size."""


class Subscription:
    """A durable subscription of an owned topic.

    Attributes:
        persisted: mark that is certainly in a cursor ledger the topic record names (or in the record's
            `start`).
    """

    __slots__ = ("cursor", "delivery", "is_dirty", "name", "persisted", "record")

    def __init__(self, name: str, record: SubscriptionRecord, cursor: Cursor, persisted: int) -> None:
        self.name = name
        self.record = record
        self.cursor = cursor
        self.persisted = persisted
        self.is_dirty = False
        self.delivery: Delivery | None = None


class Delivery:
    """A delivery channel of a connection."""

    __slots__ = (
        "channel",
        "hint",
        "is_closed",
        "is_reading",
        "next",
        "on_closed",
        "peer",
        "subscription",
        "token",
        "topic",
        "window",
    )

    def __init__(
        self,
        peer: Peer,
        channel: int,
        topic: "Topic",
        subscription: Subscription,
        window: CreditWindow,
        first: int,
        token: int,
        on_closed: Callable[["Delivery"], None],
    ) -> None:
        self.peer = peer
        self.channel = channel
        self.topic = topic
        self.subscription = subscription
        self.window = window
        self.next = first
        self.token = token
        self.on_closed = on_closed
        self.is_reading = False
        self.is_closed = False
        #: Where the last read of a ledger ended: (ledger id, entry id, its first sequence).
        self.hint: tuple[int, int, int] | None = None

    def on_confirmed(self, first: int, end: int, entry: bytes) -> None:
        """An entry is stored; the hot path of a subscriber that keeps up."""
        if self.next == first and not self.is_reading and self.window.open:
            self.window.spend(end - first, len(entry))
            self.next = end
            self.peer.send(Deliver(self.channel, first), entry)

    def send(self, entries: Sequence[bytes], messages: int, end: int) -> None:
        """Entries from the one that holds `next`; afterwards `end` is due."""
        self.window.spend(messages, sum(map(len, entries)))
        self.peer.send(Deliver(self.channel, self.next), *entries)
        self.next = end

    def pump(self) -> None:
        """Sends what is due and allowed, from memory; what is not in memory any more is left to a reading
        task.
        """
        topic = self.topic
        while (
            not self.is_closed
            and not self.is_reading
            and not topic.is_lost
            and self.window.open
            and self.next <= topic.high_watermark
        ):
            recent = topic.recent
            if self.next < recent.start:
                self.is_reading = True
                topic.start_reading(self)
                return
            found = recent.get_from(self.next, min(DELIVER_BYTES, self.window.bytes))
            end = found[-1][0] + topic.count_of(found[-1][1])
            self.send([entry for _, entry in found], end - found[0][0], end)

    def close(self, error: PubsubError | None = None) -> None:
        """Ends the channel; with an error the client is told that it is for good."""
        if self.is_closed:
            return
        self.is_closed = True
        if self.subscription.delivery is self:
            self.subscription.delivery = None
        self.topic.deliveries.discard(self)
        if error is not None:
            self.peer.send(Closed(self.channel, error.code, str(error)))
        self.on_closed(self)

    def move(self) -> None:
        """Ends the channel because this hub serves the topic no longer; the client locates it again."""
        if not self.is_closed:
            self.peer.send(Moved(self.channel))
            self.close()

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: Any) -> bool:
        return self is other
