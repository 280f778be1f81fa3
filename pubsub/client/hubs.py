"""Which hubs there are, and links to them: one for each, shared by everything a bus does."""

from collections.abc import Callable
from random import Random
from typing import Any, Final, Protocol

import trio

import coord
from coord import eventlog, rpc
from pubsub.core.errors import PubsubError, ServiceDownError, UncertainError, error_from_code
from pubsub.core.names import HUBS_PATH
from pubsub.core.record import decode_map
from pubsub.core.wire import (
    FRAME_BYTES_MAX,
    HUB_PROTOCOL,
    PROTOCOL_VERSION,
    Closed,
    Deliver,
    Hello,
    HelloReply,
    Locate,
    Located,
    Moved,
)

KEEP_ALIVE_S: Final = 0.5
"""A silent link is asked for a sign of life this often."""
SILENCE_S: Final = 2.0
"""A hub that has not answered for so long is taken for gone; the topic is located through another."""
CONNECT_DEADLINE_S: Final = 1.0
BACKOFF_S: Final = (0.01, 1.0)
"""First and longest pause between tries to find a topic's hub; doubled each time, with jitter."""
LINK_INFLIGHT_MAX: Final = 4096
LINK_BYTES_MAX: Final = 64 << 20

log = eventlog.get("pubsub.client")


class DeliveryEnd(Protocol):
    """A subscription as its link sees it."""

    def on_deliver(self, message: Deliver, body: memoryview) -> None: ...

    def on_moved(self) -> None: ...

    def on_closed(self, error: PubsubError) -> None: ...


class HubLink:
    """A connection to one hub."""

    def __init__(self, link: rpc.Link, hello: HelloReply) -> None:
        self.link = link
        self.address = hello.address
        self.batch_bytes_max = hello.batch_bytes_max
        self.deliveries: dict[int, DeliveryEnd] = {}
        self.on_lost: set[Callable[[], None]] = set()
        self._next_channel = 1
        link.on_message = self._on_message
        link.on_closed = self._on_closed

    @property
    def is_closed(self) -> bool:
        return self.link.is_closed

    def new_channel(self) -> int:
        """A number that no channel of this connection has had."""
        self._next_channel += 1
        return self._next_channel - 1

    async def call(self, message: object) -> Any:
        """One request; its answer's message.

        Raises:
            PubsubError: the hub's refusal, or UncertainError when the link broke first.
        """
        try:
            return (await self.link.call(message)).message
        except rpc.RpcError as error:
            raise translate(error) from error

    def send(self, message: object) -> None:
        """One message without an answer; dropped when the link is gone or full."""
        try:
            self.link.send(message)
        except rpc.RpcError as error:
            log.debug("message dropped", hub=self.address, kind=type(message).__name__, why=str(error))

    async def keep_alive(self) -> None:
        """Ends a link whose hub is silent; returns when the link has ended."""
        while not self.link.is_closed:
            before = self.link.bytes_in
            with trio.move_on_after(KEEP_ALIVE_S):
                await self.link.closed.wait()
                return
            if self.link.bytes_in != before:
                continue
            with trio.move_on_after(SILENCE_S) as waiting:
                try:
                    await self.link.call(Hello(PROTOCOL_VERSION, "keep-alive"))
                except rpc.RpcError:
                    continue
            if waiting.cancelled_caught and self.link.bytes_in == before:
                self.link.close(f"hub {self.address} has been silent for {SILENCE_S:.0f} s")

    def _on_message(self, message: Any, body: memoryview) -> None:
        match message:
            case Deliver(channel, _):
                delivery = self.deliveries.get(channel)
                if delivery is not None:
                    delivery.on_deliver(message, body)
            case Moved(channel):
                delivery = self.deliveries.pop(channel, None)
                if delivery is not None:
                    delivery.on_moved()
            case Closed(channel, code, text):
                delivery = self.deliveries.pop(channel, None)
                if delivery is not None:
                    delivery.on_closed(error_from_code(code, text))

    def _on_closed(self, reason: str) -> None:
        deliveries, self.deliveries = self.deliveries, {}
        for delivery in deliveries.values():
            delivery.on_moved()
        for on_lost in list(self.on_lost):
            on_lost()


def translate(error: rpc.RpcError) -> PubsubError:
    """A link's error as one of topics."""
    if isinstance(error, rpc.RemoteError):
        return error_from_code(error.code, error.text)
    return UncertainError(str(error)) if error.happened is None else ServiceDownError(str(error))


