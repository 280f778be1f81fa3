"""Known defects of the past, to be re-introduced one at a time: the simulator must find each (test the
tester).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from coord.zab import Peer

DEFECTS: dict[str, str] = {}


@contextmanager
def introduced(name: str | None) -> Iterator[type[Peer]]:
    yield Peer
