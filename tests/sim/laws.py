"""What must hold, each law a function whose first line is its meaning: the invariants of specification
chapter 21 by their names, its assertion families, and our own. `tests.sim.witness` says when each is checked.

A law is called with the witness, the server concerned, and what has just happened; it gives None, or what is
wrong, and then LawViolated ends the run.

While one server has lost its disk, and until it is synchronized, it counts as if it still had its copies:
those are gone, and the law is that no other goes.
"""

import re
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from coord.zab import Proposal, Quorum, epoch_of
from coord.zab.leader import Leader
from coord.zab.messages import HandOver, Sid
from tests.sim.disk import membership_of

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.witness import Witness

P = ParamSpec("P")
Law = Callable[Concatenate["Witness", "Node", P], str | None]
LAWS: dict[str, str] = {}
"""Name -> meaning, in the order of this file."""


def law(name: str) -> Callable[[Law[P]], Callable[Concatenate["Witness", "Node", P], None]]:
    def register(check: Law[P]) -> Callable[Concatenate["Witness", "Node", P], None]:
        LAWS[name] = " ".join((check.__doc__ or "").split())

        @wraps(check)
        def checked(seen: "Witness", node: "Node", *arguments: P.args, **keywords: P.kwargs) -> None:
            wrong = check(seen, node, *arguments, **keywords)
            if wrong is not None:
                seen.violated(name, node, wrong)

        return checked

    return register


# Chapter 21: leaders.


@law("Leadership1")
def leadership1(seen: "Witness", node: "Node", epoch: int) -> str | None:
    """no two servers lead (synchronize or broadcast) in one epoch at one time"""
    first = seen.leaders[epoch]
    other = seen.nodes[first].peer
    if first != node.sid and other and isinstance(other._role, Leader) and other._role.epoch == epoch:
        return f"leads epoch {epoch} beside server {first}"
    return None


@law("Leadership2")
def leadership2(seen: "Witness", node: "Node", epoch: int) -> str | None:
    """no two servers ever lead in one epoch"""
    first = seen.leaders[epoch]
    return None if first == node.sid else f"leads epoch {epoch}, which was led by server {first}"


# Chapter 21: what is executed.


@law("PrefixConsistency")
def prefix_consistency(seen: "Witness", node: "Node", batch: Proposal, position: int) -> str | None:
    """what two servers have executed agrees, batch by batch, up to the shorter of them"""
    if position < len(seen.order) and seen.order[position] != batch:
        expected = seen.order[position].last_zxid
        return f"executed {batch.last_zxid:#x} where others have {expected:#x}"
    return None


@law("Integrity")
def integrity(seen: "Witness", node: "Node", batch: Proposal) -> str | None:
    """only what a leader broadcast is executed, as it was broadcast"""
    if seen.broadcast.get(batch.last_zxid) != (batch.first_zxid, batch.payload):
        return f"executed {batch.last_zxid:#x}, which was not broadcast so"
    return None


@law("Agreement")
def agreement(seen: "Witness", node: "Node") -> str | None:
    """of any two servers one has executed all that the other has"""
    count = node.state.count
    for other in seen.nodes.values():
        shorter = min(count, other.state.count)
        if shorter and seen.position_of.get(min(node.state.zxid, other.state.zxid)) != shorter - 1:
            return f"executed {node.state.zxid:#x} and server {other.sid} {other.state.zxid:#x}, apart"
    return None


@law("TotalOrder")
def total_order(seen: "Witness", node: "Node", batch: Proposal, before_zxid: int) -> str | None:
    """every server executes in the order of zxids"""
    if batch.first_zxid <= before_zxid:
        return f"executed {batch.first_zxid:#x} after {before_zxid:#x}"
    return None


@law("LocalPrimaryOrder")
def local_primary_order(seen: "Witness", node: "Node", batch: Proposal, before_zxid: int) -> str | None:
    """within an epoch batches are executed in the order of their broadcast, none left out"""
    expected = seen.broadcast_before.get(batch.last_zxid, 0)
    before = before_zxid if epoch_of(before_zxid) == epoch_of(batch.last_zxid) else 0
    if before != expected:
        return f"executed {batch.last_zxid:#x} after {before:#x}, it was broadcast after {expected:#x}"
    return None


@law("GlobalPrimaryOrder")
def global_primary_order(seen: "Witness", node: "Node", batch: Proposal, before_zxid: int) -> str | None:
    """batches of a lower epoch are never executed after those of a higher one"""
    if epoch_of(batch.first_zxid) < epoch_of(before_zxid):
        return f"executed {batch.last_zxid:#x} after {before_zxid:#x}"
    return None


