"""What operators watch of a bookie (spec 14.3); hot paths count in plain ints, this only reads them."""

from collections.abc import Callable

from bookie.ledger import wire
from bookie.server.reader import SegmentReader
from bookie.server.requests import Requests
from bookie.storage import Store
from coord.metrics import Registry
from coord.reactor import Reactor

_KINDS = (
    wire.Add,
    wire.Read,
    wire.Tail,
    wire.Fence,
    wire.ReadLac,
    wire.WriteLac,
    wire.Held,
    wire.ListLedgers,
)

_STORE_GAUGES = {
    "entries_added": "Entries accepted since the start",
    "bytes_added": "Bytes of extents accepted since the start",
    "unlogged_bytes": "Bytes accepted and not yet durable",
    "cache_bytes": "Bytes of recent extents in memory",
    "recent_runs": "Index runs in memory, to be written by the next checkpoint",
    "ledgers_in_memory": "Ledgers whose state is in memory",
    "checkpoints": "Checkpoints since the start",
}


def make_registry(store: Store, requests: Requests, reader: SegmentReader, reactor: Reactor) -> Registry:
    """A registry that reads the parts of one bookie when asked."""
    registry = Registry()

    def read_store(name: str) -> Callable[[], float]:
        return lambda: store.statistics()[name]

    def read_count(kind: type) -> Callable[[], float]:
        return lambda: requests.counts.get(kind, 0)

    for name, text in _STORE_GAUGES.items():
        registry.gauge(name, text, read_store(name))
    for kind in _KINDS:
        labels = {"kind": kind.__name__.lower()}
        registry.gauge("requests", "Requests by kind", read_count(kind), labels=labels)
    registry.gauge("refused", "Requests refused", lambda: sum(requests.refused.values()))
    registry.gauge("parked", "Requests that wait for a LAC", lambda: len(requests.waiting))
    registry.gauge("read_turns", "Turns of the reading thread", lambda: reader.turns)
    registry.gauge("peers", "Open connections", lambda: requests.peers)
    registry.gauge("read_only", "1 while normal adds are refused", lambda: store.read_only)
    registry.gauge("ticks", "Ticks of the reactor", lambda: reactor.statistics().ticks)
    registry.gauge("segments", "Segments of the log", lambda: len(store.log.segments()))
    registry.gauge("log_groups", "Groups written to the log", lambda: store.writer.groups)
    return registry
