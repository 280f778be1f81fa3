"""Messages between clients and bookies, over coord.rpc; extents travel in the body, raw.

A connection begins with Hello, which names the bookie and the incarnation the client means (R-I2, R-I3): a
bookie that is somebody else answers WRONG_BOOKIE and serves nothing on that connection. Everything after it
may be pipelined; answers come in any order.

    Hello      -> HelloReply        who is there
    Add        -> AddReply          body: one extent, at most EXTENT_BYTES_MAX; answered when durable
    Read       -> ReadReply         reply body: extents run together, consecutive ids from `first`
    Tail       -> ReadReply         parked until the LAC exceeds `previous_lac` or the time is over
    Fence      -> FenceReply        durable before it is answered, whatever the answer (R-B3)
    ReadLac    -> LacReply          WriteLac -> LacReply: explicit LAC (4.8)
    Held       -> HeldReply         which ids of a range are stored here (R-A6)
    ListLedgers -> LedgerList       ids stored here, in order, a page at a time

Failures are error frames with a `Code` and a text. An unknown flag is BAD_REQUEST, never ignored (15.3).
A ledger id, entry id or LAC is a 63-bit integer; -1 means none. Ranges are inclusive pairs (first, last).
"""

from enum import IntEnum, IntFlag

from bookie.ledger.extent import EXTENT_BYTES_MAX, ID_MAX, NO_ENTRY_ID
from coord.message import Protocol, message

PROTOCOL_VERSION = 1
"""Sent in Hello; a bookie that does not speak it answers BAD_VERSION."""

FRAME_BYTES_MAX = EXTENT_BYTES_MAX + 64 * 1024
"""Largest frame either side accepts."""

RANGES_MAX = 2048
"""Most ranges in one FenceReply or HeldReply; `through` says how far the answer is complete."""

READ_BYTES_MAX = 4 * 1024 * 1024
"""A bookie stops an answer there, except that the first entry is always returned (5.5)."""

MASTER_KEY_BYTES = 20

Range = tuple[int, int]
"""First and last entry id, both inclusive."""


class Code(IntEnum):
    """Outcome codes on the wire (15.1); OK is not sent as an error."""

    OK = 0
    NO_LEDGER = 402
    NO_ENTRY = 403
    BAD_REQUEST = 404
    IO_ERROR = 501
    UNAUTHORIZED = 502
    BAD_VERSION = 503
    FENCED = 504
    READ_ONLY = 505
    TOO_MANY_REQUESTS = 506
    UNKNOWN_LEDGER_STATE = 507
    WRONG_BOOKIE = 601
    """Not the bookie or incarnation that was asked for: unknown for every question, failure for adds."""
    REPLACE_ME = 602
    """A limbo incarnation refuses a normal add (R-I6): bookie failure, never fenced."""


class AddFlag(IntFlag):
    """Flags of Add."""

    NONE = 0
    RECOVERY = 1
    """Accepted on a fenced ledger (R-B5); also for re-replication."""
    HIGH_PRIORITY = 2
    """Not starved by normal traffic (R-B11)."""


class ReadFlag(IntFlag):
    """Flags of Read."""

    NONE = 0
    FENCE = 1
    """Fence the ledger durably before answering, whatever the answer (R-F2, R-B3); needs the master key."""
    HIGH_PRIORITY = 2


class Stop(IntEnum):
    """Why an answer to a read ends where it ends (R-N7)."""

    END = 0
    """Everything asked for is there (Tail: up to the LAC)."""
    LIMIT = 1
    """A count or size limit; ask again from `next_entry_id`."""
    NO_ENTRY = 2
    """`next_entry_id` was certainly never stored here (R-B9)."""
    ERROR = 3
    """`next_entry_id` cannot be read here, or may be missing only by accident; see `error`."""


@message(1)
class Hello:
    """First message of a connection. `incarnation` 0 asks for whatever incarnation is there (tools)."""

    version: int
    bookie_id: str
    incarnation: int


@message(2)
class HelloReply:
    """The bookie that answers; `instance_id` is the cluster's."""

    version: int
    bookie_id: str
    incarnation: int
    instance_id: str
    read_only: bool = False


@message(3)
class Add:
    """Store the extent in the body.

    The bookie verifies `checksum` (CRC32C of the body) and the extent's head before it touches state (R-M3,
    R-N13). Entries already present are ignored or overwritten and answered OK, decided per entry (R-B7).
    """

    ledger_id: int
    flags: int
    master_key: bytes
    checksum: int


