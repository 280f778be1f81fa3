"""`zoolog inspect txnlog FILE` and `zoolog inspect checkpoint DIR`: rows for people; damage becomes a row."""

from collections.abc import Iterator
from dataclasses import dataclass

from coord.disk import Disk
from coord.log import LogDamagedError, inspect_segment
from coord.storage.checkpoint import STATE_KEY, CheckpointDamagedError, decode_state, read_nodes
from coord.storage.environment import META, EnvironmentFailedError, Environments
from coord.storage.txnlog import KIND_BATCH, decode_record

__all__ = ["CheckpointRow", "TxnRow", "inspect_checkpoint", "inspect_txnlog"]


@dataclass(frozen=True, slots=True)
class TxnRow:
    """One line about a transaction log segment.

    Attributes:
        kind: "segment", "batch", "mark", "zeros", "torn", "full" or "damage" (`SegmentRow`).
        facts: name and value pairs, ready to print.
        payload: a batch's bytes, for `coord.protocol.batch`.
    """

    kind: str
    offset: int
    length: int
    facts: dict[str, str]
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """One line about a checkpoint.

    Attributes:
        kind: "state", "node" or "damage".
        number: the node's.
        payload: the encoded node, or the state's facts.
    """

    kind: str
    number: int
    facts: dict[str, str]
    payload: bytes = b""


def inspect_txnlog(disk: Disk, path: str) -> Iterator[TxnRow]:
    """Rows of one segment of the transaction log, without changing it.

    Raises:
        OSError: the file cannot be read.
    """
    for row in inspect_segment(disk, path):
        if row.kind != "record":
            yield TxnRow(row.kind, row.offset, row.length, row.facts)
            continue
        try:
            batch = decode_record(row.payload, path, row.offset)
        except LogDamagedError as damage:
            yield TxnRow("damage", row.offset, row.length, {"problem": str(damage)})
            continue
        facts = {
            "zxids": f"{batch.first:#x}-{batch.last:#x}",
            "previous": f"{batch.previous:#x}",
            "committed": f"{batch.committed:#x}",
            **row.facts,
        }
        kind = "batch" if batch.kind == KIND_BATCH else "mark"
        yield TxnRow(kind, row.offset, row.length, facts, batch.payload)


def inspect_checkpoint(environments: Environments, path: str) -> Iterator[CheckpointRow]:
    """Rows of a checkpoint's environment, every value verified. Not while a server has it open."""
    try:
        environment = environments.open(path)
    except EnvironmentFailedError as error:
        yield CheckpointRow("damage", 0, {"problem": str(error)})
        return
    try:
        transaction = environment.read()
        try:
            sealed = transaction.get(META, STATE_KEY)
            if sealed is None:
                yield CheckpointRow("damage", 0, {"problem": f"{path}: there is no checkpoint"})
                return
            state = decode_state(sealed, path)
            facts = {"zxid": f"{state.zxid:#x}", "nodes": str(state.nodes)}
            yield CheckpointRow("state", 0, facts, state.facts)
            for run in read_nodes(transaction, path):
                for number, value in run:
                    yield CheckpointRow("node", number, {"bytes": str(len(value))}, value)
        finally:
            transaction.close()
    except (CheckpointDamagedError, EnvironmentFailedError) as error:
        yield CheckpointRow("damage", 0, {"problem": str(error)})
    finally:
        environment.close()
