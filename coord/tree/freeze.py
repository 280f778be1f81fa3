"""A checkpoint in the making: what has changed since the one before, as of one zxid, encoded in slices while
execution goes on.

The tree hands over its record of changes as it is, so that beginning takes no longer with a million of them.
From there two move it: `encode_some`, which walks what was handed over, and the write barrier
(`DataTree.touch`), which encodes a node as it was before it changes. Whoever comes first marks the entry. It
is not removed: a dict that is walked must keep its size, and if the checkpoint fails, all of it is wanted
back (`DataTree.thaw`).
"""

from itertools import islice

from coord.tree.image import encode_node
from coord.tree.node import Node

__all__ = ["Freeze"]


class Freeze:
    """A checkpoint in the making.

    Args:
        nodes: how many there are at `zxid`.
        changed: path → part of the digest, of each node at `zxid` that is not in the checkpoint before as it
            is at `zxid`.
        removed: numbers of nodes that may be in the checkpoint before and are not there at `zxid`.

    Attributes:
        zxid: the tree is as of exactly this transaction.
        facts: everything beside the nodes, as it was then.
        changed: as given; None for those that are encoded.
    """

    __slots__ = (
        "_changed_walk",
        "_encoded",
        "_removed_walk",
        "_unwalked",
        "changed",
        "facts",
        "nodes",
        "removed",
        "zxid",
    )

    def __init__(
        self, zxid: int, facts: bytes, nodes: int, changed: dict[bytes, int | None], removed: set[int]
    ) -> None:
        self.zxid = zxid
        self.facts = facts
        self.nodes = nodes
        self.changed = changed
        self.removed = removed
        self._changed_walk = iter(changed.items())
        self._removed_walk = iter(removed)
        self._unwalked = max(len(changed), len(removed))
        self._encoded: list[tuple[int, bytes | None]] = []  # not taken yet

    def encode(self, path: bytes, node: Node) -> None:
        """Encodes a node that `changed` says is not: the tree's barrier, before the node changes."""
        self.changed[path] = None
        self._encoded.append((node.number, encode_node(path, node)))

    def encode_some(self, nodes: dict[bytes, Node], count: int) -> list[tuple[int, bytes | None]] | None:
        """Takes up to `count` records: first what the barrier has encoded, so that it does not pile up.

        Args:
            nodes: the tree's.

        Returns:
            (number, encoded node, or None where it is gone); it may be that none of those looked at was left
            to take. None once all were taken.
        """
        room = count - len(self._encoded)
        if room > 0 and self._unwalked > 0:
            self._unwalked -= room
            for path, part in islice(self._changed_walk, room):
                if part is not None:
                    self.encode(path, nodes[path])
            self._encoded += [(number, None) for number in islice(self._removed_walk, room)]
        taken = self._encoded[-count:]
        del self._encoded[-count:]
        return taken if taken or self._unwalked > 0 else None
