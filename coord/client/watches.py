"""The watches of one client: who is told of which event, and what a new connection has to set again.

A server forgets its watches with the connection. Behind a new connection's handshake the client therefore
sends all that are armed, with the newest state it has seen, and the server answers with an event for each
one-shot watch whose node has changed since (spec 9.6); about persistent ones it says nothing, so they are
told that they may have missed something.
"""

import enum
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from coord.errors import ProtocolError
from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, encode_int, encode_long, encode_text
from coord.protocol.records import WatcherEvent, decode_watcher_event

#: Bytes of paths in one setWatches, as in ZooKeeper's own client; a server takes frames of 1 MiB.
SET_WATCHES_BYTES_MAX = 128 * 1024


class Armed(enum.IntEnum):
    """What the server holds for a watch, as the list of a setWatches that names it."""

    DATA = 0
    EXIST = 1
    CHILD = 2
    PERSISTENT = 3
    RECURSIVE = 4


#: Event types that end a one-shot watch.
FIRES: Final = {
    Armed.DATA: frozenset({opcodes.NODE_CREATED, opcodes.NODE_DELETED, opcodes.NODE_DATA_CHANGED}),
    Armed.EXIST: frozenset({opcodes.NODE_CREATED, opcodes.NODE_DELETED, opcodes.NODE_DATA_CHANGED}),
    Armed.CHILD: frozenset({opcodes.NODE_CHILDREN_CHANGED, opcodes.NODE_DELETED}),
}


class WatcherKind(enum.IntEnum):
    """Which watches of a path `remove_watches` and `check_watches` mean."""

    CHILDREN = opcodes.WATCHER_CHILDREN
    DATA = opcodes.WATCHER_DATA
    ANY = opcodes.WATCHER_ANY
    PERSISTENT = opcodes.WATCHER_PERSISTENT
    RECURSIVE = opcodes.WATCHER_RECURSIVE


ARMED_OF_KIND = {
    WatcherKind.CHILDREN: {Armed.CHILD},
    WatcherKind.DATA: {Armed.DATA, Armed.EXIST},
    WatcherKind.ANY: set(Armed),
    WatcherKind.PERSISTENT: {Armed.PERSISTENT},
    WatcherKind.RECURSIVE: {Armed.RECURSIVE},
}


class OneShot(Protocol):
    """A follower that sets a one-shot watch again and again."""

    armed: Armed | None

    def is_of(self, kind: int) -> bool: ...

    def may_hold(self, kind: int) -> bool:
        """Whether the server may hold a watch of a kind, WATCHER_DATA or WATCHER_CHILDREN, for it."""
        ...

    def on_event(self, kind: int) -> None:
        """An event of its path."""
        ...

    def on_break(self) -> None:
        """The connection is gone: answers that were on their way are not to be relied upon."""
        ...

    def on_removed(self) -> None:
        """The server's watch was removed on request."""
        ...

    def wake(self) -> None:
        """Something has happened that only asking the server can tell, such as the session's end."""
        ...


class Persistent(Protocol):
    """A follower of a persistent watch."""

    path: str
    armed: Armed

    def on_event(self, event: WatcherEvent, zxid: int) -> None: ...

    def on_missed(self) -> None:
        """A new connection: events may have been missed."""
        ...

    def on_removed(self) -> None: ...

    def wake(self) -> None: ...


