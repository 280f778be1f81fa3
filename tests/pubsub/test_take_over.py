"""Ownership moves and nothing acknowledged is lost (spec 1.11, 2.1, 4.1; DESIGN 6), on fake ledgers and
metadata.
"""

from collections.abc import Callable

import pytest
import trio
import trio.testing

import coord
import pubsub
from pubsub.client.bus import Bus
from pubsub.client.subscription import Subscription
from pubsub.core.names import parse_topic
from pubsub.core.record import TopicRecord, decode_record
from pubsub.core.retention import RollPolicy
from tests.pubsub.fakes import FakeEnsemble, FakeWriter
from tests.pubsub.hubs import FakeHub, World, world

T = parse_topic("t")


def record_of(ensemble: FakeEnsemble) -> TopicRecord:
    return decode_record(ensemble.nodes[T.path].data, T.path)


def owner_of(made: World, *hubs: FakeHub) -> FakeHub:
    owner = record_of(made.ensemble).owner
    assert owner is not None
    return next(hub for hub in hubs if hub.address == owner.address)


def ledger_of(hub: FakeHub) -> FakeWriter:
    ledger = hub.holdings.topics[T].ledger
    assert isinstance(ledger, FakeWriter)
    return ledger


async def until(condition: Callable[[], bool]) -> None:
    """Lets everything else run until it holds; the world's deadline ends a vain wait."""
    while not condition():
        await trio.lowlevel.checkpoint()


async def take(messages: Subscription, count: int) -> list[bytes]:
    return [(await messages.__anext__()).data for _ in range(count)]


async def test_killed_owner_another_hub_goes_on_with_numbers_and_order() -> None:
    async with world() as made:
        hubs = [await made.hub(), await made.hub()]
        async with made.bus() as bus, bus.subscribe("t", "s") as messages:
            await bus.publish_many("t", [b"%d" % i for i in range(100)])
            first = owner_of(made, *hubs)
            await first.kill()
            receipt = await bus.publish_many("t", [b"%d" % i for i in range(100, 200)])
            assert (receipt.first, receipt.last) == (101, 200)
            assert await take(messages, 200) == [b"%d" % i for i in range(200)]
        record = record_of(made.ensemble)
        assert record.epoch == 2
        assert owner_of(made, *hubs) is not first


async def test_a_batch_whose_answer_was_lost_is_stored_once() -> None:
    """Takeover between add and answer (2.9): the retry is recognised from the headers in the ledger."""
    async with world() as made:
        hubs = [await made.hub(), await made.hub()]
        async with made.bus() as bus, bus.subscribe("t", "s", from_="earliest") as messages:
            await bus.publish("t", b"0")
            first = owner_of(made, *hubs)
            ledger = ledger_of(first)
            first.ledgers.is_held = True
            receipts = []

            async def publish() -> None:
                receipts.append(await bus.publish_many("t", [b"1", b"2"]))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish)
                await until(lambda: bool(ledger.pending))
                # Stored by the bookies, never confirmed to the hub.
                ledger._ledger.entries.append(ledger.pending[0][0])
                await first.kill()
            await bus.publish("t", b"3")
            assert await take(messages, 4) == [b"0", b"1", b"2", b"3"]
        assert receipts[0] == (2, 3, True)


async def test_an_unacknowledged_tail_that_was_cut_has_its_numbers_used_again() -> None:
    async with world() as made:
        hubs = [await made.hub(), await made.hub()]
        async with made.bus() as bus, bus.subscribe("t", "s", from_="earliest") as messages:
            await bus.publish("t", b"0")
            first = owner_of(made, *hubs)
            first.ledgers.is_held = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bus.publish, "t", b"1")
                await until(lambda: bool(ledger_of(first).pending))
                await first.kill()
            got = [await messages.__anext__() for _ in range(2)]
        assert [(message.sequence, message.data) for message in got] == [(1, b"0"), (2, b"1")]


async def test_a_subscription_does_not_start_at_a_number_that_a_take_over_may_give_away() -> None:
    """It begins behind the last pushed message, and exists only when that is confirmed."""
    async with world() as made:
        hubs = [await made.hub(), await made.hub()]
        async with made.bus() as bus, made.bus() as other, trio.open_nursery() as nursery:
            await bus.publish("t", b"0")
            first = owner_of(made, *hubs)
            first.ledgers.is_held = True
            nursery.start_soon(bus.publish, "t", b"1")
            await until(lambda: bool(ledger_of(first).pending))
            scope = trio.CancelScope()

            async def subscribe() -> None:
                with scope:
                    async with other.subscribe("t", "s"):
                        raise AssertionError("attached behind an unconfirmed message")

            nursery.start_soon(subscribe)
            await until(lambda: bool(first.holdings.topics[T]._confirmed))
            assert made.ensemble.children(T.subscriptions_path) == []
            scope.cancel()
            await first.kill()


