"""The topics of one hub at one registration: which it holds, and how it comes to hold one.

All requests for a topic that is not held wait for one decision (`pubsub.core.ownership.decide`), which ends
in a redirect, in an error, or in an acquisition. A `Holdings` lives as long as the hub's session: when that
expires, every topic is lost and a new one begins.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Final

import trio

import coord
from coord import eventlog
from coord.clock import Clock
from pubsub.core.errors import (
    CorruptBatchError,
    NotOwnerError,
    OwnerBusyError,
    PubsubError,
    RecordError,
    ServiceDownError,
    StorageUnavailableError,
    UnknownTopicError,
)
from pubsub.core.names import TopicName
from pubsub.core.ownership import Claim, Create, Probe, ProbeResult, Redirect, Unknown, decide, still_owner
from pubsub.core.record import STATE_DELETED, Owner, TopicRecord
from pubsub.hub.acquire import Acquisition
from pubsub.hub.config import HubConfig
from pubsub.hub.cursors import CursorLedger, CursorReader
from pubsub.hub.delivery import Delivery
from pubsub.hub.probe import Prober, tell_deposed
from pubsub.hub.reading import read_for
from pubsub.hub.recent import RecentBudget, RecentEntries
from pubsub.hub.registration import Neighbours
from pubsub.hub.seams import Ledgers, LedgerStoreError
from pubsub.hub.topic import Topic
from pubsub.metadata import ConflictError, TopicStore

ATTEMPTS_MAX: Final = 12
ACQUIRE_DEADLINE_S: Final = 30.0

log = eventlog.get("pubsub.hub")


class _Waiting:
    """Requests that wait for one topic's decision."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: PubsubError | None = None


