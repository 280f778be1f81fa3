"""Single steps of production servers as they were done wrong somewhere, sometime;
`tests.sim.servers.defects` says what each is.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

from coord.protocol import opcodes
from coord.protocol.batch import Stamp
from coord.protocol.records import Acl, ConnectRequest, Identity, decode_connect_request
from coord.server import reconfiguration
from coord.server.answers import Answers
from coord.server.authority import Authority
from coord.server.connection import ClientConnection
from coord.server.members import Members
from coord.server.reaper import Reaper
from coord.server.reconfiguration import Request
from coord.server.relay import Relay
from coord.server.replica import Replica
from coord.server.service import ClientService
from coord.server.tracker import SessionTracker
from coord.storage import LogsToGive, LostLog, RestoredBatch
from coord.tree import DataTree, WatchTable
from coord.tree.context import Context
from coord.tree.node import Node
from coord.tree.read import WATCH_DATA
from coord.tree.watch_requests import set_watches
from coord.tree.watches import PERSISTENT, RECURSIVE, STANDARD
from coord.zab.repair import Repair

# Sessions.


def owner_is_not_asked(authority: Authority, sid: int, sessions: Any) -> frozenset[int]:
    return frozenset()


def zxid_seen_is_ignored(payload: bytes) -> ConnectRequest:
    return replace(decode_connect_request(payload), last_zxid_seen=0)


def attach_without_leader(
    relay: Relay, session_id: int, timeout_ms: int, password: bytes, done: Callable[[bool], None]
) -> None:
    done(True)


def sync_without_leader(relay: Relay, done: Callable[[], None]) -> None:
    done()


_RIGHT_ATTACH = Authority.attach


def unowned_is_over(authority: Authority, sid: int, session_id: int, *arguments: Any) -> bool:
    """A session that no server has brought to this leader yet is taken for one that has ended."""
    if session_id in authority._owners:
        return _RIGHT_ATTACH(authority, sid, session_id, *arguments)
    authority._owners[session_id] = sid
    return False


def silence_of_a_stall_counts(tracker: SessionTracker, duration_ms: int) -> None:
    """Nothing is taken out of anybody's time."""


def new_leader_gives_a_tick(tracker: SessionTracker, sessions: Any, now_ms: int) -> None:
    """The deadlines of the leader before are not known; they are taken to be near."""
    for session_id in list(tracker._deadlines):
        tracker.remove(session_id)
    for session_id, timeout_ms in sessions:
        tracker._timeouts[session_id] = timeout_ms
        tracker._move(session_id, tracker._bucket(now_ms + tracker._tick_ms))


def touches_are_kept(relay: Relay, session_ids: set[int]) -> None:
    """A follower does not tell its leader of whom it has heard."""
    if relay.is_leading:
        relay._authority.touch(session_ids, relay._clock.monotonic_ms())


def nobody_expires(authority: Authority, now_ms: int) -> list[int]:
    return []


def session_outlives_its_end(tree: DataTree, session_id: int) -> None:
    """Its ephemerals go, it does not."""


_RIGHT_EPHEMERAL = DataTree.insert_ephemeral


def owner_is_not_noted(tree: DataTree, path: bytes, node: Node, owner: int) -> None:
    """Of some ephemerals, so that they outlive their session."""
    if node.number % 3:
        _RIGHT_EPHEMERAL(tree, path, node, owner)
    else:
        tree.insert(path, node)


def never_upgraded(service: ClientService, client: ClientConnection) -> None:
    """A local session stays one."""


# Changes of the ensemble.

_RIGHT_DECODE = Request.decode
_RIGHT_CHANGED = reconfiguration._changed


def version_is_not_asked(body: bytes) -> Request:
    """Whatever version a change names."""
    return replace(_RIGHT_DECODE(body), version=-1)


def who_leaves_stays(request: Request, now: Members) -> Members:
    """Where some join and others leave."""
    return _RIGHT_CHANGED(replace(request, leaving=None) if request.joining else request, now)


# Watches.


def recursive_looks_one_up(table: WatchTable, watchers: list[Hashable], path: bytes) -> list[Hashable]:
    """A recursive watch hears of the node and of its children alone."""
    found = dict.fromkeys(watchers)
    above = path.rpartition(b"/")[0] or b"/"
    for connection, (data, _) in table._of_connection.items():
        if data.get(above, 0) & RECURSIVE and above != b"/a":
            found[connection] = None
    return list(found)


_RIGHT_TAKE = WatchTable._take