class Hubs:
    """Finds the hub that serves a topic."""

    def __init__(self, zk: coord.Client, hosts: str, nursery: trio.Nursery, chance: Random) -> None:
        self._zk = zk
        self._hosts = hosts
        self._nursery = nursery
        self._chance = chance
        self._links: dict[str, HubLink] = {}
        self._connecting: dict[str, trio.Event] = {}
        self._owners: dict[str, tuple[int, str]] = {}
        self._suspects: set[str] = set()

    async def addresses(self) -> list[str]:
        """Addresses of the registered hubs, in random order, those that could not be reached lately last.

        Raises:
            ServiceDownError: the coordination service does not answer.
        """
        found: list[str] = []

        async def read(zk: coord.Client) -> None:
            for name in await zk.get_children(HUBS_PATH):
                try:
                    data, _ = await zk.get(f"{HUBS_PATH}/{name}")
                except coord.NoNodeError:
                    continue
                address = decode_map(data or b"", name).get("address")
                if isinstance(address, str) and address not in found:
                    found.append(address)

        try:
            if self._zk.expired.is_set():
                async with coord.connect(self._hosts) as zk:
                    await read(zk)
            else:
                await read(self._zk)
        except coord.NoNodeError:
            return []
        except coord.CoordError as error:
            raise ServiceDownError(f"hubs cannot be listed: {error}") from error
        self._chance.shuffle(found)
        found.sort(key=self._suspects.__contains__)
        self._suspects.intersection_update(found)
        return found

    async def link(self, address: str) -> HubLink:
        """The link to one hub.

        Raises:
            PubsubError: it cannot be reached; retry elsewhere.
        """
        while True:
            known = self._links.get(address)
            if known is not None and not known.is_closed:
                return known
            under_way = self._connecting.get(address)
            if under_way is None:
                break
            await under_way.wait()
        done = self._connecting[address] = trio.Event()
        try:
            made = await self._connect(address)
            self._links[address] = made
            self._suspects.discard(address)
            self._nursery.start_soon(made.keep_alive)
            return made
        except PubsubError:
            self._suspects.add(address)
            raise
        finally:
            del self._connecting[address]
            done.set()

    async def _connect(self, address: str) -> HubLink:
        host, _, port = address.rpartition(":")
        with trio.move_on_after(CONNECT_DEADLINE_S):
            try:
                link = await rpc.open_link(
                    self._nursery,
                    host,
                    int(port),
                    HUB_PROTOCOL,
                    frame_bytes_max=2 * FRAME_BYTES_MAX,
                    inflight_max=LINK_INFLIGHT_MAX,
                    outgoing_bytes_max=LINK_BYTES_MAX,
                )
                hello = (await link.call(Hello(PROTOCOL_VERSION, "client"))).message
            except (rpc.RpcError, ValueError, OSError) as error:
                raise ServiceDownError(f"hub {address} cannot be reached: {error}") from error
            return HubLink(link, hello)
        raise ServiceDownError(f"hub {address} does not answer")

    async def locate(self, topic: str, *, create: bool) -> HubLink:
        """The link to the hub that serves the topic; tries until there is one, or cancelled.

        Raises:
            PubsubError: an error that no other try will mend, such as UnknownTopicError.
        """
        pause = BACKOFF_S[0]
        suspect = ""
        known = self._owners.pop(topic, None)
        if known is not None:
            link = self._links.get(known[1])
            if link is None or link.is_closed:
                suspect = known[1]
        reported = False
        while True:
            try:
                for address in await self.addresses():
                    if address == suspect:
                        continue
                    try:
                        return await self._ask(address, topic, create, suspect)
                    except _SuspectError as error:
                        suspect = error.address
                        return await self._ask(address, topic, create, suspect)
                if not reported:
                    reported = True
                    log.warning("no hub serves the topic yet", topic=topic, do="check that a hub runs")
            except _SuspectError as error:
                suspect = error.address
            except PubsubError as error:
                if not error.retry:
                    raise
                log.debug("topic not located yet", topic=topic, why=str(error))
                suspect = suspect if self._is_gone(suspect) else ""
            await trio.sleep(pause * (0.5 + self._chance.random()))
            pause = min(2 * pause, BACKOFF_S[1])
            if pause > BACKOFF_S[1] / 4:
                suspect = ""

    async def _ask(self, address: str, topic: str, create: bool, suspect: str) -> HubLink:
        link = await self.link(address)
        located: Located = await link.call(Locate(topic, create, suspect))
        owner = link
        if located.address != address:
            try:
                owner = await self.link(located.address)
            except PubsubError as error:
                raise _SuspectError(located.address) from error
        self._owners[topic] = (located.epoch, located.address)
        return owner

    def _is_gone(self, address: str) -> bool:
        return address in self._suspects

    def close(self) -> None:
        """Ends all links."""
        for link in self._links.values():
            link.link.close("the bus was closed")


class _SuspectError(Exception):
    """A hub names an owner that cannot be reached."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address