class Holdings:
    """The owned topics, and the tasks around them.

    Args:
        nursery: for reading tasks and notices; ends with the session.
        flush: has what connections are owed sent soon, after work outside a tick.
        on_roll_due: a topic's ledger is full.
    """

    def __init__(
        self,
        config: HubConfig,
        me: Owner,
        store: TopicStore,
        ledgers: Ledgers,
        neighbours: Neighbours,
        clock: Clock,
        chance: Random,
        nursery: trio.Nursery,
        flush: Callable[[], None],
        on_roll_due: Callable[[Topic], None],
    ) -> None:
        self.config = config
        self.me = me
        self.store = store
        self.ledgers = ledgers
        self.topics: dict[TopicName, Topic] = {}
        self.is_ended = False
        self.acquired = 0
        self.cursor_ledger = CursorLedger(
            ledgers, me.registration, config.cursor_interval_ms, config.cursor_roll_entries, self.verify_all
        )
        self.acquisition = Acquisition(
            store,
            ledgers,
            self.cursor_ledger,
            CursorReader(ledgers),
            now_ms=clock.monotonic_ms,
            wall_ms=clock.wall_ms,
        )
        self.prober = Prober(clock)
        self.neighbours = neighbours
        self._clock = clock
        self._chance = chance
        self._nursery = nursery
        self._flush = flush
        self._on_roll_due = on_roll_due
        self._waiting: dict[TopicName, _Waiting] = {}
        self._budget = RecentBudget(config.recent_total_bytes_max)

    # -- getting hold of a topic
    # -------------------------------------------------------------------------------------

    async def hold(self, name: TopicName, *, create: bool, suspect: str = "") -> Topic:
        """The topic, acquired if nobody else serves it.

        Args:
            create: bring it into being if it does not exist.
            suspect: an owner's address the asker could not reach; it is probed even if it just answered.

        Raises:
            NotOwnerError: another hub serves it.
            UnknownTopicError, OwnerBusyError, StorageUnavailableError, ServiceDownError, RecordError
        """
        while True:
            topic = self.topics.get(name)
            if topic is not None:
                return topic
            if self.is_ended:
                raise ServiceDownError("this hub has lost its session with the coordination service")
            waiting = self._waiting.get(name)
            if waiting is None:
                return await self._hold_first(name, create, suspect)
            await waiting.done.wait()
            if waiting.error is not None:
                raise waiting.error

    async def _hold_first(self, name: TopicName, create: bool, suspect: str) -> Topic:
        waiting = self._waiting[name] = _Waiting()
        # Until it is known better: a cancelled decision is nobody's answer.
        waiting.error = OwnerBusyError("the hub is stopping")
        try:
            with trio.fail_after(ACQUIRE_DEADLINE_S):
                topic = await self._decide(name, create, suspect)
            waiting.error = None
            return topic
        except (trio.TooSlowError, LedgerStoreError) as error:
            waiting.error = StorageUnavailableError(
                f"{name} cannot be acquired: {error or 'it takes too long'}"
            )
            log.warning(
                "topic not acquired", topic=str(name), error=str(error), do="check that bookies are up"
            )
            raise waiting.error from error
        except (coord.SessionExpiredError, coord.CoordError) as error:
            waiting.error = ServiceDownError(f"no decision about {name}: {error}")
            raise waiting.error from error
        except CorruptBatchError as error:
            waiting.error = RecordError(f"{name}: its ledger ends in a damaged entry: {error}")
            raise waiting.error from error
        except PubsubError as error:
            waiting.error = error
            raise
        finally:
            del self._waiting[name]
            waiting.done.set()

    async def _decide(self, name: TopicName, create: bool, suspect: str) -> Topic:
        probe: ProbeResult | None = None
        for _ in range(ATTEMPTS_MAX):
            stored = await self.store.read(name)
            record, version = (None, -1) if stored is None else stored
            registered = self.neighbours.registered
            decision = decide(record, self.me, registered, probe, create=create, chance=self._chance)
            if isinstance(decision, Claim) and decision.dead and decision.dead.registration not in registered:
                # Our list may lag behind a hub that has just registered: look before it is robbed.
                await self.neighbours.refresh()
                registered = self.neighbours.registered
                decision = decide(record, self.me, registered, probe, create=create, chance=self._chance)
            match decision:
                case Unknown():
                    raise UnknownTopicError(f"topic {name} does not exist")
                case Redirect(address, epoch):
                    raise NotOwnerError(f"{address} {epoch}")
                case Probe(owner):
                    probe = await self.prober.probe(owner, fresh=owner.address == suspect)
                    continue
                case Create() | Claim():
                    topic = await self._try_acquire(name, record, version, decision)
                    if topic is not None:
                        return topic
            probe = None
        raise OwnerBusyError(f"several hubs want {name}, ask again")

    async def _try_acquire(
        self, name: TopicName, record: TopicRecord | None, version: int, decision: Create | Claim
    ) -> Topic | None:
        """One acquisition; None when another hub was faster."""
        begun_ms = self._clock.monotonic_ms()
        try:
            if record is None:
                topic_id = self._chance.randbytes(16)
                claimed = TopicRecord(topic_id, created_ms=self._clock.wall_ms()).claimed(self.me)
                version = await self.store.create(name, claimed)
            else:
                assert isinstance(decision, Claim)
                await trio.sleep(decision.delay_ms / 1000)
                claimed = record.claimed(self.me)
                version = await self.store.claim(name, claimed, version)
                if decision.dead is not None:
                    self._nursery.start_soon(tell_deposed, decision.dead, str(name), claimed.epoch)
            if claimed.state == STATE_DELETED:
                await self._finish_deletion(name, claimed, version)
                return None
            acquired = await self.acquisition.acquire(name, claimed, version)
        except ConflictError as error:
            log.info("another hub was faster", topic=str(name), error=str(error))
            return None
        config = self.config
        first = acquired.record.ranges[-1].first
        topic = Topic(
            name,
            acquired.record,
            acquired.version,
            acquired.ledger,
            RecentEntries(first, config.recent_bytes_max, self._budget),
            acquired.dedup,
            acquired.append_time_ms,
            self._clock,
            self,
            config.roll.bytes_max,
            config.dedup_replay_bytes_max,
        )
        topic.subscriptions = acquired.subscriptions
        if self.is_ended:
            topic.lose(NotOwnerError(""), "session expired")
            raise ServiceDownError("this hub has lost its session with the coordination service")
        self.topics[name] = topic
        self.cursor_ledger.serve(topic)
        self.acquired += 1
        log.info(
            "topic acquired",
            topic=str(name),
            epoch=topic.epoch,
            next=first,
            copies=topic.ledger.copies,
            ms=self._clock.monotonic_ms() - begun_ms,
        )
        return topic

    # -- losing one
    # --------------------------------------------------------------------------------------------------

    async def verify_all(self) -> None:
        """After the cursor ledger was fenced or replaced: keep what is still ours, and make it name the new
        one.
        """
        for topic in list(self.topics.values()):
            await self.verify(topic)

    async def verify(self, topic: Topic) -> None:
        """Gives the topic up if its record names somebody else, and has it name the present cursor ledger."""
        while not topic.is_lost:
            stored = await self.store.read(topic.name)
            record = None if stored is None else stored[0]
            if record is None or not still_owner(record, self.me, topic.epoch):
                address = "" if record is None or record.owner is None else record.owner.address
                text = f"{address} {record.epoch}" if record is not None and address else ""
                topic.lose(NotOwnerError(text), f"deposed by {address or 'nobody'}")
                self._flush()
                return
            ledger_id = self.cursor_ledger.ledger_id
            if ledger_id is None or record.cursors == (ledger_id,):
                return
            with suppress(ConflictError):
                await self.change_record(topic, partial(TopicRecord.with_cursors, cursors=(ledger_id,)))

    async def change_record(self, topic: Topic, change: Callable[[TopicRecord], TopicRecord]) -> None:
        """Writes a change of an owned topic's record; one at a time for each topic.

        Raises:
            ConflictError: somebody else wrote the record; the topic was given up.
        """
        async with topic.record_lock:
            if topic.is_lost:
                raise ConflictError(f"{topic.name} was lost")
            record = change(topic.record)
            try:
                topic.version = await self.store.write(topic.name, record, topic.version)
            except ConflictError as error:
                topic.lose(NotOwnerError(""), f"record changed by somebody else: {error}")
                self._flush()
                raise
            topic.record = record

    def end(self, why: str) -> None:
        """The registration is over: every topic is lost, nothing is acquired any more."""
        self.is_ended = True
        for topic in list(self.topics.values()):
            topic.lose(NotOwnerError(""), why)
        self.cursor_ledger.abandon()
        self._flush()

    async def _finish_deletion(self, name: TopicName, record: TopicRecord, version: int) -> None:
        for ledger_id in record.deleting:
            await self.ledgers.delete(ledger_id)
        await self.store.remove(name, version)

    async def delete(self, topic: Topic) -> None:
        """Deletes an owned topic: marked in its record first, so that a crash is finished by whoever is asked
        next.

        Raises:
            ConflictError: the topic was lost.
            LedgerStoreError: some ledger could not be deleted; it will be when the topic is asked for again.
        """
        await self.change_record(topic, TopicRecord.deleted)
        topic.lose(UnknownTopicError(f"topic {topic.name} was deleted"), "deleted")
        await self._finish_deletion(topic.name, topic.record, topic.version)

    # -- TopicEvents
    # -------------------------------------------------------------------------------------------------

    def on_lost(self, topic: Topic) -> None:
        if self.topics.get(topic.name) is topic:
            del self.topics[topic.name]
        self.cursor_ledger.forget(topic)
        log.info("topic given up", topic=str(topic.name), epoch=topic.epoch, why=topic.lost_because)

    def on_dirty(self, topic: Topic) -> None:
        self.cursor_ledger.on_dirty(topic, urgent=topic.dirty_bytes >= self.config.dedup_replay_bytes_max)

    def on_output(self) -> None:
        self._flush()

    def on_roll_due(self, topic: Topic) -> None:
        self._on_roll_due(topic)

    def start_reading(self, delivery: Delivery) -> None:
        self._nursery.start_soon(read_for, delivery, self.ledgers, self.config.catch_up_bytes, self._flush)
