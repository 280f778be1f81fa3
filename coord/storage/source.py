"""What storage asks of the state it keeps; `coord.tree.DataTree` is one, tests have smaller ones.

Storage does not know what the bytes mean. A checkpoint goes:

1. `freeze()` between two batches takes away the record of what has changed, and encodes everything that is
   not a node (the facts).
2. `encode_some(n)` again and again, in slices on the loop, until it returns None. Meanwhile execution goes
   on: a frozen node that is about to change is encoded first, as it was (the write barrier).
3. `thaw(n, written=...)` again and again, until it returns True: what a failed checkpoint would have written
   is in the next one.

No step takes longer where a million nodes have changed.
"""

from collections.abc import Iterable
from typing import Protocol, TypeVar

__all__ = ["CheckpointSource", "FrozenState", "StateKind", "StateLoader"]

S = TypeVar("S", bound="CheckpointSource")
S_co = TypeVar("S_co", covariant=True)


class FrozenState(Protocol):
    """A checkpoint in the making."""

    @property
    def zxid(self) -> int:
        """The state is as of exactly this transaction."""
        ...

    @property
    def facts(self) -> bytes:
        """Everything beside the nodes: sessions, ACLs, counters, feature level, digest."""
        ...

    @property
    def nodes(self) -> int:
        """How many nodes the state has."""
        ...


class CheckpointSource(Protocol):
    """A state that can be checkpointed; at most one checkpoint is in the making.

    It knows what has changed since it was loaded from its checkpoint, or began empty.
    """

    def freeze(self) -> FrozenState: ...

    def encode_some(self, count: int) -> list[tuple[int, bytes | None]] | None:
        """Some (node number, encoded node, or None where it was deleted), none perhaps; None once all were
        taken.
        """
        ...

    def thaw(self, count: int, *, written: bool) -> bool:
        """Ends it, some nodes at a time; True once that is done."""
        ...


class StateLoader(Protocol[S_co]):
    """Builds a state from a checkpoint."""

    def add(self, items: Iterable[tuple[int, bytes]]) -> None:
        """Raises: ValueError if one is no node (as do all errors of decoding)."""

    def finish(self) -> S_co:
        """Raises: ValueError if the whole does not have the digest that the facts say."""
        ...


class StateKind(Protocol[S]):
    """How to make, load and advance one kind of state."""

    def fresh(self) -> S:
        """The state of a new ensemble, before its first transaction."""
        ...

    def loader(self, facts: bytes) -> StateLoader[S]: ...

    def apply(self, state: S, batch: bytes) -> None:
        """Execute a committed batch.

        Raises:
            ValueError: the bytes are no batch.
        """