def persistent_is_spent(table: WatchTable, number: int, path: bytes) -> list[Hashable]:
    taken = _RIGHT_TAKE(table, number, path)
    for connection in taken:
        table.remove(connection, number, path, PERSISTENT)
    return taken


def standard_is_not_spent(table: WatchTable, number: int, path: bytes) -> list[Hashable]:
    taken = _RIGHT_TAKE(table, number, path)
    for connection in taken:
        if not table.bits_of(connection, number, path):
            table.add(connection, number, path, STANDARD)
    return taken


_RIGHT_TELL = Replica._tell
_kept: dict[int, list[tuple[int, list[Any]]]] = {}


def events_come_late(replica: Replica, zxid: int) -> None:
    """The events of one request go out with those of the next, behind its answer."""
    events = replica._context.events
    due, _kept[id(replica)] = _kept.get(id(replica), []), [(zxid, list(events))]
    events.clear()
    for kept_zxid, kept in due:
        events += kept
        _RIGHT_TELL(replica, kept_zxid)


def nothing_is_caught_up(
    table: WatchTable, tree: DataTree, connection: Hashable, body: bytes, *, with_persistent: bool = False
) -> tuple[int, list[bytes]]:
    """setWatches registers what is there, as if the client had seen all of it."""
    seen = (1 << 62).to_bytes(8, "big")
    return set_watches(table, tree, connection, seen + body[8:], with_persistent=with_persistent)


_RIGHT_PARK = Answers.park


def parked_read_watches_at_once(
    answers: Answers, client: ClientConnection, xid: int, op: int, body: bytes
) -> None:
    """A read behind writes sets its watch when it arrives, not when it is executed."""
    if op in (opcodes.GET_DATA, opcodes.EXISTS) and body[-1]:
        answers._state.watches.add(client, WATCH_DATA, body[4:-1])
    _RIGHT_PARK(answers, client, xid, op, body)


# Execution.


def multi_is_half_done(tree: DataTree) -> None:
    """What a multi did before it failed stays."""
    tree.undo = None


_RIGHT_DROP = DataTree.drop_child


def numbers_are_used_again(tree: DataTree, path: bytes, parent: Node, child: bytes, zxid: int) -> None:
    """The next number is that of the children there are, not of those there have been (8.4)."""
    _RIGHT_DROP(tree, path, parent, child, zxid)
    parent.created -= 1


def parent_does_not_change(node: Node, zxid: int) -> None:
    """The Stat of a node says nothing of its children that come and go."""


_RIGHT_ENTER = Context.enter_batch
_own_clock = iter(range(1 << 62))


def own_clock_is_in_the_state(context: Context, stamp: Stamp) -> None:
    """Times in the state are those of whoever executes, not of the stamp."""
    _RIGHT_ENTER(context, stamp)
    context.wall_ms += next(_own_clock)


def everybody_may(tree: DataTree, context: Context, node: Node, want: int) -> None:
    """No list is looked at."""


def digests_are_shown(acl: Sequence[Acl], identities: Sequence[Identity]) -> list[Acl]:
    """Whoever asks sees them."""
    return list(acl)


def childless_is_due(node: Node, wall_ms: int, never_used_ms: int) -> bool:
    """A container goes as soon as it is found without children, and so does a TTL node."""
    return bool(node.kind) and not node.children


def nothing_is_due(reaper: Reaper, tree: DataTree, wall_ms: int, now_ms: int) -> list[bytes]:
    """The leader looks for nothing that has had its time."""
    return []


# Storage.


def write_is_not_synced(file: Any, parts: Any, offset: int) -> None:
    """The log takes what is written for durable."""
    file.pwrite(parts, offset)
    if "/log-" not in file.path:
        file.fdatasync()


class _Anything:
    def __ne__(self, other: object) -> bool:
        return False


def checksum_always_fits(payload: bytes) -> Any:
    return _Anything()


def holes_left_out(repair: Repair, lost: LostLog) -> list[RestoredBatch]:
    """A log is called whole with what is left of it."""
    kept = [lost.batches[zxid] for zxid in repair.history() if zxid in lost.batches]
    return [RestoredBatch(each.previous, each.first, each.last, None) for each in kept]


def nothing_of_the_log_before(logs: LogsToGive) -> LostLog:
    """What is behind its checkpoint it gives nobody."""
    return LostLog(0)


def log_ends_at_a_hole(*arguments: Any) -> None:
    """What is missing was never there, and nothing behind it counts."""