@law("PrimaryIntegrity")
def primary_integrity(seen: "Witness", node: "Node", epoch: int, executed: int) -> str | None:
    """a leader broadcasts after it has executed all that anybody executes of lower epochs"""
    lower = seen.lower_executed[epoch]
    if executed < lower:
        return f"broadcasts in epoch {epoch} after {executed} of {lower} batches of lower epochs"
    return None


@law("PrimaryIntegrityLater")
def primary_integrity_later(seen: "Witness", node: "Node", zxid: int) -> str | None:
    """PrimaryIntegrity, seen from the other side: nothing of a lower epoch is first executed after that"""
    for epoch, lower in seen.lower_executed.items():
        if epoch_of(zxid) < epoch and len(seen.order) >= lower:
            return f"executed {zxid:#x} after epoch {epoch} began to broadcast"
    return None


# Chapter 21: ShouldNotBeTriggered and CheckDuringAction, by family.

FAMILIES = {
    "messageIllegal": "sent its (leader|learner) a |a membership that is none",
    "ackInconsistent": "acked|AckNewLeader of",
    "commitInconsistent": "commit of|installed a snapshot",
    "proposalInconsistent": "told to truncate|batch ",
    "stateInconsistent": "in phase|AckEpoch of|SnapshotInstalled of",
}
"""What the incidents of a core that sees the impossible say."""


def family_of(incident: str) -> str:
    for family, pattern in FAMILIES.items():
        if re.search(pattern, incident):
            return family
    return "ShouldNotBeTriggered"


LAWS["stateInconsistent"] = "no server gets a message of discovery or synchronization that its phase excludes"


@law("proposalInconsistent")
def proposal_inconsistent(seen: "Witness", node: "Node", cut_zxid: int) -> str | None:
    """no server cuts below what it has executed, or gets a batch that does not follow its last"""
    return f"cuts above {cut_zxid:#x}" if cut_zxid < node.state.zxid else None


@law("commitInconsistent")
def commit_inconsistent(seen: "Witness", node: "Node") -> str | None:
    """no commit is unknown or out of order, no snapshot beyond what is committed"""
    state = node.state
    if state.count > len(seen.order) or seen.digests[state.count] != state:
        return f"has a state at {state.zxid:#x} that is nobody's"
    return None


@law("ackInconsistent")
def ack_inconsistent(seen: "Witness", node: "Node", zxid: int) -> str | None:
    """no acknowledgement of a batch that nobody broadcast, or out of its epoch"""
    return f"acknowledges {zxid:#x}, which is no batch" if zxid and zxid not in seen.broadcast else None


@law("messageIllegal")
def message_illegal(seen: "Witness", node: "Node", sender: int, epoch: int) -> str | None:
    """no message that nobody expects: batches and commits of an epoch come from its leader alone"""
    leader = seen.leaders.get(epoch)
    return None if leader == sender else f"server {sender} speaks for epoch {epoch}, led by {leader}"


LAWS["ShouldNotBeTriggered"] = "no core reports anything else that cannot be"
LAWS["CheckDuringAction"] = (
    "no core is asked to take back what is committed, none finds its own disk impossible"
)


# Our own: durability and state.


@law("BroadcastOnce")
def broadcast_once(seen: "Witness", node: "Node", first: int, last: int) -> str | None:
    """a leader's zxids grow, and none is used twice"""
    before = seen.last_broadcast.get(epoch_of(first), 0)
    return f"broadcasts {first:#x} after {before:#x}" if first <= before or last in seen.broadcast else None


@law("StateDigest")
def state_digest(seen: "Witness", node: "Node") -> str | None:
    """equal zxids mean equal digests of the state"""
    if node.state == seen.digests[node.state.count] or node.sid in seen.falsified:
        return None
    return f"differs at {node.state.zxid:#x}"


@law("NoFalseAlarm")
def no_false_alarm(seen: "Witness", node: "Node", found: object) -> str | None:
    """no core finds that states differ which do not"""
    return None if seen.falsified else f"finds {found}"


@law("LoggedFirst")
def logged_first(seen: "Witness", node: "Node", batch: Proposal) -> str | None:
    """a server executes only what is durable in its own log"""
    if node.disk.has(batch.last_zxid, batch.payload):
        return None
    return f"executed {batch.last_zxid:#x}, which is not durable here"


