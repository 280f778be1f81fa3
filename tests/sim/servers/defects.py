"""Known ways to get whole servers wrong, to be introduced one at a time: the simulator must find each.

As `tests.sim.defects`, for what the first level has not: sessions, watches, execution, storage.
"""

from importlib import import_module

from coord.disk import faulty
from coord.log import opening, scan
from coord.server import handshake, reaper, reconfiguration, repairing
from coord.server.answers import Answers
from coord.server.authority import Authority
from coord.server.reaper import Reaper
from coord.server.reconfiguration import Request
from coord.server.relay import Relay
from coord.server.replica import Replica
from coord.server.service import ClientService
from coord.server.tracker import SessionTracker
from coord.storage import LogsToGive
from coord.tree import DataTree, WatchTable, create, reaping, watch_requests
from coord.tree.context import Context
from coord.tree.node import Node
from coord.zab.history import History
from coord.zab.leader import Leader
from tests.sim import wrong_steps
from tests.sim.defects import Defect, Patch
from tests.sim.servers import wrong
from tests.sim.servers.faults import ServersProfile, weights_of

MOVING = ServersProfile(
    weights_of(client_moves=6, client_cut=2, block=3, crash=1),
    60_000,
    300_000,
    6_000,
    0.0,
    4_000,
    5,
    40_000,
    calm_ms=500,
)
"""Clients go from server to server, some of which lag behind."""
SILENT = ServersProfile(
    weights_of(client_silent=4, pause=2, clock_jump=3, crash_leader=1, resign=1),
    150_000,
    400_000,
    8_000,
    0.0,
    800,
    5,
    80_000,
)
"""Clients and processes stand still, clocks leap, leaders change."""
WATCHING = ServersProfile(
    weights_of(client_cut=2, client_moves=1), 300_000, 100_000, 6_000, 0.0, 800, 5, 40_000
)
"""Much happens to what is watched, and little else goes wrong."""
POWER_CUTS = ServersProfile(
    weights_of(crash=2, crash_leader=2, crash_all=3),
    150_000,
    60_000,
    6_000,
    0.001,
    8_000,
    5,
    40_000,
    servers=3,
)
"""The power goes off all the time."""
BAD_DISKS = ServersProfile(
    weights_of(bit_rot=4, misdirected=3, crash_leader=2, partition=1),
    150_000,
    60_000,
    8_000,
    0.0,
    800,
    5,
    40_000,
    servers=3,
    calm_ms=500,
)
"""Disks forget and lie, one at a time."""
ROLLING = ServersProfile(
    weights_of(crash=3, snapshot=2, bit_rot=1), 200_000, 60_000, 6_000, 0.0, 800, 3, 40_000, servers=3
)
"""Servers begin again, from their disks and from snapshots."""
ROTTEN = ServersProfile(
    weights_of(logs_rot=5, crash=1, crash_leader=1, stop=1, partition=1, snapshot=1),
    400_000,
    60_000,
    8_000,
    0.0005,
    800,
    3,
    40_000,
    servers=3,
)
"""Logs rot on all servers, each in other places, and they repair each other's."""
CHANGING = ServersProfile(
    weights_of(crash=2, crash_leader=2, cut=2, partition=1, stop=1, snapshot=1),
    150_000,
    150_000,
    8_000,
    0.0005,
    800,
    3,
    40_000,
    servers=3,
    change_weight=2.0,
)
"""The ensemble changes all the time."""
LOCAL = ServersProfile(
    weights_of(client_cut=2, client_moves=2, crash=1, stop=1),
    200_000,
    100_000,
    6_000,
    0.0,
    800,
    5,
    40_000,
    local_sessions=1.0,
)
"""Sessions are those of one server until they make an ephemeral node."""
LYING = ServersProfile(
    weights_of(lost_write=5, stop=1, crash_leader=1), 200_000, 60_000, 8_000, 0.0, 800, 3, 40_000, servers=3
)
"""Disks say that they have written what they have not."""


def _one(
    what: str,
    owner: object,
    name: str,
    step: object,
    laws: tuple[str, ...],
    runs: int,
    profile: ServersProfile,
) -> Defect[ServersProfile]:
    return Defect(what, (Patch(owner, name, step),), laws, runs, profile)


