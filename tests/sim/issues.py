"""The issues of ZooKeeper that the specification names (20.5 and others), each with the switches of
`tests.sim.defects` that bring it back here; or, where our design has no such step, with why, and the switches
that come nearest.
"""

from typing import NamedTuple


class Issue(NamedTuple):
    number: int
    what: str
    switches: tuple[str, ...]
    apart: str = ""
    """Where it cannot be brought back as it was."""


ISSUES = (
    Issue(
        962,
        "a learner that synchronizes while proposals are outstanding misses some",
        ("late-joiner-misses",),
    ),
    Issue(1154, "a leader is elected that lacks the latest history", ("behind-and-leads",)),
    Issue(
        2845,
        "the tree in memory keeps what was never committed across an election",
        ("tail-kept-in-state",),
    ),
    Issue(
        3104,
        "NEWLEADER outruns the snapshot; the epoch is current before the state is here",
        ("epoch-before-snapshot",),
        "here NewLeader follows SnapshotInstalled; the switch sets the epoch when the snapshot is announced",
    ),
    Issue(
        3642,
        "the leader dies after SNAP, and the learner goes on with a state that no disk holds",
        ("snapshot-in-memory-only",),
    ),
    Issue(3911, "NEWLEADER is acknowledged before the DIFF is logged", ("ack-without-history",)),
    Issue(
        4352,
        "named by the list of what is to be tested; no public description was found",
        ("epoch-before-history", "handed-out-is-durable"),
        "not brought back by itself: neither the threads of ZooKeeper's pull requests, nor its pages, nor "
        "the list of bugs beside its TLA+ specifications, nor any public source text name it, and the issue "
        "tracker itself was out of reach; nearest are the other orders of epoch, history and acknowledgement",
    ),
    Issue(
        4394,
        "a COMMIT between NEWLEADER and UPTODATE finds no proposal, and the learner dies",
        ("commit-before-up-to-date",),
        "here commits are cumulative and Heartbeats carry them; the switch acts on them too early",
    ),
    Issue(
        4643,
        "a crash between the new current epoch and the history loses what was committed",
        ("epoch-before-history",),
    ),
    Issue(
        4646,
        "NEWLEADER is acknowledged while the log thread still has the history",
        ("handed-out-is-durable",),
    ),
    Issue(
        4685,
        "proposals are acknowledged before NEWLEADER, and the leader shuts down",
        ("ack-before-new-leader",),
    ),
    Issue(
        4712,
        "the log thread of the role before goes on writing after the new one has cut the log",
        ("cut-overtakes-appends",),
        "here all roles share one queue to the log; the switch lets a cut overtake it",
    ),
    Issue(
        4785,
        "batches that race with the end of the synchronization are lost",
        ("dropped-while-persisting",),
        "here such batches are held until the epoch is durable; the switch forgets them",
    ),
)
