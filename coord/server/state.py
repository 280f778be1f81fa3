"""What every part of a server looks at: the tree, and who watches it. Replaced as a whole when a snapshot
arrives.
"""

from coord.tree import DataTree, WatchTable


class State:
    """The executed state of this server. The tree's `last_zxid` is that of the last executed request."""

    __slots__ = ("tree", "watches")

    def __init__(self, tree: DataTree) -> None:
        self.tree = tree
        self.watches = WatchTable()

    def replace(self, tree: DataTree) -> None:
        """Another tree from now on; nobody watches it yet, as all clients are disconnected then."""
        self.tree = tree
        self.watches = WatchTable()

    def forget_watches(self) -> None:
        """All clients are being disconnected: a million watches are not taken out one by one (0.7 s)."""
        self.watches = WatchTable()

    @property
    def zxid(self) -> int:
        return self.tree.last_zxid

    def find_password(self, session_id: int) -> bytes | None:
        session = self.tree.sessions.get(session_id)
        return None if session is None else session.password

    def count_ephemerals(self, session_id: int) -> int:
        return len(self.tree.ephemerals.get(session_id, ()))

    def session_timeouts(self) -> list[tuple[int, int]]:
        return [(session_id, session.timeout_ms) for session_id, session in self.tree.sessions.items()]
