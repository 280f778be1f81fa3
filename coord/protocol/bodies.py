"""The request bodies of a block, where they lie: one after the other in the bytes that came.

Who executes a setData needs its path and its data, and takes them from there. To cut out the body first is a
copy of every value more, on each server; this is a sequence that cuts what it is asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import overload

__all__ = ["Bodies"]


class Bodies(Sequence[bytes]):
    """Bodies of requests, in their order.

    Attributes:
        data: bytes that hold them, run together, and perhaps others.
        edges: where in `data` each begins, and where the last ends.
    """

    __slots__ = ("data", "edges")

    def __init__(self, data: bytes, start: int, lengths: Iterable[int]) -> None:
        """`start` is where the first begins."""
        self.data = data
        self.edges = list(accumulate(lengths, initial=start))

    @classmethod
    def of(cls, bodies: Sequence[bytes]) -> "Bodies":
        """These, joined."""
        return cls(b"".join(bodies), 0, map(len, bodies))

    def __len__(self) -> int:
        return len(self.edges) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return list(self)[index]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"expected a body below {len(self)}, got {index}")
        return self.data[self.edges[index] : self.edges[index + 1]]

    def __iter__(self) -> Iterator[bytes]:
        data = self.data
        return (data[start:end] for start, end in pairwise(self.edges))
