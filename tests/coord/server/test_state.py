"""What the parts of a server look at."""

from coord.server.state import State
from coord.tree import WATCH_DATA, DataTree
from coord.tree.watches import RECURSIVE


def test_clients_whose_watches_were_forgotten_together_may_still_end_one_by_one() -> None:
    state = State(DataTree.fresh())
    for client in ("a", "b"):
        state.watches.add(client, WATCH_DATA, b"/w")
        state.watches.add(client, WATCH_DATA, b"/r", RECURSIVE)
    state.forget_watches()
    state.watches.add("c", WATCH_DATA, b"/w")
    for client in ("a", "b"):
        state.watches.remove_connection(client)
    assert state.watches.data_paths == {b"/w": {"c": 1}}
    assert not state.watches.recursive_count
