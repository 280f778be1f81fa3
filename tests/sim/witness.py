"""Who sees all that happens in a simulated ensemble, from outside of all servers, and asks the laws."""

from typing import TYPE_CHECKING, NoReturn

from coord.zab import Membership, Proposal, epoch_of
from coord.zab.leader import Leader, Phase
from coord.zab.messages import Ack, Commit, HandOver, Message, Propose, Sid
from tests.sim import laws
from tests.sim.disk import State, membership_of

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World


class LawViolated(Exception):
    """The simulated ensemble broke a law; the message names it."""

    def __init__(self, law: str, text: str) -> None:
        super().__init__(f"{law}: {text}")
        self.law = law


class Witness:
    """What has happened in one world, in the terms of the laws."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.nodes = world.nodes
        self.order: list[Proposal] = []
        """Everything executed anywhere, in its one order."""
        self.position_of: dict[int, int] = {}
        """Last zxid -> where in that order."""
        self.digests = [State()]
        """The state after so many batches."""
        self.broadcast: dict[int, tuple[int, bytes]] = {}
        """Last zxid -> first zxid and payload."""
        self.broadcast_before: dict[int, int] = {}
        """Last zxid -> the one broadcast before it in its epoch, or 0."""
        self.last_broadcast: dict[int, int] = {}
        """Epoch -> the last zxid broadcast in it."""
        self.lower_executed: dict[int, int] = {}
        """Epoch -> batches of lower epochs executed when its leader first broadcast."""
        self.leaders: dict[int, int] = {}
        """Epoch -> who first led it."""
        self.leads_without_right: dict[Sid, int] = {}
        """Leaders that a change took the right to lead from, and since when."""
        self.acknowledged: dict[int, bytes] = {}
        self.acknowledged_zxid = 0
        self._durable_zxid: dict[int, int] = {}
        self.falsified: set[Sid] = set()
        """Whose state a test has made another on purpose."""
        self.membership: Membership = world.membership
        """What the changes executed anywhere have led to."""

    def violated(self, law: str, node: "Node | None", text: str) -> NoReturn:
        where = "" if node is None else f"server {node.sid}: "
        self._world.trace("VIOLATED", node.sid if node else 0, f"{law}: {text}")
        raise LawViolated(law, f"{where}{text} (at {self._world.now_us / 1e6:.6f} s)")

    # Steps and messages.

    def on_step(self, node: "Node") -> None:
        if node.peer is None:
            return
        laws.membership_agreement(self, node)
        role = node.peer._role
        if isinstance(role, Leader) and role.phase >= Phase.SYNCING:
            self.leaders.setdefault(role.epoch, node.sid)
            laws.leadership1(self, node, role.epoch)
            laws.leadership2(self, node, role.epoch)
            laws.electable_leads(self, node)

    def on_incident(self, node: "Node", text: str) -> None:
        self.violated(laws.family_of(text), node, text)

    def on_sent(self, node: "Node", receivers: tuple[Sid, ...], message: Message) -> None:
        """`node` has handed out this message in this step."""
        if isinstance(message, HandOver):
            laws.hand_over_complete(self, node, receivers, message)
        elif isinstance(message, Ack):
            laws.ack_inconsistent(self, node, message.zxid)

    def on_received(self, node: "Node", sender: int, message: object) -> None:
        if isinstance(message, (Propose, Commit)):
            laws.message_illegal(self, node, sender, message.epoch)

    def on_proposed(self, node: "Node", first: int, last: int, payload: bytes) -> None:
        epoch = epoch_of(first)
        if epoch not in self.lower_executed:
            lower = sum(1 for batch in self.order if epoch_of(batch.last_zxid) < epoch)
            self.lower_executed[epoch] = lower
            laws.primary_integrity(self, node, epoch, node.state.count)
        if membership_of(payload) is not None:
            laws.one_change_at_a_time(self, node, first)
        laws.broadcast_once(self, node, first, last)
        self.broadcast[last] = (first, payload)
        self.broadcast_before[last] = self.last_broadcast.get(epoch, 0)
        self.last_broadcast[epoch] = last

    # Execution.

    def on_executed(self, node: "Node", batch: Proposal, replay: bool = False) -> None:
        """`node` has executed `batch`; its state is after it. A replay answers no client."""
        position = node.state.count - 1
        before_zxid = self.digests[position].zxid
        laws.logged_first(self, node, batch)
        laws.integrity(self, node, batch)
        laws.prefix_consistency(self, node, batch, position)
        laws.global_primary_order(self, node, batch, before_zxid)
        laws.total_order(self, node, batch, before_zxid)
        laws.local_primary_order(self, node, batch, before_zxid)
        if position == len(self.order):
            self._extend(node, batch)
        laws.state_digest(self, node)
        laws.agreement(self, node)
        if not replay:
            self._acknowledge(node, batch)

    def _extend(self, node: "Node", batch: Proposal) -> None:
        """It is the first to execute this batch."""
        zxid = batch.last_zxid
        laws.primary_integrity_later(self, node, zxid)
        self.position_of[zxid] = len(self.order)
        self.order.append(batch)
        self.digests.append(self.digests[-1].execute(batch))
        old, changed = self.membership, membership_of(batch.payload)
        if changed is None:
            laws.commit_quorum(self, node, zxid, batch.payload)
            return
        laws.change_version(self, node, zxid, changed.version)
        self.membership = changed
        laws.joint_commit(self, node, zxid, batch.payload, old.quorum, changed.quorum)

    def _acknowledge(self, node: "Node", batch: Proposal) -> None:
        """The owner of the batch's requests answers its clients as soon as it has executed them."""
        if batch.last_zxid in self.acknowledged:
            return
        owner = batch.payload[0] % len(self.nodes) + 1
        if owner == node.sid:
            self.acknowledged[batch.last_zxid] = batch.payload
            self.acknowledged_zxid = max(self.acknowledged_zxid, batch.last_zxid)
            laws.durability(self, node, batch.last_zxid, batch.payload)

    def on_difference(self, node: "Node", found: object) -> None:
        laws.no_false_alarm(self, node, found)

    def on_installed(self, node: "Node") -> None:
        self.falsified.discard(node.sid)
        laws.commit_inconsistent(self, node)
        self.on_durable_change(node)

    def on_start(self, node: "Node", replayed: list[Proposal]) -> None:
        """Start-up executes from the checkpoint up to what the log says was committed; perhaps as the
        first.
        """
        node.state = node.disk.checkpoint
        laws.commit_inconsistent(self, node)
        for batch in replayed:
            node.state = node.state.execute(batch)
            self.on_executed(node, batch, replay=True)

    def on_confirmed(self, node: "Node", last_zxid: int, acknowledged: int) -> None:
        """A sync asked for when `acknowledged` was the last write acknowledged anywhere is answered."""
        laws.sync_linearizable(self, node, last_zxid, acknowledged)

    # Durability.

    def on_cut(self, node: "Node", zxid: int) -> None:
        laws.proposal_inconsistent(self, node, zxid)

    def on_append(self, node: "Node", batch: Proposal) -> None:
        """What an observer is given, in runs where it stays one."""
        if node.sid in self._world.membership.observers and not self._world.changes:
            laws.informed_committed(self, node, batch)

    def on_durable_change(self, node: "Node") -> None:
        """If the end of a disk's history went back, whatever was acknowledged above it is counted again."""
        now = node.disk.last_zxid()
        before = self._durable_zxid.get(node.sid, 0)
        self._durable_zxid[node.sid] = now
        if now < before:
            for zxid, payload in self.acknowledged.items():
                if now < zxid <= before:
                    laws.durability(self, node, zxid, payload)

    def check_all_durable(self) -> None:
        """At the end: everything acknowledged is executed everywhere, and a quorum has it still."""
        for node in self.nodes.values():
            if node.state != self.digests[-1]:
                self.violated("Progress", node, f"executed {node.state.count} of {len(self.order)} batches")
        lost = self.acknowledged.keys() - self.position_of.keys()
        if lost:
            self.violated("Durability", None, f"acknowledged and never executed: {sorted(lost)}")
