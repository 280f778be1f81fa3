"""Serving a subscriber from ledgers until memory holds what is due, or its credit is spent."""

from collections.abc import Callable
from typing import Final

import trio

from coord import eventlog
from pubsub.core.batch import KIND_INDEX, decode_hub_header
from pubsub.core.errors import CorruptBatchError, PubsubError, RecordError, ServiceDownError
from pubsub.core.index import EntrySearch, decode_marker
from pubsub.hub.delivery import Delivery
from pubsub.hub.seams import LedgerGoneError, LedgerReader, Ledgers, LedgerStoreError, LedgerWriter
from pubsub.hub.topic import Topic

RETRY_DELAY_S: Final = 0.2
HEADER_READ_BYTES: Final = 1

log = eventlog.get("pubsub.hub")


async def read_for(delivery: Delivery, ledgers: Ledgers, bytes_max: int, flush: Callable[[], None]) -> None:
    """One reading task; at most one for each delivery. Ends with `pump`, which goes on from memory."""
    topic = delivery.topic
    try:
        while (
            not delivery.is_closed
            and not topic.is_lost
            and delivery.window.open
            and delivery.next < topic.recent.start
        ):
            try:
                await _read_once(delivery, ledgers, bytes_max)
            except LedgerGoneError:
                _skip_gap(delivery)
            except LedgerStoreError as error:
                log.info(
                    "read for a subscriber failed, trying again", topic=str(topic.name), error=str(error)
                )
                await trio.sleep(RETRY_DELAY_S)
            flush()
    except (CorruptBatchError, PubsubError) as error:
        log.error(
            "stored batch is damaged",
            do="restore the ledger from another bookie",
            topic=str(topic.name),
            error=str(error),
        )
        delivery.close(RecordError(f"{topic.name}: {error}"))
    except Exception as error:  # the boundary: one subscriber's read must not end the hub for all others
        log.error("read failed unexpectedly", do="report this", topic=str(topic.name), trace=error)
        delivery.close(ServiceDownError(f"the hub failed: {error}"))
    finally:
        delivery.is_reading = False
    delivery.pump()
    flush()


async def _read_once(delivery: Delivery, ledgers: Ledgers, bytes_max: int) -> None:
    """One batch read and one frame."""
    topic = delivery.topic
    sequence = max(delivery.next, topic.record.log_start)
    delivery.next = sequence
    found = next((one for one in topic.record.ranges if one.last is None or one.last >= sequence), None)
    assert found is not None, f"{sequence} is neither in a range nor in memory"
    ledger: LedgerReader | LedgerWriter
    if found.last is None:
        ledger, last_entry = topic.ledger, topic.index.entry_of(topic.high_watermark)
    else:
        ledger = await _reader(topic, ledgers, found.ledger_id)
        last_entry = ledger.last_entry
    hint = delivery.hint
    if hint is not None and hint[0] == ledger.ledger_id and hint[2] == sequence:
        entry_id = hint[1]
    elif found.last is None:
        entry_id = topic.index.entry_of(sequence)
    else:
        entry_id = await _find(ledger, last_entry, found.first, sequence)
    entries = await ledger.read(entry_id, last_entry, min(bytes_max, max(1, delivery.window.bytes)))
    if delivery.is_closed or topic.is_lost:
        return
    ready = []
    messages = 0
    end = sequence
    for entry in entries:
        header = decode_hub_header(entry)
        if header.first > topic.high_watermark:
            break
        entry_id += 1
        if header.count:
            ready.append(entry)
            messages += header.count
            end = header.last + 1
    delivery.hint = (ledger.ledger_id, entry_id, end)
    if ready:
        delivery.send(ready, messages, end)


async def _reader(topic: Topic, ledgers: Ledgers, ledger_id: int) -> LedgerReader:
    reader = topic.readers.get(ledger_id)
    if reader is None:
        reader = await ledgers.open_recovered(ledger_id)
        if topic.is_lost:
            reader.close()
            raise LedgerStoreError("the topic was lost")
        topic.readers.setdefault(ledger_id, reader)
    return reader


async def _find(ledger: LedgerReader | LedgerWriter, last_entry: int, first: int, sequence: int) -> int:
    """The entry of a closed ledger that holds `sequence`: from its index marker, else by binary search."""
    if last_entry > 0:
        (entry,) = await ledger.read(last_entry, last_entry, HEADER_READ_BYTES)
        if decode_hub_header(entry).kind == KIND_INDEX:
            return decode_marker(entry, first).entry_of(sequence)
    search = EntrySearch(sequence, last_entry)
    while (probe := search.probe) is not None:
        (entry,) = await ledger.read(probe, probe, HEADER_READ_BYTES)
        search.found(probe, decode_hub_header(entry).first)
    return search.result


def _skip_gap(delivery: Delivery) -> None:
    """A ledger was deleted under the reader: what is left begins at the log's start."""
    topic = delivery.topic
    start = topic.record.log_start
    log.warning(
        "messages were deleted before this subscriber had them",
        topic=str(topic.name),
        subscription=delivery.subscription.name,
        first=delivery.next,
        last=start - 1,
    )
    delivery.next = max(delivery.next + 1, start)
    delivery.hint = None