@message(4)
class AddReply:
    """What happened, by runs (first, last, code): OK only if every entry of the run is durable (R-N1)."""

    runs: tuple[tuple[int, int, int], ...]


@message(5)
class Read:
    """Entries `first`..`last`, as a contiguous prefix; the first entry comes whatever its size.

    `max_count` and `max_bytes` <= 0 mean the bookie's own limits. `master_key` counts only with FENCE.
    NO_LEDGER is an error frame; an absent first entry is a ReadReply with NO_ENTRY and an empty body.
    """

    ledger_id: int
    first: int
    last: int
    max_count: int = 0
    max_bytes: int = 0
    flags: int = 0
    master_key: bytes = b""


@message(6)
class ReadReply:
    """Answer to Read and Tail; the body holds the extents, cut to what was asked."""

    stop: int
    next_entry_id: int
    """The first id that is not in the body."""
    lac: int
    """Highest LAC known to this bookie for the ledger: from extents received and explicit LACs."""
    last_entry_id: int = NO_ENTRY_ID
    """Highest id stored here."""
    error: int = 0
    """A `Code` when `stop` is ERROR."""


@message(7)
class Tail:
    """Wait until this bookie's LAC exceeds `previous_lac`, or `timeout_ms`; answer like Read from `first`.

    Never returns entries above the LAC in its answer; with `max_bytes` 0 it returns none, the LAC alone. On
    time-out, shutdown or a full table of waiters the answer is the LAC as it is and an empty body, which is
    no error (R-R2). A fence alone is not news. An unknown ledger is waited for like one without news.
    """

    ledger_id: int
    previous_lac: int
    timeout_ms: int
    first: int
    max_bytes: int = 0


@message(8)
class Fence:
    """Fence the ledger here (created if unknown, R-B4), then say what is held above `floor` (R-N8)."""

    ledger_id: int
    master_key: bytes
    floor: int


@message(9)
class FenceReply:
    """A fenced bookie's account, taken at or after the fence and sent after the fence is durable (R-N8).

    It holds exactly the ids in `held` between `floor` (exclusive) and `through` (inclusive), and never will
    take a normal add of another; below and above it says nothing. With `limbo` it denies nothing.
    """

    lac: int
    """This bookie's highest known LAC; enters LAC0 whenever its denials count."""
    floor: int
    """The larger of the floor asked for and `lac`: what this answer is about begins above it."""
    held: tuple[tuple[int, int], ...]
    """Ascending, disjoint ranges of ids above `floor`, exact, holes included."""
    through: int = ID_MAX
    """The answer is complete up to this id; lower than ID_MAX only when RANGES_MAX cut it."""
    limbo: bool = False


@message(10)
class ReadLac:
    """The highest LAC and the highest id known here. An unknown ledger is NO_LEDGER."""

    ledger_id: int


@message(11)
class LacReply:
    """Answer to ReadLac and WriteLac."""

    lac: int
    last_entry_id: int
    fenced: bool = False


@message(12)
class WriteLac:
    """Store an explicit LAC (4.8); the highest counts, and parked Tail requests wake up."""

    ledger_id: int
    master_key: bytes
    lac: int


@message(13)
class Held:
    """Which ids in `first`..`last` are stored here, without fencing."""

    ledger_id: int
    first: int
    last: int


@message(14)
class HeldReply:
    """Exact ranges up to `through`; see FenceReply."""

    held: tuple[tuple[int, int], ...]
    through: int
    limbo: bool = False


@message(15)
class ListLedgers:
    """Ids of ledgers stored here above `after`, at most `max_count` (bounded by the bookie too)."""

    after: int = NO_ENTRY_ID
    max_count: int = 0


@message(16)
class LedgerList:
    """Ascending ids; `more` says that others follow."""

    ledger_ids: tuple[int, ...]
    more: bool = False


BOOKIE_PROTOCOL = Protocol(
    "bookie",
    [
        Hello,
        HelloReply,
        Add,
        AddReply,
        Read,
        ReadReply,
        Tail,
        Fence,
        FenceReply,
        ReadLac,
        LacReply,
        WriteLac,
        Held,
        HeldReply,
        ListLedgers,
        LedgerList,
    ],
)
