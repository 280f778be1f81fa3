"""kill -9 of real bookies under load: what they acknowledged is there afterwards, unchanged (17.6)."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import bookie
from bookie.ledger.extent import encode_extent, iterate_extents
from bookie.ledger.wire import (
    BOOKIE_PROTOCOL,
    FRAME_BYTES_MAX,
    PROTOCOL_VERSION,
    Add,
    Code,
    Fence,
    Hello,
    Read,
    ReadLac,
    Stop,
)
from coord import rpc
from tests.bookie.bookie_servers import BookieServer, BookieServers
from tests.coord_servers import CoordServers

pytestmark = pytest.mark.crash

KEY = b"k" * 20
ROUNDS = 4
LEDGERS = 5


@pytest.fixture
def coord_hosts(tmp_path: Path):
    with CoordServers(tmp_path / "coord", 1) as servers:
        yield servers.hosts


def payload(ledger_id: int, entry_id: int) -> bytes:
    return b"%d/%d " % (ledger_id, entry_id) * (1 + entry_id % 7)


class Load:
    """Adds to several ledgers of one bookie over one link, and what was answered."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.next_entry = dict.fromkeys(range(LEDGERS), 0)
        self.acknowledged: set[tuple[int, int]] = set()
        self.fenced: set[int] = set()

    async def run(self, server: BookieServer, adds: int) -> None:
        """Keep the bookie busy until so many adds are answered, then kill it with the rest under way."""
        answered = 0
        enough = trio.Event()

        def on_reply(ledger_id: int) -> Callable[[rpc.Reply | rpc.RpcError], None]:
            def note(reply: rpc.Reply | rpc.RpcError) -> None:
                nonlocal answered
                if isinstance(reply, rpc.Reply):
                    for first, last, code in reply.message.runs:
                        assert code == Code.OK
                        self.acknowledged.update((ledger_id, entry) for entry in range(first, last + 1))
                    answered += 1
                    if answered >= adds:
                        enough.set()
                    else:
                        self.add_one(link, on_reply)

            return note

        async with connect(server) as link:
            for _ in range(50):
                self.add_one(link, on_reply)
            with trio.fail_after(30):
                await enough.wait()
            server.kill()

    def add_one(
        self, link: rpc.Link, on_reply: Callable[[int], Callable[[rpc.Reply | rpc.RpcError], None]]
    ) -> None:
        ledger_id = self.rng.randrange(LEDGERS)
        first = self.next_entry[ledger_id]
        count = self.rng.randint(1, 20)
        self.next_entry[ledger_id] = first + count
        encoded = encode_extent(
            ledger_id, first, first - 1, 0, [payload(ledger_id, first + k) for k in range(count)]
        )
        try:
            link.request(Add(ledger_id, 0, KEY, encoded.checksum), encoded.data, on_reply=on_reply(ledger_id))
        except rpc.LinkClosedError:
            pass

    async def check(self, server: BookieServer) -> None:
        """Everything acknowledged is read back as it was written; fences stay."""
        async with connect(server) as link:
            for ledger_id in range(LEDGERS):
                found = await read_all(link, ledger_id)
                acknowledged = {entry for number, entry in self.acknowledged if number == ledger_id}
                assert acknowledged <= set(found)
                assert all(data == payload(ledger_id, entry) for entry, data in found.items())
                self.next_entry[ledger_id] = max(found, default=-1) + 1
            for ledger_id in self.fenced:
                assert (await link.call(ReadLac(ledger_id))).message.fenced


def connect(server: BookieServer):
    return _connect(str(server.ready["host"]), int(server.ready["port"]), str(server.ready["bookie_id"]))


class _connect:
    def __init__(self, host: str, port: int, bookie_id: str) -> None:
        self._connection = rpc.connect(host, port, BOOKIE_PROTOCOL, frame_bytes_max=FRAME_BYTES_MAX)
        self._bookie_id = bookie_id

    async def __aenter__(self) -> rpc.Link:
        link = await self._connection.__aenter__()
        await link.call(Hello(PROTOCOL_VERSION, self._bookie_id, 0))
        return link

    async def __aexit__(self, *error: object) -> None:
        await self._connection.__aexit__(*error)


