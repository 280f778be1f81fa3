"""`zoolog inspect segment|index FILE` for a bookie's files: rows for people; damage becomes a row."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import lmdb

from bookie.ledger.extent import Extent, ExtentError
from bookie.storage import record as records
from bookie.storage.index_format import (
    TABLES,
    IndexDamagedError,
    decode_ledger,
    decode_number,
    decode_pair,
    decode_run,
    key_id,
)
from bookie.storage.record import RecordDamagedError, RecordUnknownError
from coord.disk import Disk
from coord.log import inspect_segment


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what it is, where it is, and name and value pairs ready to print."""

    kind: str
    offset: int
    length: int
    facts: dict[str, str] = field(default_factory=dict)


def inspect_segment_records(disk: Disk, path: str) -> Iterator[Row]:
    """Every record of a segment, without changing it.

    Raises:
        OSError: the file cannot be read.
    """
    for row in inspect_segment(disk, path):
        if row.kind != "record":
            yield Row(row.kind, row.offset, row.length, row.facts)
            continue
        try:
            for record in records.iterate_records(row.payload):
                facts = {"group": row.facts.get("group", ""), **_record_facts(record)}
                yield Row(records.KINDS[record.kind], row.offset + record.start, record.length, facts)
        except (RecordDamagedError, RecordUnknownError) as error:
            yield Row("damage", row.offset, row.length, {"problem": str(error)})


def inspect_index(path: str) -> Iterator[Row]:
    """Every value of an index, by table; `offset` and `length` are those of the value in bytes, 0 and its
    size.

    Raises:
        OSError: there is no index.
    """
    if not os.path.exists(os.path.join(path, "data.mdb")):
        raise FileNotFoundError(f"no index at {path}")
    try:
        env = lmdb.open(
            path, readonly=True, max_dbs=len(TABLES), lock=os.path.exists(os.path.join(path, "lock.mdb"))
        )
    except lmdb.Error as error:
        yield Row("damage", 0, 0, {"problem": str(error)})
        return
    try:
        for table in reversed(TABLES):
            handle = env.open_db(table, create=False)
            with env.begin(db=handle) as txn, txn.cursor() as cursor:
                for key, value in cursor:
                    try:
                        facts = _index_facts(table, key, value)
                    except IndexDamagedError as error:
                        facts = {"problem": str(error)}
                    kind = "damage" if "problem" in facts else table.decode()
                    yield Row(kind, 0, len(value), facts)
    except lmdb.Error as error:
        yield Row("damage", 0, 0, {"problem": str(error)})
    finally:
        env.close()


def _record_facts(record: records.Record) -> dict[str, str]:
    match record.kind:
        case records.OPENED:
            return {"incarnation": f"{int.from_bytes(record.body[:8], 'little'):016x}"}
        case records.EXTENT:
            return _extent_facts(record.body)
        case records.MOVED:
            segment, offset, body = records.moved_from(record)
            return {"from": f"{segment:016x}:{offset}", **_extent_facts(body)}
        case records.LAC:
            return {"ledger": str(records.ledger_of(record)), "lac": str(records.lac_of(record))}
        case _:
            return {"ledger": str(records.ledger_of(record))}


def _extent_facts(body: bytes) -> dict[str, str]:
    try:
        extent = Extent(body)
    except ExtentError as error:
        raise RecordDamagedError(str(error)) from error
    return {
        "ledger": str(extent.ledger_id),
        "entries": f"{extent.first_entry_id}..{extent.last_entry_id}",
        "lac": str(extent.lac),
        "payload_bytes": str(extent.payload_bytes),
        "seal": extent.kind.name.lower(),
    }


def _index_facts(table: bytes, key: bytes, value: bytes) -> dict[str, str]:
    if table == b"ledgers":
        ledger = decode_ledger(key, value)
        return {
            "ledger": str(key_id(key)),
            "fenced": str(ledger.fenced).lower(),
            "deleting": str(ledger.deleting).lower(),
            "lac": str(ledger.lac),
            "last_entry": str(ledger.last_entry_id),
            "runs": str(ledger.runs),
        }
    if table == b"runs":
        ledger_id, run = decode_run(key, value)
        return {
            "ledger": str(ledger_id),
            "entries": f"{run.first}..{run.last}",
            "place": f"{run.segment:016x}:{run.offset}",
            "record_bytes": str(run.length),
            "live_bytes": str(run.live_bytes),
        }
    if table == b"segments":
        runs, live = decode_pair(key, value)
        return {"segment": f"{key_id(key):016x}", "runs": str(runs), "live_bytes": str(live)}
    if table == b"tombstones":
        return {"ledgers": f"{decode_number(key, value)}..{key_id(key)}"}
    name = key.decode("ascii", "backslashreplace")
    if name == "format":
        return {name: str(decode_number(key, value))}
    if name == "identity":
        return {"incarnation": f"{decode_number(key, value):016x}"}
    first, second = decode_pair(key, value)
    if name == "mark":
        return {name: f"{first:016x}:{second}"}
    return {name: str(first), "digest": f"{second:016x}"}