class WatchTable:
    """The watches of one client by path (absolute, chroot included).

    Attributes:
        events: how many events the server has sent.
    """

    def __init__(self) -> None:
        self.events = 0
        self._one_shot: dict[str, set[OneShot]] = {}
        self._persistent: dict[str, set[Persistent]] = {}
        self._recursive = 0

    def add(self, path: str, watch: OneShot) -> None:
        self._one_shot.setdefault(path, set()).add(watch)

    def remove(self, path: str, watch: OneShot) -> None:
        _discard(self._one_shot, path, watch)

    def add_persistent(self, watch: Persistent) -> None:
        watches = self._persistent.setdefault(watch.path, set())
        if watch not in watches:
            watches.add(watch)
            self._recursive += watch.armed is Armed.RECURSIVE

    def remove_persistent(self, watch: Persistent) -> bool:
        """Forgets a watch; whether it was there and none of its kind is left at its path."""
        if watch not in self._persistent.get(watch.path, ()):
            return False
        _discard(self._persistent, watch.path, watch)
        self._recursive -= watch.armed is Armed.RECURSIVE
        return all(other.armed is not watch.armed for other in self._persistent.get(watch.path, ()))

    def at(self, path: str) -> tuple[list[OneShot], list[Persistent]]:
        """The watches of one path."""
        return list(self._one_shot.get(path, ())), list(self._persistent.get(path, ()))

    def on_event(self, body: bytes, zxid: int) -> None:
        """Takes a WatcherEvent record as it came.

        Raises:
            ProtocolError: it is none.
        """
        try:
            event = decode_watcher_event(body)
        except DecodeError as error:
            raise ProtocolError(f"expected a watch event: {error}") from error
        self.events += 1
        for one_shot in self._one_shot.get(event.path, ()):
            one_shot.on_event(event.type)
        for watch in self._persistent.get(event.path, ()):
            if watch.armed is Armed.PERSISTENT:
                watch.on_event(event, zxid)
        if self._recursive and event.type != opcodes.NODE_CHILDREN_CHANGED:
            for path in _ancestors(event.path):
                for watch in self._persistent.get(path, ()):
                    if watch.armed is Armed.RECURSIVE:
                        watch.on_event(event, zxid)

    def on_break(self) -> None:
        """The connection is gone."""
        for watches in self._one_shot.values():
            for watch in watches:
                watch.on_break()

    def wake_all(self) -> None:
        """The session is over, or the server may not hold what was armed."""
        for watches in self._one_shot.values():
            for one_shot in watches:
                one_shot.wake()
        for followers in self._persistent.values():
            for persistent in followers:
                persistent.wake()

    def take_up(self, last_zxid: int) -> Iterator[tuple[int, bytes]]:
        """What a new connection has to say first: operations and bodies that arm all watches again.

        The watches as of the call are meant; the bodies are made as they are taken. Persistent ones are told
        at once: whoever then reads does so behind the arming, and misses nothing.
        """
        wanted: list[tuple[str, Armed]] = []
        for path, watches in self._one_shot.items():
            wanted += (
                (path, armed) for armed in sorted({one.armed for one in watches if one.armed is not None})
            )
        for path, followers in self._persistent.items():
            wanted += ((path, armed) for armed in sorted({one.armed for one in followers}))
            for persistent in followers:
                persistent.on_missed()
        return _encode_chunks(last_zxid, wanted)


def _discard(table: "dict[str, set[OneShot]] | dict[str, set[Persistent]]", path: str, watch: object) -> None:
    watches = table.get(path)
    if watches is not None:
        watches.discard(watch)
        if not watches:
            del table[path]


def _ancestors(path: str) -> Iterator[str]:
    """The path and what lies above it, up to the root."""
    yield path
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        yield path


def _encode_chunks(last_zxid: int, wanted: Iterable[tuple[str, Armed]]) -> Iterator[tuple[int, bytes]]:
    """setWatches bodies of at most SET_WATCHES_BYTES_MAX bytes of paths; setWatches2, which old servers do
    not know, only where persistent watches need it."""
    lists: list[list[bytes]] = [[] for _ in Armed]
    size = 0
    for path, armed in wanted:
        encoded = encode_text(path)
        if size and size + len(encoded) > SET_WATCHES_BYTES_MAX:
            yield _encode_set_watches(last_zxid, lists)
            lists, size = [[] for _ in Armed], 0
        lists[armed].append(encoded)
        size += len(encoded)
    if size:
        yield _encode_set_watches(last_zxid, lists)


def _encode_set_watches(last_zxid: int, lists: list[list[bytes]]) -> tuple[int, bytes]:
    persistent = any(lists[Armed.PERSISTENT :])
    parts = [encode_long(last_zxid)]
    for paths in lists if persistent else lists[: Armed.PERSISTENT]:
        parts += (encode_int(len(paths)), *paths)
    return (opcodes.SET_WATCHES2 if persistent else opcodes.SET_WATCHES), b"".join(parts)
