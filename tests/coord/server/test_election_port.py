"""A mixed ensemble is refused by name, whichever port a server of Apache ZooKeeper's knocks at."""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest
import trio

from coord import eventlog
from coord.server.election_port import MIXED, apache_sid, is_apache_length, tell_foreign_peers
from coord.server.greeting import ForeignPeerError, LinkIdentity, hear_introduction
from coord.server.introduction import IntroductionError

#: What a server of 3.9.5 with id 2 sends first to an election port.
KNOCK = struct.pack(">qqi", -65536, 2, 15) + b"127.0.0.1:29192"
KNOCK_SINCE_3_6 = struct.pack(">qqi", -65535, 2, 15) + b"127.0.0.1:29192"
#: And to a quorum port: FOLLOWERINFO with its epoch and LearnerInfo.
FOLLOWER = struct.pack(">iqi", 11, 1 << 32, 20) + struct.pack(">qiq", 2, 0x10000, 0) + struct.pack(">i", -1)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    eventlog.configure(stream=stream)
    yield stream
    eventlog.configure()


async def knock(port: int, data: bytes) -> None:
    """Sends and waits until the connection is closed."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        # The server may have read enough, and closed with a reset as there was more.
        with suppress(trio.BrokenResourceError), trio.fail_after(60):
            await stream.send_all(data)
            await stream.send_eof()
            assert await stream.receive_some() == b""


async def test_a_server_of_zookeepers_at_the_election_port_is_named_once(
    lines: io.StringIO, nursery: trio.Nursery
) -> None:
    port = await nursery.start(tell_foreign_peers, "server.1", "127.0.0.1", 0)
    await knock(port, KNOCK)
    await knock(port, KNOCK_SINCE_3_6)
    await knock(port, b"GET / HTTP/1.0\r\n\r\n")
    await knock(port, b"")
    nursery.cancel_scope.cancel()
    (line,) = lines.getvalue().splitlines()
    assert MIXED in line
    assert "apache_sid=2" in line


async def test_an_election_port_that_is_taken_does_not_keep_the_server_from_running(
    lines: io.StringIO, nursery: trio.Nursery
) -> None:
    port = await nursery.start(tell_foreign_peers, "server.1", "127.0.0.1", 0)
    await tell_foreign_peers("server.1", "127.0.0.1", port)
    nursery.cancel_scope.cancel()
    assert "not needed" in lines.getvalue()
    assert f"server.1: cannot listen at 127.0.0.1:{port}: Address already in use" in lines.getvalue()


@pytest.mark.parametrize("data", [FOLLOWER, KNOCK])
async def test_a_server_of_zookeepers_at_the_quorum_port_is_named(data: bytes) -> None:
    identity = LinkIdentity("e", b"0123456789abcdef", 1, {2: (("a", 1),)})
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.open_tcp_stream(*listeners[0].socket.getsockname())
    async with listeners[0], client:
        await client.send_all(data)
        stream = await listeners[0].accept()
        async with stream:
            with pytest.raises(ForeignPeerError, match="cannot be in one ensemble"):
                await hear_introduction(stream, identity, os.urandom(32))


async def test_other_garbage_is_not_taken_for_zookeeper() -> None:
    assert apache_sid(b"\0" * 16) is None
    assert apache_sid(KNOCK[:15]) is None
    assert not is_apache_length(80)
    assert issubclass(ForeignPeerError, IntroductionError)
