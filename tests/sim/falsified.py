"""A replica that executes differently from the others: the core must find it, and repair it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from coord.zab import Proposal
from tests.sim.node import Node

EXECUTED_BEFORE = 30
"""Batches that it executes as the others do."""

_RIGHT = Node._execute_batch


def executes_differently(node: Node, batch: Proposal) -> None:
    """Server 1 comes to another state once, and never notices."""
    _RIGHT(node, batch)
    if node.sid == 1 and node.state.count == EXECUTED_BEFORE:
        node.state = replace(node.state, digest=node.state.digest ^ 1)


@contextmanager
def falsified(sid: int) -> Iterator[None]:
    """Within, the state of server `sid` becomes another, with the knowledge of the laws."""

    def execute(node: Node, batch: Proposal) -> None:
        _RIGHT(node, batch)
        if node.sid == sid and node.state.count == EXECUTED_BEFORE:
            node.state = replace(node.state, digest=node.state.digest ^ 1)
            node.world.laws.falsified.add(node.sid)

    Node._execute_batch = execute  # type: ignore[method-assign]
    try:
        yield
    finally:
        Node._execute_batch = _RIGHT  # type: ignore[method-assign]
