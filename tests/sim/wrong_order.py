"""What is executed or said in another order or form than it was broadcast; see `tests.sim.defects`."""

from collections.abc import Sequence
from dataclasses import replace

from coord.zab import Membership, Peer, Proposal, epoch_of
from coord.zab.feed import Feed
from coord.zab.history import History
from coord.zab.messages import Commit
from tests.sim.disk import CHANGE
from tests.sim.node import Node

_RIGHT_TAKE_COMMITTED = History.take_committed
_RIGHT_APPEND = History.append
_RIGHT_NOTE_DIGEST = Peer.note_digest


def executed_again(history: History) -> Sequence[Proposal]:
    """Takes its last batch for one that has just been committed, when it is asked and none has."""
    batches = _RIGHT_TAKE_COMMITTED(history)
    end = history._delivered_count
    return batches or history._batches[max(0, end - 1) : end]


def one_left_out(history: History) -> Sequence[Proposal]:
    """Of several that have been committed executes all but the first."""
    batches = _RIGHT_TAKE_COMMITTED(history)
    return batches[1:] if len(batches) > 1 else batches


def older_epoch_again(history: History) -> Sequence[Proposal]:
    """Behind what it executes of an epoch puts the last that it has of the one before."""
    batches = list(_RIGHT_TAKE_COMMITTED(history))
    known = history._batches[: history._delivered_count] if batches else []
    older = [batch for batch in known if epoch_of(batch.last_zxid) < epoch_of(history.delivered)]
    return batches + older[-1:]


def altered_in_memory(history: History, batch: Proposal) -> None:
    """Some batches are not what was sent when they come to be logged."""
    if batch.last_zxid % 16 == 7 and not batch.payload.startswith(CHANGE):
        batch = replace(batch, payload=batch.payload + b"!")
    _RIGHT_APPEND(history, batch)


def commits_in_the_name_of_another(feed: Feed) -> None:
    """Its commits name the epoch before its own."""
    feed.inform()
    committed = feed._history.committed
    feed._replica.broadcast(feed._followers.up_to_date, Commit(feed.epoch - 1, committed))


def digest_of_another_moment(peer: Peer, zxid: int, digest: int) -> None:
    """Server 1 reports what was the digest a moment before."""
    _RIGHT_NOTE_DIGEST(peer, zxid, digest ^ (peer._config.sid == 1))


def change_keeps_version(node: Node, membership: Membership) -> bool:
    """A change names the version that it replaces, not its own zxid."""
    peer = node.peer
    if not node.running or node.paused or peer is None or not peer.can_propose:
        return False
    if peer.is_changing or not peer.can_change_to(membership):
        return False
    changed = replace(membership, version=node.membership.version)
    return node.propose(CHANGE + changed.encode().encode(), 1)


def never_changing(owner: object) -> bool:
    """Knows of no change that is under way."""
    return False
