"""How leaders and learners find together, done wrong as in the issues of 20.5; see `tests.sim.defects`."""

from dataclasses import replace
from typing import Any

from coord.zab.election import NOBODY, Election, Vote
from coord.zab.history import History
from coord.zab.leader import Leader
from coord.zab.learner import Learner, Phase
from coord.zab.messages import Ack, Diff, Propose, Snapshot, StateDigest, Truncate
from tests.sim.disk import Cut, Install, Operation
from tests.sim.node import SNAPSHOT_CHUNKS, Chunk, Node

_RIGHT_SYNC_BEGINS = Learner._on_sync_begins
_RIGHT_LOGGED = Learner.on_logged
_RIGHT_LOG = Node._log


def epoch_before_snapshot(learner: Learner, message: Diff | Truncate | Snapshot) -> None:
    """Makes the epoch current when a snapshot is announced, before it is here."""
    _RIGHT_SYNC_BEGINS(learner, message)
    if isinstance(message, Snapshot):
        learner._replica.begin_epoch(learner.epoch)


def snapshot_in_memory_only(node: Node, chunk: Chunk) -> None:
    """Goes on with the state that was received before it is durable."""
    if node._ready_due and not node.paused:
        node._carry_out(node.life)
    if node._installing != "receiving" or node.peer is None:
        return
    node.peer.snapshot_progress(node.world.now_ms)
    if chunk.number + 1 == SNAPSHOT_CHUNKS:
        node._installing = ""
        node.disk.submit(Install(chunk.state), _report_nothing)
        node.state = chunk.state
        node._checkpointed = node.state.count
        node.peer.snapshot_installed(chunk.state.zxid, node.membership, node.world.now_ms)


def _report_nothing(operations: list[Operation]) -> None:
    """It was reported already."""


def handed_out_is_durable(history: History, zxid: int) -> bool:
    """Takes for durable what the log was given."""
    return history.last_appended >= zxid


def commit_before_up_to_date(learner: Learner, zxid: int) -> None:
    """Looks for the committed batch even before UpToDate has come."""
    if zxid <= learner._history.committed or learner._phase <= Phase.WAITING:
        return
    if not learner._history.has_boundary(zxid):
        learner._replica.incident(f"commit of {zxid:#x}, history at {learner._history.last_appended:#x}")
        learner._replica.leave("a committed batch is missing")
        return
    learner._history.commit(zxid)


def ack_before_new_leader(learner: Learner) -> None:
    """Acknowledges batches of the synchronization one by one, before NewLeader."""
    if Phase.SYNCING <= learner._phase <= Phase.PERSISTING:
        learner._replica.send(learner.leader, Ack(learner.epoch, learner._history.logged))
    _RIGHT_LOGGED(learner)


def cut_overtakes_appends(node: Node, operation: Operation) -> None:
    """Cuts the log at once, while what an earlier role gave it is still being written."""
    if isinstance(operation, Cut):
        node.disk._apply(operation)
    _RIGHT_LOG(node, replace(operation, zxid=1 << 63) if isinstance(operation, Cut) else operation)


def drop_while_persisting(learner: Learner, message: Propose) -> None:
    """Forgets the batches that come while the epoch is being persisted."""
    if learner._phase >= Phase.SYNCING and learner._phase is not Phase.PERSISTING:
        learner._append(message)


def repetition_refused(learner: Learner, message: Propose) -> None:
    """Takes a batch that it has for one that cannot be."""
    if message.proposal.last_zxid <= learner._history.last_appended:
        learner._replica.incident(f"batch {message.proposal.last_zxid:#x} does not follow itself")
        learner._replica.leave("a batch came twice")
        return
    _RIGHT_APPEND(learner, message)


_RIGHT_APPEND = Learner._append


def behind_and_leads(leader: Leader, follower: Any, ack: Any) -> None:
    """Goes on though a follower has a more recent history, which is then cut."""
    best = leader._initial_standing
    leader._initial_standing = max(best, type(best)(ack.current_epoch, ack.last_zxid))
    try:
        _RIGHT_ON_ACK_EPOCH(leader, follower, ack)
    finally:
        leader._initial_standing = best


_RIGHT_ON_ACK_EPOCH = Leader._on_ack_epoch


def votes_without_history(election: Election) -> Vote:
    """Votes for itself as if all histories were equal (20.3)."""
    own = _RIGHT_OWN_VOTE(election)
    return own if own == NOBODY else Vote(0, 0, own.leader)


_RIGHT_OWN_VOTE = Election._own_vote


def digest_before_up_to_date(learner: Learner, zxid: int, digest: int) -> None:
    """Reports the digest of its state as soon as its leader has told it the epoch."""
    if learner._phase > Phase.ACCEPTING:
        learner._replica.send(learner.leader, StateDigest(learner.epoch, zxid, digest))
