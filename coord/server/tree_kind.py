"""How storage makes, loads and advances a tree (`coord.storage.source.StateKind`): start-up and snapshots
use it.
"""

from coord.protocol.batch import OP_REFUSED, decode_batch
from coord.tree import Context, DataTree, execute
from coord.tree.tree import TreeLoader


class TreeKind:
    """The coordination tree as a kind of state."""

    def fresh(self) -> DataTree:
        return DataTree.fresh()

    def loader(self, facts: bytes) -> TreeLoader:
        return TreeLoader(facts)

    def apply(self, state: DataTree, batch: bytes) -> None:
        """Executes a committed batch, with nobody watching.

        Raises:
            DecodeError: the bytes are no batch.
        """
        stamp, blocks = decode_batch(batch)
        context = Context()
        context.enter_batch(stamp)
        zxid = stamp.first_zxid
        for block in blocks:
            context.enter_block(block)
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
