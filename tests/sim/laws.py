"""What must hold, checked after each step: the invariants of specification chapter 21 by their names, and
our own.

    Leadership1           no two servers lead (synchronize or broadcast) in one epoch at one time
    Leadership2           no two servers ever lead in one epoch
    PrefixConsistency     what two servers have executed agrees up to the shorter of them
    Integrity             only what a leader broadcast is executed
    Agreement             one zxid means one batch everywhere
    TotalOrder            every server executes in zxid order
    LocalPrimaryOrder     within an epoch in the order of the broadcast, without gaps
    GlobalPrimaryOrder    batches of a lower epoch never after those of a higher one
    PrimaryIntegrity      a leader broadcasts after it has executed all that was executed of lower epochs
    ShouldNotBeTriggered  no peer saw what cannot happen (proposalInconsistent, commitInconsistent, ...)
    CheckDuringAction     no peer was asked to take back what was committed
    StateDigest           equal counts of executed batches mean equal states
    LoggedFirst           a server executes only what is durable in its own log
    CommitQuorum          what is executed anywhere is durable on a quorum
    InformedCommitted     an observer is given only what is committed
    JointCommit           a change of membership is executed only when quorums of both memberships have it
    OneChangeAtATime      a leader proposes a change only when the one before is committed
    MembershipAgreement   who has executed all it knows committed goes by the membership that led to
    ChangeVersion         a membership's version is the zxid of its change
    ElectableLeads        only a participant that weighs something leads
    HandOverComplete      who is told to take over has everything, and everything is committed
    Durability            what was acknowledged to a client stays durable on a quorum
    SyncLinearizable      a confirmed sync covers everything acknowledged before it was asked for
    Progress              after the faults stop all servers serve, and a new write reaches all of them

While one server has lost its disk, and until it is synchronized, CommitQuorum and Durability count it as if
it still had its copy: that one is gone, and the law is that no other goes.
"""

from typing import TYPE_CHECKING

from coord.zab import Membership, Proposal, Quorum, Sid, epoch_of
from coord.zab.leader import Leader, Phase
from coord.zab.messages import HandOver
from tests.sim.disk import State, membership_of

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World


class LawViolated(Exception):
    """The simulated ensemble broke a law; the message names it."""

    def __init__(self, law: str, text: str) -> None:
        super().__init__(f"{law}: {text}")
        self.law = law


