"""The bookie's store: segments that are journal and data at once, and an index of extents (DESIGN 5).

    store = open_store(RealDisk(), directory, incarnation, fresh=False, notify=wakeup.set)
    store.add(extent, data, checksum, master_key, recovery=False, on_durable=answer)
    store.flush()                # at the end of a tick
    store.on_log()               # when the log's thread has reported: runs the callbacks

See `bookie.storage.store` for who moves what, `record` and `index_format` for what is on disk.
"""

from bookie.storage.errors import RefusedError, StoreDamagedError
from bookie.storage.inspect import inspect_index, inspect_segment_records
from bookie.storage.limits import StoreLimits
from bookie.storage.local_ledger import LocalLedger
from bookie.storage.opening import open_store
from bookie.storage.store import Store

__all__ = [
    "LocalLedger",
    "RefusedError",
    "Store",
    "StoreDamagedError",
    "StoreLimits",
    "inspect_index",
    "inspect_segment_records",
    "open_store",
]
