"""The election port. Our servers elect over their links and need none; it is listened on to tell a server of
Apache ZooKeeper's that knocks, and the operator, that both kinds cannot be in one ensemble.

ZooKeeper's server begins there with a version of its protocol i64 (-65536, -65535 since 3.6) and its id i64;
on the quorum port with a packet of type 11 (FOLLOWERINFO) or 16 (OBSERVERINFO) i32.
"""

import struct
from contextlib import suppress
from typing import Final

import trio

from coord import eventlog
from coord.listening import ListenError, named_listener

MIXED: Final = "servers of zoolog and of Apache ZooKeeper cannot be in one ensemble"
WHAT_TO_DO: Final = "stop all servers of one kind (docs/migrate.md)"

_ELECTION: Final = struct.Struct(">qq")
_VERSIONS: Final = frozenset({-65536, -65535})
_LEARNER_TYPES: Final = frozenset({11, 16})
_VERSION_HALF: Final = 0xFFFFFFFF
_SECONDS_MAX: Final = 2.0
_SENDERS_MAX: Final = 64

log = eventlog.get("coord.server.election_port")


def apache_sid(first_bytes: bytes) -> int | None:
    """Who begins so on an election port; None unless it is a server of ZooKeeper's."""
    if len(first_bytes) < _ELECTION.size:
        return None
    version, sid = _ELECTION.unpack_from(first_bytes)
    return sid if version in _VERSIONS else None


def is_apache_length(length: int) -> bool:
    """Whether the first four bytes on a quorum port are those of a server of ZooKeeper's, not the length of
    an introduction of ours (which is longer than both types, and shorter than half a version).
    """
    return length in _LEARNER_TYPES or length == _VERSION_HALF


async def tell_foreign_peers(
    own_line: str, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Listens until cancelled; each server of ZooKeeper's that knocks is named once. Reports the port.

    Where the port cannot be listened on nothing is lost but the message.

    Args:
        own_line: the key of zoo.cfg that gives the port.
    """
    try:
        with named_listener(own_line, own_line, host, port):
            listeners = await trio.open_tcp_listeners(port, host=host or None)
    except ListenError as error:
        log.info("does not listen on the election port, which is not needed", error=error.what)
        task_status.started(0)
        return
    task_status.started(listeners[0].socket.getsockname()[1])
    named: set[int] = set()
    limiter = trio.CapacityLimiter(_SENDERS_MAX)

    async def hear(stream: trio.SocketStream) -> None:
        async with limiter, stream:
            sid = apache_sid(await _first_bytes(stream))
            if sid is not None and sid not in named and len(named) < _SENDERS_MAX:
                named.add(sid)
                log.error(MIXED, do=WHAT_TO_DO, apache_sid=sid)

    await trio.serve_listeners(hear, listeners)


async def _first_bytes(stream: trio.SocketStream) -> bytes:
    data = b""
    with trio.move_on_after(_SECONDS_MAX):
        with suppress(OSError, trio.BrokenResourceError):
            while len(data) < _ELECTION.size:
                part = await stream.receive_some(_ELECTION.size - len(data))
                if not part:
                    break
                data += part
    return data
