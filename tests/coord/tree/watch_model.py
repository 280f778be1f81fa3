"""Watches once more, from the tables of spec 9.2 and 9.5, as a plain list: who hears what."""

from dataclasses import dataclass, field

from coord.protocol import opcodes as o

DATA_WATCH, CHILD_WATCH, PERSISTENT, RECURSIVE = "data", "child", "persistent", "recursive"
#: removeWatches types 1 to 5: the kinds each takes away.
REMOVED = {
    1: {CHILD_WATCH},
    2: {DATA_WATCH},
    3: {DATA_WATCH, CHILD_WATCH, PERSISTENT, RECURSIVE},
    4: {PERSISTENT},
    5: {RECURSIVE},
}


@dataclass
class WatchModel:
    """`watches` are (connection, kind, path)."""

    watches: set[tuple[str, str, str]] = field(default_factory=set)

    def add(self, connection: str, kind: str, path: str) -> None:
        self.watches.add((connection, kind, path))

    def check(self, connection: str, kind: int, path: str) -> int:
        found = any((connection, one, path) in self.watches for one in REMOVED.get(kind, set()))
        return o.MARSHALLING_ERROR if kind not in REMOVED else 0 if found else o.NO_WATCHER

    def remove(self, connection: str, kind: int, path: str) -> int:
        answer = self.check(connection, kind, path)
        self.watches -= {(connection, one, path) for one in REMOVED.get(kind, set())}
        return answer

    def drop(self, connection: str) -> None:
        self.watches = {watch for watch in self.watches if watch[0] != connection}

    def fire(self, events: list[tuple[int, str]]) -> dict[str, list[tuple[int, str]]]:
        """What each connection hears, in order."""
        heard: dict[str, list[tuple[int, str]]] = {}
        for kind, path in events:
            told: set[str] = set()
            if kind == o.NODE_CHILDREN_CHANGED:
                told = self._fire(path, CHILD_WATCH, recursive=False)
            else:
                told = self._fire(path, DATA_WATCH, recursive=True)
                if kind == o.NODE_DELETED:
                    told |= self._fire(path, CHILD_WATCH, recursive=False)
            for connection in told:
                heard.setdefault(connection, []).append((kind, path))
        return heard

    def _fire(self, path: str, standard: str, *, recursive: bool) -> set[str]:
        told = {one for one, kind, at in self.watches if at == path and kind in (standard, PERSISTENT)}
        if recursive:
            told |= {
                one
                for one, kind, at in self.watches
                if kind == RECURSIVE and (at == path or (path + "/").startswith(at.rstrip("/") + "/")) and at
            }
        self.watches = {watch for watch in self.watches if watch[1:] != (standard, path)}
        return told

    def count(self) -> int:
        """As the table counts: a persistent watch is in both tables, and a place in a table counts once."""
        places = {(one, kind, at) for one, kind, at in self.watches}
        data = {(one, at) for one, kind, at in places if kind != CHILD_WATCH}
        child = {(one, at) for one, kind, at in places if kind in (CHILD_WATCH, PERSISTENT)}
        return len(data) + len(child)