async def read_all(link: rpc.Link, ledger_id: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    first = 0
    while True:
        try:
            reply = await link.call(Read(ledger_id, first, 1 << 40))
        except rpc.RemoteError as error:
            if error.code != Code.NO_LEDGER:
                raise
            return found
        for extent in iterate_extents(bytes(reply.body)):
            for entry, data in enumerate(extent.verified_payloads(), extent.first_entry_id):
                found[entry] = data
        first = reply.message.next_entry_id
        if reply.message.stop != Stop.LIMIT:
            assert reply.message.stop == Stop.NO_ENTRY
            return found


async def test_a_killed_bookie_has_everything_it_acknowledged(tmp_path, coord_hosts):
    """kill -9 in the middle of adds, fences and checkpoints, again and again."""
    server = BookieServer(tmp_path, 1, coord_hosts, ("--checkpoint-ms", "20", "--segment-bytes", "200000"))
    load = Load(seed=1)
    try:
        for round_ in range(ROUNDS):
            await trio.to_thread.run_sync(server.start)
            await load.check(server)
            async with connect(server) as link:
                await link.call(Fence(100 + round_, KEY, -1))
            load.fenced.add(100 + round_)
            await load.run(server, adds=300)
        await trio.to_thread.run_sync(server.start)
        await load.check(server)
        assert len(load.acknowledged) > 1000
    finally:
        server.kill()


async def test_a_terminated_bookie_ends_in_order_and_replays_nothing(tmp_path, coord_hosts):
    server = BookieServer(tmp_path, 1, coord_hosts, ())
    try:
        await trio.to_thread.run_sync(server.start)
        async with connect(server) as link:
            encoded = encode_extent(1, 0, -1, 0, [b"a"])
            await link.call(Add(1, 0, KEY, encoded.checksum), encoded.data)
        assert await trio.to_thread.run_sync(server.stop) == 0
        await trio.to_thread.run_sync(server.start)
        assert "replayed_records=0" in server.log_path.read_text().splitlines()[-2]
        async with connect(server) as link:
            assert await read_all(link, 1) == {0: b"a"}
    finally:
        server.kill()


async def test_a_ledger_loses_nothing_when_its_bookies_are_killed_in_turn(tmp_path, coord_hosts):
    """The client's appends go on; what it was told is durable is read back after every bookie was killed
    once.
    """
    with BookieServers(tmp_path, coord_hosts, 3, "--checkpoint-ms", "50") as bookies:
        async with bookie.connect(coord_hosts) as ledgers:
            confirmed: list[int] = []
            async with ledgers.create(ensemble=3, ack_quorum=2) as ledger:
                ledger_id = ledger.ledger_id
                async with trio.open_nursery() as nursery:

                    async def append() -> None:
                        while True:
                            entry_id = await ledger.append(payload(0, len(confirmed)))
                            assert entry_id == len(confirmed)
                            confirmed.append(entry_id)

                    nursery.start_soon(append)
                    for number in range(3):
                        await _more(confirmed, 100)
                        bookies[number].kill()
                        await _more(confirmed, 100)
                        await trio.to_thread.run_sync(bookies[number].start)
                        await _more(confirmed, 100)
                    await _more(confirmed, 100)
                    nursery.cancel_scope.cancel()
            async with ledgers.open(ledger_id) as reader:
                found = [entry.payload async for entry in reader.read()]
    assert len(found) >= len(confirmed)
    assert found[: len(confirmed)] == [payload(0, entry_id) for entry_id in confirmed]


async def _more(confirmed: list[int], count: int) -> None:
    target = len(confirmed) + count
    with trio.fail_after(30):
        while len(confirmed) < target:  # noqa: ASYNC110  # real time, real processes
            await trio.sleep(0.005)