class Laws:
    """An observer of everything, outside of all servers."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.order: list[Proposal] = []
        """Everything executed anywhere, in its one order."""
        self._digests = [State()]
        self._by_zxid: dict[int, Proposal] = {}
        self._broadcast: dict[int, tuple[int, bytes]] = {}  # last zxid -> first zxid and payload
        self._base: dict[
            int, int
        ] = {}  # epoch -> batches of lower epochs executed when its leader first broadcast
        self._leaders: dict[int, int] = {}
        self._removed_leaders: dict[Sid, int] = {}
        """Leaders that a change took the right to lead from, and since when: they hand over."""
        self.acknowledged: dict[int, bytes] = {}
        self.acknowledged_zxid = 0
        self._durable_zxid: dict[int, int] = {}
        self.membership: Membership = world.membership
        """What the changes executed anywhere have led to."""
        self.steps = 0

    def violated(self, law: str, node: "Node | None", text: str) -> None:
        where = "" if node is None else f"server {node.sid}: "
        self._world.trace("VIOLATED", node.sid if node else 0, f"{law}: {text}")
        raise LawViolated(law, f"{where}{text} (at {self._world.now_us / 1e6:.6f} s)")

    # Leadership.

    def on_step(self, node: "Node") -> None:
        self.steps += 1
        if node.peer is None:
            return
        if node.state.membership and node.peer.committed_zxid == node.state.zxid:
            believed, executed = node.peer.membership.version, node.state.membership.partition("/")[0]
            if f"{believed:x}" != executed:
                self.violated(
                    "MembershipAgreement", node, f"goes by {believed:#x}, has executed 0x{executed}"
                )
        role = node.peer._role
        if not isinstance(role, Leader) or role.phase < Phase.SYNCING:
            return
        first = self._leaders.setdefault(role.epoch, node.sid)
        if first == node.sid:
            self._check_electable(node)
            return
        other = self._world.nodes[first].peer
        now = other is not None and isinstance(other._role, Leader) and other._role.epoch == role.epoch
        law = "Leadership1" if now else "Leadership2"
        self.violated(law, node, f"leads epoch {role.epoch}, which was led by server {first}")

    def _check_electable(self, node: "Node") -> None:
        """By the memberships that it goes by, not by what the core makes of them."""
        assert node.peer is not None
        memberships = [node.peer.membership, *node.changes_under_way]
        if not any(
            node.sid in each.participants and dict(each.weights).get(node.sid, 1) for each in memberships
        ):
            last = self._removed_leaders.setdefault(node.sid, self._world.now_us)
            grace_us = 2000 * node.config.tick_ms
            if node.peer.membership.version == 0 or self._world.now_us - last > grace_us:
                self.violated("ElectableLeads", node, f"leads, and may not by {memberships}")
        else:
            self._removed_leaders.pop(node.sid, None)

    def on_sent(self, node: "Node", receivers: tuple[Sid, ...], message: HandOver) -> None:
        """The leader has handed out this message in this step."""
        assert node.peer is not None
        last, successor = node.peer.last_zxid, self._world.nodes[message.successor]
        if node.peer.committed_zxid < last:
            self.violated("HandOverComplete", node, f"hands over before {last:#x} is committed")
        if successor.sid in receivers and not successor.wiped and successor.disk.last_zxid() < last:
            self.violated("HandOverComplete", node, f"names {successor.sid}, which does not have {last:#x}")

    def on_proposed(self, node: "Node", first: int, last: int, payload: bytes) -> None:
        epoch = epoch_of(first)
        if epoch not in self._base:
            lower = sum(1 for batch in self.order if epoch_of(batch.last_zxid) < epoch)
            self._base[epoch] = lower
            if node.state.count < lower:
                self.violated(
                    "PrimaryIntegrity", node, f"broadcasts in epoch {epoch} after {node.state.count} batches"
                )
        if membership_of(payload) is not None:
            assert node.peer is not None
            committed = node.peer.committed_zxid
            for zxid, (_, earlier) in self._broadcast.items():
                if committed < zxid and epoch_of(zxid) == epoch and membership_of(earlier):
                    self.violated(
                        "OneChangeAtATime", node, f"proposes a change at {first:#x} while {zxid:#x} is open"
                    )
        if last in self._broadcast:
            self.violated("Integrity", node, f"zxid {last:#x} was broadcast twice")
        self._broadcast[last] = (first, payload)

    # Execution.

    def on_executed(self, node: "Node", batch: Proposal, replay: bool = False) -> None:
        """`node` has executed `batch`; its state is after it. A replay answers no client."""
        position = node.state.count - 1
        zxid = batch.last_zxid
        if not node.disk.has(zxid, batch.payload):
            self.violated("LoggedFirst", node, f"executed {zxid:#x}, which is not durable here")
        if self._broadcast.get(zxid) != (batch.first_zxid, batch.payload):
            self.violated("Integrity", node, f"executed {zxid:#x}, which was not broadcast so")
        known = self._by_zxid.setdefault(zxid, batch)
        if known != batch:
            self.violated("Agreement", node, f"executed another batch as {zxid:#x}")
        if position < len(self.order):
            if self.order[position] != batch:
                expected = self.order[position].last_zxid
                self.violated(
                    "PrefixConsistency", node, f"executed {zxid:#x} where others have {expected:#x}"
                )
        else:
            self._extend(node, batch)
        if node.state != self._digests[position + 1]:
            self.violated("StateDigest", node, f"differs after {position + 1} batches")
        if not replay:
            self._acknowledge(node, batch)

    def _extend(self, node: "Node", batch: Proposal) -> None:
        zxid = batch.last_zxid
        if self.order:
            before = self.order[-1].last_zxid
            if epoch_of(batch.first_zxid) < epoch_of(before):
                self.violated("GlobalPrimaryOrder", node, f"executed {zxid:#x} after {before:#x}")
            if batch.first_zxid <= before:
                self.violated("TotalOrder", node, f"executed {zxid:#x} after {before:#x}")
            expected = before + 1 if epoch_of(before) == epoch_of(zxid) else epoch_of(zxid) << 32 | 1
            if batch.first_zxid != expected:
                self.violated("LocalPrimaryOrder", node, f"executed {batch.first_zxid:#x}, not {expected:#x}")
        for epoch, base in self._base.items():
            if epoch_of(zxid) < epoch and len(self.order) >= base:
                self.violated(
                    "PrimaryIntegrity", node, f"executed {zxid:#x} after epoch {epoch} began to broadcast"
                )
        self.order.append(batch)
        self._digests.append(self._digests[-1].execute(batch))
        old, changed = self.membership, membership_of(batch.payload)
        if changed is None:
            self._check_copies("CommitQuorum", node, zxid, batch.payload)
            return
        if changed.version != zxid:
            self.violated("ChangeVersion", node, f"{zxid:#x} brings the membership {changed}")
        self.membership = changed
        self._check_copies("JointCommit", node, zxid, batch.payload, (old.quorum, changed.quorum))

    def _acknowledge(self, node: "Node", batch: Proposal) -> None:
        """The owner of the batch's requests answers its clients as soon as it has executed them."""
        if batch.last_zxid in self.acknowledged:
            return
        owner = batch.payload[0] % len(self._world.nodes) + 1
        if owner == node.sid:
            self.acknowledged[batch.last_zxid] = batch.payload
            self.acknowledged_zxid = max(self.acknowledged_zxid, batch.last_zxid)
            self._check_copies("Durability", node, batch.last_zxid, batch.payload)

    def on_installed(self, node: "Node") -> None:
        state = node.state
        if state.count >= len(self._digests) or self._digests[state.count] != state:
            self.violated(
                "PrefixConsistency", node, f"installed a snapshot at {state.zxid:#x} that is nobody's"
            )
        self.on_durable_change(node)

    def on_start(self, node: "Node", replayed: list[Proposal]) -> None:
        """Start-up executes from the checkpoint up to what the log says was committed; perhaps as the
        first.
        """
        state = node.disk.checkpoint
        if state.count >= len(self._digests) or self._digests[state.count] != state:
            self.violated(
                "PrefixConsistency", node, f"started from a checkpoint at {state.zxid:#x} of its own"
            )
        node.state = state
        for batch in replayed:
            node.state = node.state.execute(batch)
            self.on_executed(node, batch, replay=True)

    # Durability.

    def on_append(self, node: "Node", batch: Proposal) -> None:
        """What an observer is given, in runs where it stays one."""
        if node.sid in self._world.membership.observers and not self._world.changes:
            self._check_copies("InformedCommitted", node, batch.last_zxid, batch.payload)

    def on_durable_change(self, node: "Node") -> None:
        """If the end of a disk's history went back, whatever was acknowledged above it is counted again."""
        now = node.disk.last_zxid()
        before = self._durable_zxid.get(node.sid, 0)
        self._durable_zxid[node.sid] = now
        if now < before:
            for zxid, payload in self.acknowledged.items():
                if now < zxid <= before:
                    self._check_copies("Durability", node, zxid, payload)

    def _check_copies(
        self, law: str, node: "Node", zxid: int, payload: bytes, quorums: tuple[Quorum, ...] = ()
    ) -> None:
        """By the membership of today, whose quorum has everything of the ones before; or by `quorums`."""
        nodes = self._world.nodes.values()
        copies = {each.sid for each in nodes if each.wiped or each.disk.has(zxid, payload)}
        for quorum in quorums or (self.membership.quorum,):
            if not quorum.contains(copies):
                self.violated(
                    law, node, f"{zxid:#x} is durable on servers {sorted(copies)}, too few of {quorum}"
                )

    def check_all_durable(self) -> None:
        """At the end: everything acknowledged is executed everywhere."""
        for node in self._world.nodes.values():
            if node.state != self._digests[-1]:
                self.violated("Progress", node, f"executed {node.state.count} of {len(self.order)} batches")
        lost = self.acknowledged.keys() - {batch.last_zxid for batch in self.order}
        if lost:
            self.violated("Durability", None, f"acknowledged and never executed: {sorted(lost)}")
