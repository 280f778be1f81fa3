"""Known defects of the past, to be re-introduced one at a time: the simulator must find each (test the
tester).

Each replaces steps of the core or of the simulated shell by the way they were done wrong somewhere,
sometime. Who finds it, and after how many runs, was measured (`python -m tests.sim --measure`); a test finds
it again within `runs_max` runs, and keeps the table of `docs/testing.md` in step with this one.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from coord.zab import leader
from coord.zab.election import Election
from coord.zab.feed import Feed
from coord.zab.history import History
from coord.zab.leader import Leader
from coord.zab.learner import Learner
from coord.zab.peer import Peer
from coord.zab.quorum import Hierarchical, Majority
from coord.zab.replica import Replica
from tests.sim import falsified, wrong_features, wrong_order, wrong_steps, wrong_sync
from tests.sim.disk import Disk
from tests.sim.faults import (
    CHANGING,
    CUT_OFF,
    DAMAGED,
    HANDING_OVER,
    LOST_DISKS,
    OBSERVED,
    REPEATING,
    SLOW_EPOCHS,
    SLOW_LOG,
    SNAPSHOTS,
    WEIGHTED,
    Profile,
)
from tests.sim.node import Node

P = TypeVar("P")
"""The profiles of one level of simulation."""


@dataclass(frozen=True, slots=True)
class Patch:
    """`wrong` stands in for `owner.name`."""

    owner: Any
    name: str
    wrong: Any


@dataclass(frozen=True, slots=True)
class Defect(Generic[P]):
    """What is done wrong, and what finding it took."""

    what: str
    patches: tuple[Patch, ...]
    laws: tuple[str, ...]
    """That found it, in the first runs and in those of two orders of events."""
    runs: int
    """Until one of them found it."""
    profile: P | None = None
    """The kind of run that shows it soon; every profile would in the end."""

    @property
    def runs_max(self) -> int:
        """What the test allows: another order of events is another story."""
        return max(10, 4 * self.runs)


@contextmanager
def introduced(name: str | None) -> Iterator[Profile | None]:
    """The defect is present within, none for None; gives the profile to run."""
    if name is None:
        yield None
        return
    with patched(DEFECTS[name]) as profile:
        yield profile


@contextmanager
def patched(defect: "Defect[P]") -> Iterator[P | None]:
    """Its wrong steps stand in for the right ones within; gives the profile to run."""
    with ExitStack() as stack:
        for patch in defect.patches:
            stack.callback(setattr, patch.owner, patch.name, patch.owner.__dict__[patch.name])
            setattr(patch.owner, patch.name, patch.wrong)
        yield defect.profile


def _at(owner: type, name: str, wrong: Any) -> tuple[Patch, ...]:
    return (Patch(owner, name, wrong),)


DEFECTS = {
    "ack-before-fsync": Defect(
        "acknowledges a batch before it is durable",
        _at(Node, "_log", wrong_steps.log_acknowledged_at_once),
        (
            "LoggedFirst",
            "CommitQuorum",
        ),
        1,
    ),
    "ack-before-new-leader": Defect(
        "acknowledges the batches of its synchronization before NewLeader (ZOOKEEPER-4685)",
        _at(Learner, "on_logged", wrong_sync.ack_before_new_leader),
        ("ackInconsistent",),
        2,
    ),
    "ack-without-history": Defect(
        "acknowledges NewLeader when the epoch is durable, whether or not the history is (ZOOKEEPER-3911)",
        _at(Learner, "_advance", wrong_steps.ack_without_history),
        ("CommitQuorum",),
        2,
    ),
    "altered-in-memory": Defect(
        "logs and executes something else than it was sent",
        _at(History, "append", wrong_order.altered_in_memory),
        ("Integrity", "InformedCommitted"),
        1,
    ),
    "behind-and-leads": Defect(
        "elects without a look at histories, and cuts what a follower has more (20.3, 20.4; ZOOKEEPER-1154)",
        (
            Patch(Election, "_own_vote", wrong_sync.votes_without_history),
            Patch(Leader, "_on_ack_epoch", wrong_sync.behind_and_leads),
        ),
        (
            "PrimaryIntegrity",
            "CheckDuringAction",
            "proposalInconsistent",
            "Durability",
        ),
        2,
        SLOW_LOG,
    ),
    "change-survives-cut": Defect(
        "goes on with a change of membership that was cut off",
        _at(History, "truncate", wrong_steps.change_survives_cut),
        ("MembershipAgreement",),
        3,
        CHANGING,
    ),
    "change-keeps-version": Defect(
        "gives a change of membership the version that was there before",
        _at(Node, "change_membership", wrong_order.change_keeps_version),
        ("ChangeVersion",),
        1,
        CHANGING,
    ),
    "changes-overlap": Defect(
        "proposes a change of membership before the one before is committed",
        (
            Patch(Leader, "is_changing", property(wrong_order.never_changing)),
            Patch(Peer, "is_changing", property(wrong_order.never_changing)),
        ),
        ("OneChangeAtATime",),
        1,
        CHANGING,
    ),
    "commit-of-another-epoch": Defect(
        "commits in the name of the epoch before its own",
        _at(Feed, "announce_commit", wrong_order.commits_in_the_name_of_another),
        ("messageIllegal",),
        2,
    ),
    "commit-before-up-to-date": Defect(
        "looks for committed batches that are to come, between NewLeader and UpToDate (ZOOKEEPER-4394)",
        _at(Learner, "_commit", wrong_sync.commit_before_up_to_date),
        ("commitInconsistent",),
        1,
    ),
    "commit-of-anything": Defect(
        "a commit commits the learner's whole history",
        _at(Learner, "_commit", wrong_steps.commit_of_anything),
        ("CommitQuorum",),
        2,
    ),
    "cut-overtakes-appends": Defect(
        "cuts the log while what an earlier role gave it is still being written (ZOOKEEPER-4712)",
        _at(Node, "_log", wrong_sync.cut_overtakes_appends),
        ("PrefixConsistency",),
        2,
        SLOW_LOG,
    ),
    "designated-without-history": Defect(
        "hands over to whoever has least, which leads without looking at the others' history",
        (
            Patch(Leader, "name_successor", wrong_features.names_the_last),
            Patch(Leader, "_on_ack_epoch", wrong_sync.behind_and_leads),
        ),
        ("HandOverComplete",),
        2,
        HANDING_OVER,
    ),
    "dropped-while-persisting": Defect(
        "forgets the batches that come while the epoch is being persisted (ZOOKEEPER-4785)",
        _at(Learner, "_on_propose", wrong_sync.drop_while_persisting),
        (
            "commitInconsistent",
            "proposalInconsistent",
        ),
        1,
    ),
    "epoch-before-history": Defect(
        "sets the current epoch before the history is durable (ZOOKEEPER-4643)",
        _at(Learner, "_on_new_leader", wrong_steps.epoch_before_history),
        (
            "CheckDuringAction",
            "PrimaryIntegrity",
        ),
        8,
        SLOW_LOG,
    ),
    "epoch-before-snapshot": Defect(
        "sets the current epoch before the snapshot is durable (ZOOKEEPER-3104)",
        _at(Learner, "_on_sync_begins", wrong_sync.epoch_before_snapshot),
        (
            "CheckDuringAction",
            "Durability",
        ),
        2,
        SNAPSHOTS,
    ),
    "executes-differently": Defect(
        "comes to another state than the others by the same batches",
        _at(Node, "_execute_batch", falsified.executes_differently),
        ("StateDigest",),
        1,
    ),
    "digest-of-another-moment": Defect(
        "reports a digest that its state does not have",
        _at(Peer, "note_digest", wrong_order.digest_of_another_moment),
        ("NoFalseAlarm",),
        1,
    ),
    "digest-before-up-to-date": Defect(
        "reports digests of its state to a leader that has not synchronized it",
        _at(Learner, "on_digest", wrong_sync.digest_before_up_to_date),
        ("ShouldNotBeTriggered",),
        1,
        SLOW_LOG,
    ),
    "executed-again": Defect(
        "executes its last batch a second time",
        _at(History, "take_committed", wrong_order.executed_again),
        ("TotalOrder",),
        1,
    ),
    "executed-unlogged": Defect(
        "executes what is committed but not durable here",
        _at(History, "take_committed", wrong_steps.execute_unlogged),
        ("LoggedFirst",),
        1,
    ),
    "first-left-out": Defect(
        "executes all but the first of several batches that were committed together",
        _at(History, "take_committed", wrong_order.one_left_out),
        ("LocalPrimaryOrder",),
        1,
    ),
    "hand-over-too-early": Defect(
        "names the successor before all is committed and that one has it",
        _at(Leader, "name_successor", wrong_features.names_anybody),
        ("HandOverComplete",),
        2,
        HANDING_OVER,
    ),
    "handed-out-is-durable": Defect(
        "acknowledges NewLeader while the history is still being written (ZOOKEEPER-4646)",
        _at(History, "durable_through", wrong_sync.handed_out_is_durable),
        ("CommitQuorum",),
        2,
        SLOW_LOG,
    ),
    "late-joiner-misses": Defect(
        "sends no outstanding batches to a late joiner (chapter 21, lesson 1; ZOOKEEPER-962)",
        _at(Feed, "join", wrong_steps.late_joiner_misses_outstanding),
        (
            "proposalInconsistent",
            "commitInconsistent",
        ),
        2,
    ),
    "new-quorum-at-once": Defect(
        "decides a change of membership by its own quorum alone",
        _at(History, "_choose_quorum", wrong_steps.new_quorum_at_once),
        (
            "CommitQuorum",
            "JointCommit",
        ),
        2,
        CHANGING,
    ),
    "observers-told-early": Defect(
        "sends observers what is not committed",
        _at(Feed, "inform", wrong_steps.observers_told_early),
        (
            "InformedCommitted",
            "CommitQuorum",
        ),
        1,
    ),
    "observers-vote": Defect(
        "counts observers in the quorum for epoch and support",
        (
            Patch(Majority, "contains", wrong_features.strangers_count),
            Patch(Replica, "countable", wrong_features.observers_have_a_voice),
            Patch(Leader, "_tell_epoch", wrong_features.epoch_told_to_all),
            Patch(Leader, "_has_support", wrong_features.observers_support),
        ),
        ("CommitQuorum",),
        2,
        OBSERVED,
    ),
    "old-quorum-until-commit": Defect(
        "decides a change of membership by the quorum before it alone",
        _at(History, "_choose_quorum", wrong_steps.old_quorum_until_commit),
        (
            "JointCommit",
            "CommitQuorum",
        ),
        2,
        CHANGING,
    ),
    "older-epoch-again": Defect(
        "executes a batch of the epoch before behind those of its own",
        _at(History, "take_committed", wrong_order.older_epoch_again),
        ("GlobalPrimaryOrder",),
        1,
    ),
    "own-log-not-awaited": Defect(
        "counts the leader's own log before it is durable",
        _at(Leader, "_advance_commit", wrong_steps.commit_by_one_follower),
        (
            "InformedCommitted",
            "CommitQuorum",
        ),
        1,
    ),
    "promise-not-persisted": Defect(
        "acknowledges an epoch that a crash forgets",
        _at(Replica, "accept_epoch", wrong_steps.not_persisted_promise),
        (
            "CheckDuringAction",
            "Leadership2",
        ),
        1,
        SLOW_EPOCHS,
    ),
    "repetition-refused": Defect(
        "takes a batch that comes twice for one that cannot be (chapter 21, lesson 2)",
        _at(Learner, "_append", wrong_sync.repetition_refused),
        ("proposalInconsistent",),
        1,
        REPEATING,
    ),
    "snapshot-in-memory-only": Defect(
        "goes on with a snapshot that is not durable yet (ZOOKEEPER-3642)",
        _at(Node, "_on_chunk", wrong_sync.snapshot_in_memory_only),
        (
            "commitInconsistent",
            "stateInconsistent",
            "CheckDuringAction",
            "proposalInconsistent",
            "Progress",
        ),
        2,
        SNAPSHOTS,
    ),
    "stale-leader-confirms": Defect(
        "answers syncs without asking a quorum (20.7)",
        _at(Leader, "send_confirmation", wrong_steps.stale_leader_confirms),
        ("SyncLinearizable",),
        16,
        CUT_OFF,
    ),
    "tail-kept-in-state": Defect(
        "keeps the uncommitted tail in the state when it goes LOOKING (ZOOKEEPER-2845)",
        _at(Peer, "_look", wrong_steps.tail_kept_in_state),
        (
            "CommitQuorum",
            "JointCommit",
        ),
        2,
    ),
    "weightless-leads": Defect(
        "a server of weight 0 stands for election (19.7)",
        _at(Hierarchical, "electable", property(wrong_features.weightless_electable)),
        ("ElectableLeads",),
        1,
        WEIGHTED,
    ),
    "lost-history-keeps-epoch": Defect(
        "keeps the current epoch of a history that its disk has lost",
        _at(Disk, "give_up_history", wrong_steps.lost_history_keeps_epoch),
        ("PrimaryIntegrity", "CheckDuringAction"),
        2,
        LOST_DISKS,
    ),
    "repaired-without-its-end": Defect(
        "claims the epoch of a damaged log again without the last batches that it had",
        _at(Disk, "repair_log", wrong_steps.repaired_without_its_end),
        ("PrimaryIntegrity", "CheckDuringAction", "Durability"),
        1,
        DAMAGED,
    ),
    "repaired-without-its-promises": Defect(
        "claims the epoch of a damaged log again, and forgets the epochs that it has accepted since",
        _at(Disk, "repair_log", wrong_steps.repaired_without_its_promises),
        ("Leadership2", "CheckDuringAction"),
        2,
        DAMAGED,
    ),
    "wiped-server-counts": Defect(
        "counts the vote of a server that lost its disk",
        (
            Patch(Replica, "_countable", wrong_steps.everybody_counts),
            Patch(Replica, "has_voice", property(wrong_steps.has_voice)),
        ),
        ("PrefixConsistency", "PrimaryIntegrity", "Leadership2", "Leadership1"),
        10,
        LOST_DISKS,
    ),
    "zxids-reused": Defect(
        "goes on with the first zxid of its epoch after the last",
        (
            Patch(leader, "COUNTER_MAX", wrong_features.EPOCH_COUNTER_MAX),
            Patch(Leader, "is_ending", property(wrong_features.never_ends)),
            Patch(Leader, "next_zxid", property(wrong_features.first_zxid_again)),
            Patch(Leader, "propose", wrong_features.propose_with_first_zxid_again),
        ),
        ("BroadcastOnce",),
        1,
    ),
}
