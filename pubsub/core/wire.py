"""Messages between clients and hubs, and between hubs, over coord.rpc; batches travel in the body, raw.

A connection begins with Hello, which is also the probe of DESIGN 6: the answer tells which registration lives
here. Failures are error frames with the codes of `pubsub.core.errors`. Channels are numbers the client
chooses, unique on its connection, so that the hot messages (Publish, Deliver, Credit, Consume) carry no
names.

    Hello         -> HelloReply       who is there
    Locate        -> Located          which hub serves the topic; the asked hub acquires it if none does
    OpenPublisher -> PublisherOpened  a channel bound to this ownership of the topic
    Publish       -> Published        body: one batch; in order of the channel
    Subscribe     -> Subscribed       a delivery channel; the answer precedes the first Deliver
    Credit, Consume                   one way
    Deliver, Moved, Closed            one way, from the hub; body of Deliver: entries run together
    Flush         -> Flushed          the channel's consumed position is persisted
    Unsubscribe, CreateTopic, DeleteTopic, TopicInfo -> their replies
    Deposed                           one way, from the hub that took topics over: look at your records

A publisher channel dies with the hub's ownership, or with the first batch that fails: every later batch on it
is refused with StalePublisher, so that no batch is stored behind one that was not (1.3). The client opens a
new one and sends what is unanswered again, the same bytes in the same order (T26).
"""

from coord.message import Protocol, message
from pubsub.core.batch import BATCH_BYTES_MAX, HUB_HEADER_BYTES

PROTOCOL_VERSION = 1
FRAME_BYTES_MAX = BATCH_BYTES_MAX + HUB_HEADER_BYTES + 64 * 1024
"""Largest frame either side accepts: one batch and its message."""
CHANNELS_MAX = 10_000
"""Publisher or delivery channels of one connection."""

MODE_CREATE = 0
MODE_ATTACH = 1
MODE_CREATE_OR_ATTACH = 2

FROM_LATEST = 0
FROM_EARLIEST = 1


@message(1)
class Hello:
    """First message of a connection."""

    version: int
    client: str


@message(2)
class HelloReply:
    version: int
    address: str
    registration: int
    batch_bytes_max: int


@message(3)
class Locate:
    """`suspect` is an address the client could not reach: the hub probes the owner even if it did so just
    now.
    """

    topic: str
    create: bool
    suspect: str = ""


@message(4)
class Located:
    address: str
    epoch: int


@message(5)
class OpenPublisher:
    channel: int
    topic: str
    producer_id: bytes
    create: bool = True


@message(6)
class PublisherOpened:
    """`persisted` is the producer's highest stored number here: batches up to it need not be sent again."""

    epoch: int
    persisted: int


@message(7)
class Publish:
    channel: int


@message(8)
class Published:
    """`first` is the topic's sequence of the batch's first message, 0 when a repeat's is no longer known."""

    first: int
    duplicate: bool


@message(9)
class Subscribe:
    """Attach a delivery channel to a subscription.

    Attributes:
        position: FROM_LATEST or FROM_EARLIEST, for a subscription that is created now.
        token: random, the same over reconnects: it replaces its own earlier connection without force.
        resume: the client has received everything below it on an earlier connection; 0 for nothing.
        consumed: the client's consumed position, which an earlier connection may have lost; 0 for none.
    """

    channel: int
    topic: str
    subscription: str
    mode: int
    position: int
    force: bool
    messages: int
    bytes: int
    token: int
    resume: int = 0
    consumed: int = 0


@message(10)
class Subscribed:
    """`consumed` is the subscription's mark; delivery begins at `next`."""

    epoch: int
    consumed: int
    next: int


@message(11)
class Credit:
    channel: int
    messages: int
    bytes: int


@message(12)
class Consume:
    """Cumulative up to `upto` (0: none), and individual `ranges` of first and last."""

    channel: int
    upto: int
    ranges: list[tuple[int, int]]


@message(13)
class Deliver:
    """Entries in the body; messages below `first` in the first of them are not for this subscription."""

    channel: int
    first: int


@message(14)
class Moved:
    """The hub no longer serves the topic: locate it again. `channel` is a delivery channel."""

    channel: int


@message(15)
class Closed:
    """The delivery channel ends for good."""

    channel: int
    code: int
    text: str


@message(16)
class Flush:
    channel: int


@message(17)
class Flushed:
    mark: int


@message(18)
class Detach:
    """End a delivery channel; the subscription stays."""

    channel: int


@message(19)
class Done:
    """A request without a result of its own."""


@message(20)
class Unsubscribe:
    topic: str
    subscription: str


@message(21)
class CreateTopic:
    topic: str
    properties: dict[str, str]


@message(22)
class DeleteTopic:
    topic: str
    force: bool


@message(23)
class TopicInfo:
    topic: str


@message(24)
class TopicInfoReply:
    """Facts of a topic. Ledgers: (id, first, last or -1, bytes, copies); subscriptions: (name, mark)."""

    owner: str
    epoch: int
    last_sequence: int
    log_start: int
    ledgers: list[tuple[int, int, int, int, int]]
    subscriptions: list[tuple[str, int]]
    producers: int


@message(25)
class Deposed:
    """Another hub has taken over a topic this one owned."""

    topic: str
    epoch: int


HUB_PROTOCOL = Protocol(
    "hub",
    [
        Hello,
        HelloReply,
        Locate,
        Located,
        OpenPublisher,
        PublisherOpened,
        Publish,
        Published,
        Subscribe,
        Subscribed,
        Credit,
        Consume,
        Deliver,
        Moved,
        Closed,
        Flush,
        Flushed,
        Detach,
        Done,
        Unsubscribe,
        CreateTopic,
        DeleteTopic,
        TopicInfo,
        TopicInfoReply,
        Deposed,
    ],
)
