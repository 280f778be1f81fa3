"""Adds to one real bookie, and what it must have of them after it was killed."""

import random
from collections.abc import Callable

import trio

from bookie.ledger.extent import encode_extent, iterate_extents
from bookie.ledger.wire import (
    BOOKIE_PROTOCOL,
    FRAME_BYTES_MAX,
    PROTOCOL_VERSION,
    Add,
    Code,
    Hello,
    Read,
    ReadLac,
    Stop,
)
from coord import rpc
from tests.bookie.bookie_servers import BookieServer

KEY = b"k" * 20
LEDGERS = 5


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
            with trio.fail_after(60):
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
