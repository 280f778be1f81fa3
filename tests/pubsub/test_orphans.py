"""Orphan ledgers and orphan cursor ledgers are found and deleted, live ones never (P1; checklist 4.1)."""

import cbor2

from coord.clock import SYSTEM_CLOCK
from pubsub.core.names import parse_topic
from pubsub.hub.orphans import ORPHAN_AGE_MS, OrphanCollector
from tests.pubsub.hubs import FakeHub, World, world

T = parse_topic("t")


def age_all(made: World) -> None:
    for ledger in made.bookies.ledgers.values():
        ledger.created_ms -= ORPHAN_AGE_MS + 1000


def collector(hub: FakeHub) -> OrphanCollector:
    return OrphanCollector(hub.holdings, SYSTEM_CLOCK, 3_600_000)


async def test_what_topics_and_live_hubs_use_is_kept() -> None:
    async with world() as made:
        hubs = [await made.hub(), await made.hub()]
        async with made.bus() as bus:
            for topic in ("t", "u", "v"):
                await bus.publish(topic, b"m")
            await bus.delete_topic("v")
            age_all(made)
            assert await collector(hubs[0]).pass_once() == []
            for topic in ("t", "u"):
                assert (await bus.publish(topic, b"m")).first == 2


async def test_ledgers_of_dead_hubs_that_nothing_names_go() -> None:
    async with world() as made:
        first = await made.hub()
        async with made.bus() as bus:
            await bus.publish("t", b"m")
            second = await made.hub()
            await first.kill()
            assert (await bus.publish("t", b"m")).first == 2
            orphan = made.bookies.make({"kind": b"topic", "topic": b"t"}, 3)
            old_cursors = [
                one.ledger_id
                for one in made.bookies.ledgers.values()
                if one.properties["kind"] == b"cursors" and one.is_closed
            ]
            age_all(made)
            assert await collector(second).pass_once() == sorted([*old_cursors, orphan.ledger_id])
            assert len(old_cursors) == 1


async def test_young_ledgers_and_those_of_others_are_left_alone() -> None:
    async with world() as made:
        hub = await made.hub()
        made.bookies.make({"kind": b"topic", "topic": b"t"}, 3)
        assert await collector(hub).pass_once() == []
        foreign = made.bookies.make({}, 3)
        foreign.created_ms = 0
        assert await collector(hub).pass_once() == []


async def test_nothing_is_deleted_while_a_record_cannot_be_read() -> None:
    async with world() as made:
        hub = await made.hub()
        async with made.bus() as bus:
            await bus.publish("t", b"m")
        made.bookies.make({"kind": b"topic", "topic": b"t"}, 3)
        age_all(made)
        good = made.ensemble.nodes[T.path].data
        made.ensemble.nodes[T.path].data = cbor2.dumps({"version": 99})
        assert await collector(hub).pass_once() == []
        made.ensemble.nodes[T.path].data = good
        assert len(await collector(hub).pass_once()) == 1
