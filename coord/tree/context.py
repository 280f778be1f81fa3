"""What every operation of `execute` is given beside its body, how it refuses, and the checks they share."""

from dataclasses import dataclass, field

from coord.protocol import opcodes
from coord.protocol.batch import Block, Stamp
from coord.protocol.records import Identity
from coord.tree.acl import POLICY_SKIP_ACL, is_allowed
from coord.tree.node import Node
from coord.tree.tree import OPEN_ACL_ID, DataTree

#: A change as watchers may be told of it: type, path, and the number of the list that says who may know
#: (spec 9.3), which `DataTree.acl_of` knows until the next request. A plain tuple, as every write makes some.
TreeEvent = tuple[int, bytes, int]


@dataclass(frozen=True, slots=True)
class QuotaExcess:
    """A write that went beyond a quota, or would have.

    `what` is "count" or "bytes", `value` what there would be, `times` how often it happened.
    """

    what: str
    value: int
    limit: int
    refused: bool
    times: int


@dataclass(slots=True)
class Context:
    """What a request is executed with, beside its body; one object serves a whole batch.

    `is_local`: the session is no part of the state; the server that has it vouches for it (spec 4.7).
    `excesses` gets the last one of each quota, by its path; who executes may tell of them and empties it.
    """

    zxid: int = 0
    wall_ms: int = 0
    session_id: int = 0
    identities: tuple[Identity, ...] = ()
    policy: int = 0
    is_local: bool = False
    events: list[TreeEvent] = field(default_factory=list)
    excesses: dict[bytes, QuotaExcess] = field(default_factory=dict)

    def enter_batch(self, stamp: Stamp) -> None:
        """What follows is of this batch."""
        self.wall_ms, self.policy = stamp.wall_ms, stamp.policy

    def enter_block(self, block: Block) -> None:
        """What follows is of this block."""
        self.is_local = block.is_local


class RefusedError(Exception):
    """A check has failed; nothing was changed."""

    def __init__(self, code: int) -> None:
        self.code = code


def check_session(tree: DataTree, context: Context) -> None:
    if context.session_id not in tree.sessions and not context.is_local:
        raise RefusedError(opcodes.SESSION_EXPIRED)


def check_acl(tree: DataTree, context: Context, node: Node, want: int) -> None:
    if node.acl == OPEN_ACL_ID or context.policy & POLICY_SKIP_ACL:
        return
    if not is_allowed(tree.acl_of(node.acl), want, context.identities):
        raise RefusedError(opcodes.NO_AUTH)