async def test_positions_survive_the_owner() -> None:
    """The next owner reads the cursor ledger the record names, after fencing it."""
    async with world() as made:
        hubs = [await made.hub(), await made.hub()]
        async with made.bus() as bus:
            async with bus.subscribe("t", "s") as messages:
                await bus.publish_many("t", [b"%d" % i for i in range(10)])
                for _ in range(7):
                    message = await messages.__anext__()
                await messages.consume(message)
                await messages.flush()
            await owner_of(made, *hubs).kill()
            async with bus.subscribe("t", "s") as messages:
                assert (await messages.__anext__()).sequence == 8
            info = await bus.topic_info("t")
            assert [(one.id, one.consumed, one.backlog) for one in info.subscriptions] == [("s", 7, 3)]


async def test_flush_returns_on_a_topic_that_never_rests() -> None:
    """What is consumed by then is persisted, however much is published and consumed meanwhile."""
    async with world() as made:
        hub = await made.hub()
        async with made.bus() as bus, bus.subscribe("t", "s") as messages, trio.open_nursery() as nursery:

            async def keep_publishing() -> None:
                while True:
                    await bus.publish("t", b"m")

            nursery.start_soon(keep_publishing)
            for _ in range(20):
                message = await messages.__anext__()
                await messages.consume(message)
                await messages.flush()
                assert hub.holdings.topics[T].subscriptions["s"].persisted >= message.sequence
            nursery.cancel_scope.cancel()


async def test_a_live_subscriber_sees_nothing_twice_and_nothing_missing_over_a_take_over() -> None:
    async with world() as made:
        hubs = [await made.hub() for _ in range(3)]
        async with made.bus() as bus, made.bus() as other, other.subscribe("t", "s") as messages:
            for round_number in range(2):
                await bus.publish_many("t", [b"%d" % i for i in range(50)])
                assert await take(messages, 50) == [b"%d" % i for i in range(50)]
                await owner_of(made, *hubs).kill()
                assert messages.reattached in (round_number, round_number + 1)
            await bus.publish("t", b"last")
            assert await take(messages, 1) == [b"last"]


async def test_zombie_owner_is_refused_and_stops_delivering() -> None:
    """The owner is cut off, another hub steals, the old one comes back: it can store nothing and gives up."""
    async with world() as made:
        hubs = [await made.hub(), await made.hub()]
        async with made.bus() as bus, made.bus() as other:
            await bus.publish("t", b"0")
            zombie = owner_of(made, *hubs)
            thief = next(hub for hub in hubs if hub is not zombie)
            topic = zombie.holdings.topics[T]
            # Its ephemeral is gone, as after a long pause; it has not noticed.
            made.ensemble.end_session(zombie.zk.session_id)
            await thief.holdings.neighbours.refresh()
            stolen = await thief.holdings.hold(T, create=False)
            assert stolen.epoch == topic.epoch + 1
            async with other.subscribe("t", "s", from_="earliest") as messages:
                receipt = await bus.publish("t", b"1")
                assert receipt.first == 2
                assert await take(messages, 2) == [b"0", b"1"]
            assert topic.is_lost
            assert T not in zombie.holdings.topics


async def test_an_idle_deposed_owner_learns_it_from_its_fenced_cursor_ledger() -> None:
    """It has a subscriber and no publisher: its own writes once a second are what tells it."""
    async with world() as made:
        hubs = [await made.hub(), await made.hub()]
        async with made.bus() as bus, made.bus() as publisher, bus.subscribe("t", "s") as messages:
            await bus.publish("t", b"0")
            assert await take(messages, 1) == [b"0"]
            zombie = owner_of(made, *hubs)
            thief = next(hub for hub in hubs if hub is not zombie)
            # No notice from the thief, so that only the fenced ledger is left.
            made.ensemble.end_session(zombie.zk.session_id)
            await thief.holdings.neighbours.refresh()
            await thief.holdings.hold(T, create=False)
            await publisher.publish("t", b"1")
            assert await take(messages, 1) == [b"1"]
            assert messages.reattached == 1


async def test_p10_a_deposed_owner_cannot_create_subscriptions_and_learns_it_by_trying() -> None:
    async with world() as made:
        hubs = [await made.hub(cursor_interval_ms=3_600_000), await made.hub(cursor_interval_ms=3_600_000)]
        async with made.bus() as bus:
            await bus.publish("t", b"0")
            zombie = owner_of(made, *hubs)
            thief = next(hub for hub in hubs if hub is not zombie)
            made.ensemble.end_session(zombie.zk.session_id)
            await thief.holdings.neighbours.refresh()
            await thief.holdings.hold(T, create=False)
            topic = zombie.holdings.topics.get(T)
            async with bus.subscribe("t", "s", from_="earliest") as messages:
                assert await take(messages, 1) == [b"0"]
                assert list(thief.holdings.topics[T].subscriptions) == ["s"]
            assert topic is None or topic.is_lost or not topic.subscriptions


