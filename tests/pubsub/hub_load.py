"""A publisher and a subscriber on a topic of real hubs, and what must have arrived at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

import pubsub
from pubsub.client.subscription import Subscription
from tests.bookie.bookie_servers import BookieServers
from tests.pubsub.hub_servers import HubServer, HubServers

SECONDS_MAX = 100


@dataclass
class Cluster:
    hosts: str
    bookies: BookieServers
    hubs: HubServers

    async def owner(self, bus: pubsub.Bus, topic: str) -> HubServer:
        return self.hubs.at((await bus.topic_info(topic)).owner)


class Numbers:
    """Publishes 0, 1, 2, ... in lists until told to stop."""

    def __init__(self, bus: pubsub.Bus, topic: str) -> None:
        self.acknowledged = 0
        self._bus = bus
        self._topic = topic
        self._stop = False
        self._sent = 0

    async def run(self) -> None:
        while not self._stop:
            numbers = range(self._sent, self._sent + 50)
            self._sent += 50
            await self._bus.publish_many(self._topic, [b"%d" % number for number in numbers])
            self.acknowledged = self._sent
            await trio.sleep(0.002)
        await self._bus.publish(self._topic, b"end")

    def stop(self) -> None:
        self._stop = True


class Reader:
    """Takes everything and checks that it is 0, 1, 2, ... without a hole, a repeat or another order."""

    def __init__(self) -> None:
        self.received = 0

    async def run(self, messages: Subscription) -> None:
        async for message in messages:
            if message.data == b"end":
                return
            assert message.data == b"%d" % self.received
            self.received += 1
            await messages.consume(message)

    async def wait_more(self) -> None:
        before = self.received
        while self.received == before:  # noqa: ASYNC110
            await trio.sleep(0.002)


async def goes_on(numbers: Numbers, reader: Reader) -> None:
    """Until the reader has something that was published from now on; what was under way before says nothing
    of who serves the topic now.
    """
    for _ in range(2):  # the first list may have been sent before
        before = numbers.acknowledged
        while numbers.acknowledged == before:  # noqa: ASYNC110
            await trio.sleep(0.002)
    sent = numbers.acknowledged
    while reader.received < sent:  # noqa: ASYNC110
        await trio.sleep(0.002)


@asynccontextmanager
async def under_load(cluster: Cluster, topic: str) -> AsyncIterator[tuple[pubsub.Bus, Numbers, Reader]]:
    """A publisher and a subscriber at work; after the block both end and everything must be there."""
    reader = Reader()
    with trio.fail_after(SECONDS_MAX):
        async with (
            pubsub.connect(cluster.hosts) as bus,
            pubsub.connect(cluster.hosts) as other,
            other.subscribe(topic, "reader") as messages,
            trio.open_nursery() as nursery,
        ):
            numbers = Numbers(bus, topic)
            nursery.start_soon(numbers.run)
            nursery.start_soon(reader.run, messages)
            await reader.wait_more()
            yield bus, numbers, reader
            numbers.stop()
    assert reader.received == numbers.acknowledged
