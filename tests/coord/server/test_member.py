"""The driver of a Zab peer, with a replica, a disk and a network that only note what they are told."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

from coord.protocol.batch import Block, Stamp, decode_batch, encode_block
from coord.protocol.bodies import Bodies
from coord.server.authority import Authority
from coord.server.intake import Intake
from coord.server.member import Member
from coord.server.meters import Meters
from coord.server.state import State
from coord.server.state_digests import StateDigests
from coord.server.statistics import ServerStatistics
from coord.tree import DataTree
from coord.zab import Config, Epochs, Membership, Peer, Proposal, Recovered, Sid, Status
from tests.coord.server.stage import Clock

SET_DATA = 5


class Replica:
    def __init__(self) -> None:
        self.executed: list[list[tuple[int, int]]] = []
        self.feature_level = 1
        self.statistics = ServerStatistics()
        self.digests = StateDigests(State(DataTree.fresh()))

    def execute(self, stamp: Stamp, blocks: Sequence[Block]) -> None:
        self.executed.append([(block.owner, xid) for block in blocks for xid in block.xids])

    def execute_payload(self, payload: bytes) -> Stamp:
        stamp, blocks = decode_batch(payload)
        self.execute(stamp, blocks)
        return stamp

    def when_executed(self, zxid: int, callback: Callable[[], None]) -> None:
        callback()

    def clear_barriers(self) -> None:
        pass


class Leader:
    """A member that is an ensemble of one, and so leads; blocks of other servers are handed to it as if they
    had come over a link.
    """

    def __init__(self) -> None:
        self.replica = Replica()
        self.waiting: list[int] = []
        self.appended: list[Proposal] = []
        self.clients = Intake()
        peer = Peer(Config(Sid(1), Membership.of([1])), Recovered(), 0)
        self.member = Member(
            sid=1,
            clock=Clock(),
            peer=peer,
            replica=self.replica,  # type: ignore[arg-type]
            authority=Authority(100, {}.get),
            sessions=list,
            disk=self,  # type: ignore[arg-type]
            network=SimpleNamespace(flush=lambda: None),  # type: ignore[arg-type]
            standing=self,
            hand_in=self.hand_in,
            meters=Meters(),
        )
        self.settle()

    def settle(self) -> None:
        self.member.pump()

    def log(self) -> None:
        """The disk has written what it was given."""
        last = self.appended[-1].last_zxid
        self.member.peer.logged(last)
        self.settle()

    def block_of(self, owner: int, xid: int) -> None:
        block = Block(owner, [owner], [xid], [SET_DATA], [()], Bodies.of([b"body"]))
        data = encode_block(owner, [owner], [xid], [SET_DATA], [0], [()], Bodies.of([b"body"]))
        self.member.relay.orders.block(data, block)

    def hand_in(self) -> None:
        if len(self.clients) and not self.member.relay.should_gather(self.clients.body_bytes):
            taken, self.clients = self.clients, Intake()
            self.member.relay.submit(taken)

    # -- Disk and Standing

    def append(self, proposal: Proposal, committed_zxid: int) -> None:
        self.appended.append(proposal)

    def persist_epochs(self, epochs: Epochs) -> None:
        self.member.peer.epochs_persisted(epochs.accepted, epochs.current, 0)

    def on_status(self, status: Status) -> None:
        pass

    def on_serving(self, status: Status) -> None:
        pass

    def on_resting(self) -> None:
        pass

    def on_members_changed(self) -> None:
        pass


def test_a_leaders_own_clients_are_in_the_next_batch_like_those_of_others() -> None:
    """They gather while a batch is under way, as the others' blocks do; when it has been executed the others'
    must not take all the room there is.
    """
    leader = Leader()
    assert leader.member.relay.is_leading
    for round_number in range(5):
        leader.block_of(2, xid=round_number)
        leader.clients.extend(1, (), [round_number], [SET_DATA], [b"body"])
        leader.settle()
        leader.block_of(2, xid=100 + round_number)
        leader.clients.extend(1, (), [100 + round_number], [SET_DATA], [b"body"])
        leader.settle()
        leader.log()  # executes the first batch, and proposes what has gathered
        leader.log()
        assert leader.replica.executed == [
            [(2, round_number), (1, round_number)],
            [(2, 100 + round_number), (1, 100 + round_number)],
        ]
        leader.replica.executed.clear()