SERVER_DEFECTS: dict[str, Defect[ServersProfile]] = {
    "attach-unasked": Defect(
        "takes sessions up without its leader, though they have seen more than it has (4.1, 4.4)",
        (
            Patch(handshake, "decode_connect_request", wrong.zxid_seen_is_ignored),
            Patch(Relay, "attach", wrong.attach_without_leader),
        ),
        ("MonotoneReads", "ShouldNotBeTriggered"),
        1,
        MOVING,
    ),
    "aside-given-no-more": _one(
        "gives peers nothing of the log that it had before its repair, or behind its checkpoint",
        LogsToGive,
        "_read_aside",
        wrong.nothing_of_the_log_before,
        ("Progress",),
        1,
        ROTTEN,
    ),
    "catch-up-forgotten": _one(
        "registers the watches of a client that comes back, and tells it nothing of what it has missed (9.6)",
        watch_requests,
        "set_watches",
        wrong.nothing_is_caught_up,
        ("WatchKept",),
        1,
        MOVING,
    ),
    "change-on-any-version": _one(
        "carries out a change of the ensemble whatever version it names (19.4)",
        Request,
        "decode",
        staticmethod(wrong.version_is_not_asked),
        ("ChangeAsAsked",),
        1,
        CHANGING,
    ),
    "checksum-not-checked": _one(
        "believes what it reads from its log",
        scan,
        "crc32c",
        wrong.checksum_always_fits,
        ("StateDigest", "PrefixConsistency"),
        3,
        BAD_DISKS,
    ),
    "commit-by-one-follower": _one(
        "counts the leader's own log before it is durable",
        Leader,
        "_advance_commit",
        wrong_steps.commit_by_one_follower,
        ("CommitQuorum",),
        1,
        POWER_CUTS,
    ),
    "container-not-used-yet": Defect(
        "deletes containers that wait for their first child, and TTL nodes before their time (8.3)",
        (
            Patch(reaping, "is_due", wrong.childless_is_due),
            Patch(reaper, "is_due", wrong.childless_is_due),
        ),
        ("ReadTrue", "WatchCause", "AnswerTrue", "Durability"),
        1,
        WATCHING,
    ),
    "digests-shown": _one(
        "shows the digests of an access control list to whoever reads it (6.8)",
        import_module("coord.tree.read"),  # its package has a function of this name
        "mask_acl",
        wrong.digests_are_shown,
        ("ReadTrue",),
        1,
        WATCHING,
    ),
    "everybody-may-create": _one(
        "lets everybody create below a node that does not allow it (11.2)",
        create,
        "check_acl",
        wrong.everybody_may,
        ("AnswerTrue", "EphemeralWithSession"),
        1,
        WATCHING,
    ),
    "ephemeral-without-owner": _one(
        "forgets whose some ephemeral nodes are",
        DataTree,
        "insert_ephemeral",
        wrong.owner_is_not_noted,
        ("EphemeralWithSession",),
        1,
        WATCHING,
    ),
    "events-behind-answers": _one(
        "sends events behind the answer that shows their change (9.4)",
        Replica,
        "_tell",
        wrong.events_come_late,
        ("WatchKept", "WatchCause"),
        1,
        WATCHING,
    ),
    "hole-is-the-end": _one(
        "takes a hole in its log for the end",
        opening,
        "find_later_frame",
        wrong.log_ends_at_a_hole,
        ("LossNoticed",),
        1,
        LYING,
    ),
    "log-not-synced": _one(
        "acknowledges what is written to its log and not synced",
        faulty._FaultyFile,
        "pwrite_durable",
        wrong.write_is_not_synced,
        ("Progress",),
        1,
        POWER_CUTS,
    ),
    "moved-session-writes": _one(
        "executes what a session sent on the connection before its last (4.4)",
        Authority,
        "refused",
        wrong.owner_is_not_asked,
        ("SessionOrder",),
        4,
        MOVING,
    ),
    "multi-half-done": _one(
        "keeps what a multi did before it failed (10.3)",
        DataTree,
        "rollback",
        wrong.multi_is_half_done,
        ("EphemeralWithSession", "ReadTrue"),
        1,
        WATCHING,
    ),
    "new-quorum-alone": _one(
        "decides a change of the ensemble by the quorum behind it alone (19.5)",
        History,
        "_choose_quorum",
        wrong_steps.new_quorum_at_once,
        ("JointCommit",),
        1,
        CHANGING,
    ),
    "new-leader-expires": _one(
        "does not give all sessions their full time when a leadership begins (4.3)",
        SessionTracker,
        "restart",
        wrong.new_leader_gives_a_tick,
        ("SessionNotEarly",),
        1,
        SILENT,
    ),
    "nobody-expires": _one(
        "lets no session expire",
        Authority,
        "take_expired",
        wrong.nobody_expires,
        ("SessionEnds",),
        1,
        SILENT,
    ),
    "numbers-used-again": _one(
        "numbers sequential nodes by the children there are (8.4)",
        DataTree,
        "drop_child",
        wrong.numbers_are_used_again,
        ("AnswerTrue", "EphemeralWithSession"),
        1,
        WATCHING,
    ),
    "own-clock-in-state": _one(
        "puts its own time into the state",
        Context,
        "enter_batch",
        wrong.own_clock_is_in_the_state,
        ("StateDigest",),
        1,
        ROLLING,
    ),
    "parent-unchanged": _one(
        "leaves the Stat of a parent as it is when children come and go (8.5)",
        Node,
        "note_child_change",
        wrong.parent_does_not_change,
        ("ReadTrue",),
        1,
        WATCHING,
    ),
    "parked-read-watches": _one(
        "sets the watch of a read before the writes in front of it are executed (9.1)",
        Answers,
        "park",
        wrong.parked_read_watches_at_once,
        ("WatchCause",),
        1,
        WATCHING,
    ),
    "persistent-spent": _one(
        "spends persistent watches (9.1)",
        WatchTable,
        "_take",
        wrong.persistent_is_spent,
        ("WatchKept",),
        1,
        WATCHING,
    ),
    "repaired-with-holes": _one(
        "calls a log whole again when its peers have answered, and writes what is left of it",
        repairing,
        "history_of",
        wrong.holes_left_out,
        ("Progress",),
        1,
        ROTTEN,
    ),
    "recursive-one-up": _one(
        "tells a recursive watch of some descendants only (9.2)",
        WatchTable,
        "_with_recursive",
        wrong.recursive_looks_one_up,
        ("WatchKept",),
        1,
        WATCHING,
    ),
    "session-outlives-end": _one(
        "keeps a session that was closed (4.6)",
        DataTree,
        "remove_session",
        wrong.session_outlives_its_end,
        ("AnswerTrue", "EphemeralWithSession"),
        1,
        SILENT,
    ),
    "stall-counts": _one(
        "counts the time that its own process stood still as silence of its clients",
        SessionTracker,
        "stand_still",
        wrong.silence_of_a_stall_counts,
        ("SessionNotEarly",),
        1,
        SILENT,
    ),
    "standard-not-spent": _one(
        "does not spend standard watches (9.1)",
        WatchTable,
        "_take",
        wrong.standard_is_not_spent,
        ("WatchCause",),
        1,
        WATCHING,
    ),
    "sync-without-leader": _one(
        "answers a sync without its leader (6.9)",
        Relay,
        "sync",
        wrong.sync_without_leader,
        ("SyncLinearizable",),
        4,
        MOVING,
    ),
    "touches-kept": _one(
        "does not tell the leader which sessions it has heard of (4.3)",
        Relay,
        "touch",
        wrong.touches_are_kept,
        ("SessionNotEarly",),
        1,
        WATCHING,
    ),
    "never-upgraded": _one(
        "leaves a session local that asks for an ephemeral node (4.7)",
        ClientService,
        "_upgrade",
        wrong.never_upgraded,
        ("SessionUpgraded",),
        1,
        LOCAL,
    ),
    "nothing-is-reaped": _one(
        "deletes no container and no TTL node (8.3)",
        Reaper,
        "take_due",
        wrong.nothing_is_due,
        ("ReapedInTime",),
        1,
        WATCHING,
    ),
    "who-leaves-stays": _one(
        "keeps who is to leave when others join (19.4)",
        reconfiguration,
        "_changed",
        wrong.who_leaves_stays,
        ("ChangeAsAsked",),
        1,
        CHANGING,
    ),
    "unowned-is-over": _one(
        "tells a client that its session is over because its leader does not know who has it (4.4)",
        Authority,
        "attach",
        wrong.unowned_is_over,
        ("SessionKept",),
        1,
        MOVING,
    ),
}
