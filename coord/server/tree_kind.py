"""How storage makes, loads and advances a tree (`coord.storage.source.StateKind`): start-up and snapshots
use it.
"""

from collections.abc import Iterable

from coord.protocol.batch import OP_REFUSED, decode_batch
from coord.tree import Context, DataTree, Node, execute
from coord.tree.image import decode_facts, decode_node


class TreeKind:
    """The coordination tree as a kind of state."""

    def fresh(self) -> DataTree:
        return DataTree.fresh()

    def loader(self, facts: bytes) -> "TreeLoader":
        return TreeLoader(facts)

    def apply(self, state: DataTree, batch: bytes) -> None:
        """Executes a committed batch, with nobody watching.

        Raises:
            DecodeError: the bytes are no batch.
        """
        stamp, blocks = decode_batch(batch)
        context = Context(wall_ms=stamp.wall_ms, policy=stamp.policy)
        zxid = stamp.first_zxid
        for block in blocks:
            for session_id, op, identities, body in zip(
                block.sessions, block.ops, block.auth, block.bodies, strict=True
            ):
                if op == OP_REFUSED:
                    state.last_zxid = zxid
                else:
                    context.zxid, context.session_id, context.identities = zxid, session_id, identities
                    execute(state, context, op, body)
                zxid += 1
            context.events.clear()


class TreeLoader:
    """Builds a tree from the records of a checkpoint.

    Raises:
        DecodeError: here and in `add`, bytes that are not what was written; in `finish`, another digest.
    """

    def __init__(self, facts: bytes) -> None:
        self._facts = decode_facts(facts)
        self._nodes: list[tuple[bytes, Node]] = []

    def add(self, items: Iterable[tuple[int, bytes]]) -> None:
        self._nodes += [decode_node(number, value) for number, value in items]

    def finish(self) -> DataTree:
        return DataTree.restore(self._facts, self._nodes)
