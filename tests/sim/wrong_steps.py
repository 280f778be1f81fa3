"""Single steps of the core and of the simulated shell as they were done wrong somewhere, sometime;
`tests.sim.defects` says what each is.
"""

from dataclasses import replace
from typing import Any

from coord.zab import Epochs
from coord.zab.feed import Feed
from coord.zab.history import History
from coord.zab.leader import Leader, Phase
from coord.zab.learner import Learner
from coord.zab.learner import Phase as LearnerPhase
from coord.zab.messages import AckNewLeader, NewLeader, Propose, Sid
from coord.zab.peer import Peer
from coord.zab.quorum import Quorum
from coord.zab.replica import Replica
from tests.sim.disk import Append, Disk, Operation
from tests.sim.node import Node

_RIGHT_REPAIR_LOG = Disk.repair_log


def lost_history_keeps_epoch(disk: Disk) -> None:
    """Claims the history of its last epoch without having it."""
    epochs = disk.epochs
    disk.wipe()
    disk.epochs = epochs


def repaired_without_its_end(disk: Disk) -> None:
    """Claims its epoch again without the last batches that it had."""
    lost = disk.lost_log
    assert lost is not None
    disk.lost_log = replace(lost, log=lost.log[:-3])
    _RIGHT_REPAIR_LOG(disk)


def repaired_without_its_promises(disk: Disk) -> None:
    """Claims its epoch again, and forgets which it has accepted since."""
    _RIGHT_REPAIR_LOG(disk)
    disk.epochs = Epochs(disk.epochs.current, disk.epochs.current)


def log_acknowledged_at_once(node: Node, operation: Operation) -> None:
    """Reports a batch as logged when it is written, before the fsync."""
    node.disk.submit(operation, node._log_done_later())
    if isinstance(operation, Append) and node.peer is not None:
        node.peer.logged(operation.batch.last_zxid)


def epoch_before_history(learner: Learner, message: NewLeader) -> None:
    """Makes the epoch current as soon as NewLeader comes; waits for the history only before the ack
    (ZOOKEEPER-4643).
    """
    learner._phase = LearnerPhase.PERSISTING
    learner._new_leader_zxid = learner._history.last_appended
    learner._replica.begin_epoch(learner.epoch)
    learner._advance()


def ack_without_history(learner: Learner) -> None:
    """Acks NewLeader when the epoch is durable, whether or not the history is (ZOOKEEPER-3911)."""
    replica = learner._replica
    if learner._phase is not LearnerPhase.PERSISTING:
        return
    replica.begin_epoch(learner.epoch)
    if replica.durable_current < learner.epoch:
        return
    learner._phase = LearnerPhase.SYNCED
    replica.send(learner.leader, AckNewLeader(learner.epoch))
    held, learner._held = learner._held, []
    for message in held:
        learner._append(message)


_RIGHT_LOOK = Peer._look


def tail_kept_in_state(peer: Peer) -> None:
    """Back to LOOKING, executes whatever is logged, committed or not (ZOOKEEPER-2845)."""
    history = peer._replica.history
    history.commit(history.logged)
    _RIGHT_LOOK(peer)


def everybody_counts(replica: Replica, quorum: Quorum) -> set[Sid]:
    """Counts the voice of a server that lost its disk."""
    return set(replica.standings) | {replica.sid}


def has_voice(replica: Replica) -> bool:
    """As if there were no server without history."""
    return True


def commit_by_one_follower(leader: Leader) -> None:
    """Counts the leader's own batch as logged when it is proposed."""
    if leader._phase is not Phase.ESTABLISHED:
        return
    logged = {each.sid: each.logged for each in leader._followers if each.counts}
    logged[leader._replica.sid] = leader._history.last_appended
    leader._history.commit(leader._replica.quorum.logged_by_quorum(logged))


def late_joiner_misses_outstanding(feed: Feed, follower: Any, common: int) -> None:
    """Synchronizes with what is committed, and joins the broadcast: what is outstanding is missed (lesson
    1).
    """
    previous, history = common, feed._history
    for batch in history.batches_after(common):
        if batch.last_zxid <= max(history.committed, feed._initial_last):
            feed._replica.send(follower.sid, Propose(feed.epoch, previous, history.committed, batch))
            previous = batch.last_zxid
    feed._replica.send(follower.sid, NewLeader(feed.epoch, feed._initial_last))
    follower.progress = type(follower.progress).JOINED
    feed._followers.refresh()


def observers_told_early(feed: Feed) -> None:
    """Sends observers what is proposed, not what is committed."""
    committed, feed._history.committed = feed._history.committed, feed._history.last_appended
    try:
        _RIGHT_INFORM(feed)
    finally:
        feed._history.committed = committed


_RIGHT_INFORM = Feed.inform


def new_quorum_at_once(history: History) -> None:
    """From its proposal on, a change is decided by its own quorum alone."""
    history.quorum = history.newest_membership.quorum


def old_quorum_until_commit(history: History) -> None:
    """A change is decided by the quorum before it alone."""
    history.quorum = history.membership_before.quorum if history.pending else history.membership.quorum


def change_survives_cut(history: History, zxid: int) -> None:
    """A change that was cut off the log goes on deciding."""
    pending = list(history.pending)
    _RIGHT_TRUNCATE(history, zxid)
    history.pending = pending
    history._choose_quorum()


_RIGHT_TRUNCATE = History.truncate


def commit_of_anything(learner: Learner, zxid: int) -> None:
    """Takes a commit for what this learner has, whether or not it was told that its epoch is established."""
    if zxid > learner._history.committed:
        learner._history.commit(learner._history.last_appended)


def execute_unlogged(history: History) -> Any:
    """Hands out what is committed though it is not durable here."""
    logged, history.logged = history.logged, history.last_appended
    try:
        return _RIGHT_TAKE_COMMITTED(history)
    finally:
        history.logged = logged


_RIGHT_TAKE_COMMITTED = History.take_committed


def not_persisted_promise(replica: Replica, epoch: int, leader: Sid) -> None:
    """Answers with the accepted epoch before it is durable."""
    replica.accepted_epoch = replica.durable_accepted = epoch
    replica.promised_to = leader
    replica.epochs_changed = True


def stale_leader_confirms(leader: Leader) -> None:
    """Answers a sync without asking anybody (20.7)."""
    if leader._confirmation.begin():
        leader._replica.confirmed_round = leader._replica.confirm_serial