async def test_two_hubs_acquire_at_once_and_exactly_one_wins() -> None:
    async with world() as made:
        hubs = [await made.hub() for _ in range(4)]
        results: list[object] = []

        async def acquire(hub: FakeHub) -> None:
            try:
                results.append(await hub.holdings.hold(T, create=True))
            except pubsub.PubsubError as error:
                results.append(error)

        async with trio.open_nursery() as nursery:
            for hub in hubs:
                nursery.start_soon(acquire, hub)
        owner = owner_of(made, *hubs)
        assert [T in hub.holdings.topics for hub in hubs].count(True) == 1
        assert T in owner.holdings.topics
        async with made.bus() as bus:
            assert (await bus.publish("t", b"m")).first == 1


STEPS = {1, 2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize("step", sorted(STEPS))
async def test_owner_killed_at_each_step_of_acquisition(step: int) -> None:
    """Checklist 4.1: whoever acquires next has all acknowledged messages, and no number twice."""
    async with world() as made:
        first = await made.hub()
        async with made.bus() as bus:
            async with bus.subscribe("t", "s") as messages:
                await bus.publish_many("t", [b"%d" % i for i in range(20)])
                await messages.consume(5)
                await messages.flush()
            second = await made.hub()

            def die(at: int) -> None:
                if at == step:
                    second.die()

            second.holdings.acquisition.on_step = die
            await first.kill()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bus.publish, "t", b"20")
                await second.gone.wait()
                third = await made.hub()
            assert owner_of(made, third) is third
            async with bus.subscribe("t", "s") as messages:
                got = [await messages.__anext__() for _ in range(16)]
        numbers = [message.sequence for message in got]
        assert numbers == list(range(numbers[0], numbers[0] + 16))
        assert numbers[0] == 6
        assert [message.data for message in got if message.sequence <= 20] == [
            b"%d" % i for i in range(5, 20)
        ]
        assert got[15].data == b"20"


@pytest.mark.parametrize("lost", range(3))
async def test_p14_lost_answers_of_the_metadata_change_nothing(lost: int) -> None:
    """Creation, claim and opening are each settled by reading again: one epoch, one open ledger."""
    async with world() as made:
        hub = await made.hub()
        hub.zk.lose_answer_in = lost
        async with made.bus() as bus:
            await bus.publish("t", b"0")
            hub.zk.lose_answer_in = lost
            await hub.kill()
            await made.hub()
            assert (await bus.publish("t", b"1")).first == 2
        record = record_of(made.ensemble)
        assert record.epoch == 2
        assert [one.last for one in record.ranges] == [1, None]


async def test_an_add_failure_gives_the_topic_up_and_nothing_behind_it_is_acknowledged() -> None:
    """Checklist 4.1: add failure in a pipeline; the clients finish, in order, each message once."""
    async with world() as made:
        hub = await made.hub()
        asked: list[str] = []
        hub.ledgers.on_call = asked.append
        async with made.bus() as bus, bus.subscribe("t", "s", from_="earliest") as messages:
            await bus.publish("t", b"0")
            made.bookies.count = 1
            async with trio.open_nursery() as nursery:
                chunks = [await bus.publish_soon("t", [b"%d" % i]) for i in range(1, 50)]
                for chunk in chunks:
                    nursery.start_soon(chunk.wait)
                # Given up, wanted again, and not to be had.
                await until(lambda: asked.count("open_recovered") >= 2)
                assert not any(chunk.done.is_set() for chunk in chunks)
                made.bookies.count = 3
            assert await take(messages, 50) == [b"%d" % i for i in range(50)]
        assert record_of(made.ensemble).epoch >= 2


async def test_a_ledger_takes_the_copies_it_can_get_and_is_rolled_when_bookies_are_back() -> None:
    async with world() as made:
        made.bookies.count = 2
        hub = await made.hub(maintenance_interval_ms=10)
        async with made.bus() as bus, bus.subscribe("t", "s", from_="earliest") as messages:
            await bus.publish("t", b"0")
            assert [one.copies for one in (await bus.topic_info("t")).ledgers] == [2]
            made.bookies.count = 3
            while hub.holdings.topics[T].ledger.copies != 3:
                await bus.publish("t", b"m")
            await bus.publish("t", b"last")
            info = await bus.topic_info("t")
            assert info.ledgers[-1].copies == 3
            got = await take(messages, info.last_seq_id)
        assert (got[0], got[-1]) == (b"0", b"last")