def _too_few(seen: "Witness", zxid: int, payload: bytes, quorum: Quorum) -> str | None:
    copies = {
        each.sid
        for each in seen.nodes.values()
        if each.wiped or each.disk.has(zxid, payload) or each.disk.may_get_back(zxid, payload)
    }
    if quorum.contains(copies):
        return None
    return f"{zxid:#x} is durable on servers {sorted(copies)}, too few of {quorum}"


@law("CommitQuorum")
def commit_quorum(seen: "Witness", node: "Node", zxid: int, payload: bytes) -> str | None:
    """what is executed anywhere is durable on a quorum"""
    return _too_few(seen, zxid, payload, seen.membership.quorum)


@law("Durability")
def durability(seen: "Witness", node: "Node", zxid: int, payload: bytes) -> str | None:
    """what was acknowledged to a client is in the logs of a quorum at all times"""
    return _too_few(seen, zxid, payload, seen.membership.quorum)


@law("SyncLinearizable")
def sync_linearizable(seen: "Witness", node: "Node", last_zxid: int, acknowledged: int) -> str | None:
    """a confirmed sync covers everything acknowledged before it was asked for (20.7)"""
    if last_zxid >= acknowledged:
        return None
    return f"sync at {last_zxid:#x} confirmed, {acknowledged:#x} was acknowledged before it"


LAWS["Progress"] = "after the faults stop all servers serve, and a new write reaches all of them in a minute"


# Our own: membership.


@law("InformedCommitted")
def informed_committed(seen: "Witness", node: "Node", batch: Proposal) -> str | None:
    """an observer is given only what is committed"""
    return _too_few(seen, batch.last_zxid, batch.payload, seen.membership.quorum)


@law("JointCommit")
def joint_commit(
    seen: "Witness", node: "Node", zxid: int, payload: bytes, old: Quorum, new: Quorum
) -> str | None:
    """a change of membership is executed only when quorums of both memberships have it"""
    return _too_few(seen, zxid, payload, old) or _too_few(seen, zxid, payload, new)


@law("OneChangeAtATime")
def one_change_at_a_time(seen: "Witness", node: "Node", first: int) -> str | None:
    """a leader proposes a change only when the one before is committed"""
    assert node.peer is not None
    committed = node.peer.committed_zxid
    for zxid, (_, earlier) in seen.broadcast.items():
        if committed < zxid and epoch_of(zxid) == epoch_of(first) and membership_of(earlier):
            return f"proposes a change at {first:#x} while {zxid:#x} is open"
    return None


@law("MembershipAgreement")
def membership_agreement(seen: "Witness", node: "Node") -> str | None:
    """who has executed all it knows committed goes by the membership that this led to"""
    assert node.peer is not None
    if not node.state.membership or node.peer.committed_zxid != node.state.zxid:
        return None
    believed, executed = node.peer.membership.version, node.state.membership.partition("/")[0]
    return None if f"{believed:x}" == executed else f"goes by {believed:#x}, has executed 0x{executed}"


@law("ChangeVersion")
def change_version(seen: "Witness", node: "Node", zxid: int, version: int) -> str | None:
    """a membership's version is the zxid of its change"""
    return None if version == zxid else f"{zxid:#x} brings the membership of {version:#x}"


@law("ElectableLeads")
def electable_leads(seen: "Witness", node: "Node") -> str | None:
    """only a participant that weighs something leads; who loses its right hands over soon (19.5, 19.7)"""
    assert node.peer is not None
    memberships = [node.peer.membership, *node.changes_under_way]
    if any(node.sid in each.participants and dict(each.weights).get(node.sid, 1) for each in memberships):
        seen.leads_without_right.pop(node.sid, None)
        return None
    since_us = seen.leads_without_right.setdefault(node.sid, node.world.now_us)
    late = node.world.now_us - since_us > 2000 * node.config.tick_ms
    if late or node.peer.membership.version == 0:
        return f"leads, and may not by {memberships}"
    return None


@law("HandOverComplete")
def hand_over_complete(
    seen: "Witness", node: "Node", receivers: tuple[Sid, ...], message: HandOver
) -> str | None:
    """who is told to take over has everything, and everything is committed"""
    assert node.peer is not None
    last, successor = node.peer.last_zxid, seen.nodes[message.successor]
    if node.peer.committed_zxid < last:
        return f"hands over before {last:#x} is committed"
    if successor.sid in receivers and not successor.wiped and successor.disk.last_zxid() < last:
        return f"names server {successor.sid}, which does not have {last:#x}"
    return None