async def publish_all(bus: Bus, count: int) -> None:
    for start in range(0, count, 10):
        await bus.publish_many("t", [b"%d" % i for i in range(start, start + 10)])


async def test_publishing_over_rolls_leaves_no_hole_and_one_scan_reads_it() -> None:
    """Checklist 4.1: 10 000 messages, many rolls; the scan crosses ledgers from a random place."""
    async with world() as made:
        policy = RollPolicy(bytes_max=4000)
        await made.hub(roll=policy, recent_bytes_max=100)
        async with made.bus() as bus:
            async with bus.subscribe("t", "s") as messages:
                await publish_all(bus, 10_000)
                ranges = record_of(made.ensemble).ranges
                assert len(ranges) > 20
                assert await take(messages, 10_000) == [b"%d" % i for i in range(10_000)]
                await messages.consume(4321)
                await messages.flush()
            async with bus.subscribe("t", "s") as messages:
                message = await messages.__anext__()
                assert (message.sequence, message.data) == (4322, b"4321")


async def test_consumed_ledgers_are_deleted_by_prefix_and_unconsumed_ones_kept() -> None:
    async with world() as made:
        hub = await made.hub(roll=RollPolicy(bytes_max=2000), maintenance_interval_ms=10)
        async with made.bus() as bus, bus.subscribe("t", "slow"), bus.subscribe("t", "s") as messages:
            await publish_all(bus, 1000)
            await take(messages, 1000)
            await messages.consume(1000)
            await messages.flush()
            assert record_of(made.ensemble).log_start == 1
            await bus.unsubscribe("t", "slow")
            await until(lambda: hub.holdings.topics[T].record.log_start > 900)
            await until(lambda: not record_of(made.ensemble).deleting)
            record = record_of(made.ensemble)
            listed = {one.ledger_id for one in record.ranges}
            assert listed <= set(made.bookies.ledgers)
            await bus.publish("t", b"on")
            assert await take(messages, 1) == [b"on"]


async def test_a_hub_whose_session_expired_drops_its_topics_at_once() -> None:
    async with world() as made:
        hubs = [await made.hub(), await made.hub()]
        async with made.bus() as bus, bus.subscribe("t", "s") as messages:
            await bus.publish("t", b"0")
            first = owner_of(made, *hubs)
            topic = first.holdings.topics[T]
            first.zk.expire()
            await until(lambda: topic.is_lost)
            assert (await bus.publish("t", b"1")).first == 2
            assert await take(messages, 2) == [b"0", b"1"]
            with pytest.raises(coord.SessionExpiredError):
                await first.zk.get(T.path)


async def test_a_clean_release_leaves_no_owner_and_a_sealed_ledger() -> None:
    async with world() as made:
        hub = await made.hub()
        async with made.bus() as bus:
            await bus.publish("t", b"0")
            await hub.stop()
            record = record_of(made.ensemble)
            assert record.owner is None
            assert record.ranges[-1].last == 1
            await made.hub()
            assert (await bus.publish("t", b"1")).first == 2


async def test_a_hub_that_stops_while_a_topic_is_rolled_ends_in_order() -> None:
    """The roll waits for a publish, the release for the roll; then all is stored, and nobody owns it."""
    async with world() as made:
        made.bookies.count = 2
        hub = await made.hub(maintenance_interval_ms=10)
        async with made.bus() as bus, trio.open_nursery() as nursery:
            await bus.publish("t", b"0")
            hub.ledgers.is_held = True
            nursery.start_soon(bus.publish, "t", b"1")
            await until(lambda: bool(ledger_of(hub).pending))
            ledgers = len(made.bookies.ledgers)
            made.bookies.count = 3  # so it is to be rolled
            await until(lambda: len(made.bookies.ledgers) > ledgers)
            await trio.testing.wait_all_tasks_blocked()
            hub.stopping.set()
            await trio.testing.wait_all_tasks_blocked()
            hub.ledgers.release()
            await hub.gone.wait()
            record = record_of(made.ensemble)
            assert record.owner is None
            assert record.ranges[-1].last == 2
            await made.hub()
            assert (await bus.publish("t", b"2")).first == 3


async def test_append_time_is_monotone_across_owners() -> None:
    async with world() as made:
        hubs = [await made.hub(), await made.hub()]
        async with made.bus() as bus, bus.subscribe("t", "s") as messages:
            await bus.publish("t", b"0")
            first = owner_of(made, *hubs)
            first.holdings.topics[T].append_time_ms += 3_600_000
            await bus.publish("t", b"1")
            await first.kill()
            await bus.publish("t", b"2")
            times = [(await messages.__anext__()).time_ms for _ in range(3)]
        assert times[1] - times[0] >= 3_500_000
        assert times[2] >= times[1]
