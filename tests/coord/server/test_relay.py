"""The order of requests between followers and their leader (DESIGN 4, session order and session move)."""

from collections.abc import Callable

import pytest

from coord.message import MessageError
from coord.protocol.batch import BLOCK_BYTES_MAX, OP_REFUSED, decode_batch, decode_block, encode_block
from coord.protocol.opcodes import CLOSE_SESSION, DELETE_CONTAINER, SESSION_MOVED, SET_DATA
from coord.protocol.records import Identity
from coord.server.authority import Authority
from coord.server.intake import Intake
from coord.server.orders import SECOND_BYTES_MIN, SYSTEM_ERROR, ProposedBatch
from coord.server.relay import (
    BLOCK_BODY_BYTES_MAX,
    BLOCK_REQUESTS_MAX,
    FORWARDED_BYTES_MAX,
    Relay,
    ServerMessage,
)
from coord.server.wire import Attach, Attached, Forward, SyncAsk, Synced, Touch, encode_session_ids
from coord.zab import NotLeadingError

PASSWORD = b"p" * 16

EPOCH = 3


class Clock:
    def monotonic_ms(self) -> int:
        return 0

    def wall_ms(self) -> int:
        return 1_700_000_000_000


class Broadcast:
    """A Zab peer that leads and accepts everything unless told not to."""

    def __init__(self) -> None:
        self.can_propose = True
        self.next_zxid = (EPOCH << 32) + 1
        self.batches: list[list[tuple[int, int]]] = []
        self.rounds = 0

    def propose(self, payload: bytes, count: int) -> int:
        stamp, blocks = decode_batch(payload)
        assert (stamp.first_zxid, stamp.count) == (self.next_zxid, count)
        requests = [(xid, op) for block in blocks for xid, op in zip(block.xids, block.ops, strict=True)]
        self.batches.append(requests)
        first = self.next_zxid
        self.next_zxid += count
        return first

    def confirm_leadership(self) -> int:
        self.rounds += 1
        return self.rounds


class Server:
    """A relay with everything around it, by hand."""

    def __init__(self, sid: int) -> None:
        self.broadcast = Broadcast()
        self.sent: list[tuple[int, ServerMessage, bytes]] = []
        self.barriers: list[tuple[int, Callable[[], None]]] = []
        self.executed = 0
        self.authority = Authority(100, {7: PASSWORD}.get)
        self.proposed: list[int] = []
        self.refusals: list[int] = []
        self.relay = Relay(
            sid=sid,
            clock=Clock(),
            authority=self.authority,
            broadcast=self.broadcast,
            send=lambda to, message, body: self.sent.append((to, message, body)),
            when_executed=self.when_executed,
            on_proposed=self.on_proposed,
        )

    def on_proposed(self, last_zxid: int, batch: ProposedBatch, size: int) -> None:
        self.proposed.append(last_zxid)
        self.refusals += [
            int.from_bytes(body, "big", signed=True)
            for block in batch.blocks
            for op, body in zip(block.ops, block.bodies, strict=True)
            if op == OP_REFUSED
        ]

    def when_executed(self, zxid: int, callback: Callable[[], None]) -> None:
        if zxid <= self.executed:
            callback()
        else:
            self.barriers.append((zxid, callback))

    def execute(self, zxid: int) -> None:
        self.executed = zxid
        due = [callback for at, callback in self.barriers if at <= zxid]
        self.barriers = [(at, callback) for at, callback in self.barriers if at > zxid]
        for callback in due:
            callback()

    def take_sent(self) -> list[tuple[int, ServerMessage, bytes]]:
        sent, self.sent = self.sent, []
        return sent

    def receive(self, sid: int, message: ServerMessage, body: bytes = b"") -> None:
        self.relay.receive(sid, message, memoryview(body))


def leader() -> Server:
    server = Server(1)
    server.relay.lead(EPOCH, EPOCH << 32)
    server.executed = EPOCH << 32
    return server


def follower() -> Server:
    server = Server(2)
    server.relay.follow(1, EPOCH)
    return server


def writes(session_id: int, *xids: int, size: int = 4) -> Intake:
    intake = Intake()
    count = len(xids)
    intake.extend(session_id, (), list(xids), [SET_DATA] * count, [bytes(size)] * count)
    return intake


def forwarded(source: Server) -> tuple[ServerMessage, bytes]:
    _, message, body = source.take_sent()[0]
    assert isinstance(message, Forward)
    return message, body


def test_all_blocks_of_a_round_become_one_batch_in_their_order() -> None:
    lead, follow = leader(), follower()
    follow.relay.submit(writes(8, 21, 22))
    lead.relay.submit(writes(9, 11))
    lead.receive(2, *forwarded(follow))
    lead.relay.carry_on()
    assert lead.broadcast.batches == [[(11, SET_DATA), (21, SET_DATA), (22, SET_DATA)]]
    assert lead.proposed == [(EPOCH << 32) + 3]


def test_what_cannot_be_proposed_yet_waits_in_order() -> None:
    lead = leader()
    lead.broadcast.can_propose = False
    lead.relay.submit(writes(9, 1))
    lead.relay.carry_on()
    lead.relay.submit(writes(9, 2))
    lead.broadcast.can_propose = True
    lead.relay.carry_on()
    assert lead.broadcast.batches == [[(1, SET_DATA), (2, SET_DATA)]]


def test_a_reattachment_is_answered_after_what_was_proposed_before_it_is_executed() -> None:
    lead = leader()
    lead.relay.submit(writes(7, 1))
    lead.receive(2, Attach(EPOCH, 5, 7, 1000, PASSWORD))
    lead.relay.carry_on()
    assert lead.take_sent() == []
    lead.execute((EPOCH << 32) + 1)
    assert lead.take_sent() == [(2, Attached(EPOCH, 5, True, (EPOCH << 32) + 1), b"")]


def test_a_write_through_the_older_server_is_refused_after_the_session_moved() -> None:
    lead, old = leader(), follower()
    lead.receive(3, Attach(EPOCH, 1, 7, 1000, PASSWORD))
    lead.relay.carry_on()
    old.relay.submit(writes(7, 21, 22))
    lead.receive(2, *forwarded(old))
    lead.relay.carry_on()
    assert lead.broadcast.batches == [[(21, OP_REFUSED), (22, OP_REFUSED)]]


def test_a_follower_answers_a_client_only_when_it_has_executed_what_the_leader_named() -> None:
    follow = follower()
    answers: list[bool] = []
    follow.relay.attach(7, 1000, PASSWORD, answers.append)
    ((_, asked, _),) = follow.take_sent()
    assert isinstance(asked, Attach)
    follow.receive(1, Attached(EPOCH, asked.number, True, 50))
    assert answers == []
    follow.execute(50)
    assert answers == [True]


def test_an_attachment_waits_behind_the_same_servers_forwards() -> None:
    follow = follower()
    follow.relay.submit(writes(7, 1))
    follow.relay.attach(7, 1000, PASSWORD, lambda ok: None)
    assert [type(message) for _, message, _ in follow.take_sent()] == [Forward, Attach]


def test_the_syncs_of_a_tick_share_one_confirmation() -> None:
    lead, follow = leader(), follower()
    done: list[str] = []
    lead.relay.submit(writes(9, 1))
    lead.relay.sync(lambda: done.append("own"))
    for name in ("a", "b"):
        follow.relay.sync(lambda name=name: done.append(name))  # type: ignore[misc]
    follow.relay.carry_on()
    ((_, asked, _),) = follow.take_sent()
    lead.receive(2, asked)
    lead.relay.carry_on()
    assert lead.broadcast.rounds == 2
    lead.relay.orders.on_confirmed(2)
    ((_, answer, _),) = lead.take_sent()
    assert answer == Synced(EPOCH, 1, (EPOCH << 32) + 1)
    follow.receive(1, answer)
    assert done == []
    follow.execute((EPOCH << 32) + 1)
    assert done == ["a", "b"]
    lead.execute((EPOCH << 32) + 1)
    assert done == ["a", "b", "own"]


def test_an_unconfirmed_leadership_answers_no_sync() -> None:
    lead = leader()
    lead.receive(2, SyncAsk(EPOCH, 4))
    lead.relay.carry_on()
    lead.relay.orders.on_confirmed(0)
    assert lead.take_sent() == []


def test_a_nearly_full_disk_refuses_writes_but_not_the_end_of_a_session() -> None:
    lead = leader()
    lead.relay.orders.refuses_writes = True
    intake = writes(7, 1)
    intake.extend(7, (), [2], [CLOSE_SESSION], [b""])
    lead.relay.submit(intake)
    lead.relay.carry_on()
    assert lead.broadcast.batches == [[(1, OP_REFUSED), (2, CLOSE_SESSION)]]


def test_a_nearly_full_disk_refuses_the_writes_beside_a_moved_session_too() -> None:
    lead = leader()
    lead.authority.attach(3, 7, 1000, PASSWORD, 0)
    lead.relay.orders.refuses_writes = True
    intake = writes(7, 1)
    intake.extend(8, (), [2], [SET_DATA], [b"body"])
    lead.relay.submit(intake)
    lead.relay.carry_on()
    assert lead.broadcast.batches == [[(1, OP_REFUSED), (2, OP_REFUSED)]]
    assert lead.refusals == [SESSION_MOVED, SYSTEM_ERROR]


def test_a_full_disk_halts_even_the_refusals_until_there_is_space() -> None:
    """Each refusal is logged in its place: without a halt, refusing would fill the rest of the disk."""
    lead = leader()
    lead.relay.orders.refuses_writes = lead.relay.orders.is_halted = True
    lead.relay.submit(writes(7, 1))
    lead.relay.carry_on()
    assert lead.broadcast.batches == []
    lead.relay.orders.refuses_writes = lead.relay.orders.is_halted = False
    lead.relay.carry_on()
    assert lead.broadcast.batches == [[(1, SET_DATA)]]


def test_messages_of_another_epoch_are_ignored() -> None:
    lead = leader()
    lead.receive(2, Attach(EPOCH - 1, 5, 7, 1000, PASSWORD))
    lead.receive(2, SyncAsk(EPOCH + 1, 5))
    lead.relay.carry_on()
    lead.execute(1 << 60)
    assert lead.take_sent() == []
    assert lead.broadcast.rounds == 0


def test_going_out_of_service_forgets_what_is_under_way() -> None:
    lead = leader()
    lead.broadcast.can_propose = False
    lead.relay.submit(writes(9, 1))
    lead.receive(2, Attach(EPOCH, 5, 7, 1000, PASSWORD))
    lead.relay.rest()
    lead.relay.lead(EPOCH + 1, (EPOCH + 1) << 32)
    lead.broadcast.can_propose = True
    lead.relay.carry_on()
    assert lead.broadcast.batches == []
    assert not lead.relay.is_busy


def test_writes_on_their_way_are_bounded_by_not_reading() -> None:
    follow = follower()
    while not follow.relay.is_busy:
        follow.relay.submit(writes(8, 1, size=1 << 20))
    assert len(follow.sent) == FORWARDED_BYTES_MAX // (1 << 20) + 1
    follow.relay.on_own_block_executed()
    assert not follow.relay.is_busy


def test_a_large_intake_is_cut_into_blocks_that_keep_the_order() -> None:
    follow = follower()
    intake = writes(8, *range(BLOCK_REQUESTS_MAX + 10))
    intake.extend(8, (), [-1, -2, -3], [SET_DATA] * 3, [bytes(BLOCK_BODY_BYTES_MAX - 8)] * 3)
    follow.relay.submit(intake)
    blocks = [decode_block(body)[0] for _, _, body in follow.take_sent()]
    assert [xid for block in blocks for xid in block.xids] == intake.xids
    assert max(len(block.xids) for block in blocks) <= BLOCK_REQUESTS_MAX
    assert max(sum(map(len, block.bodies)) for block in blocks) <= BLOCK_BODY_BYTES_MAX


def test_the_leader_closes_expired_sessions_in_a_block_of_nobodys() -> None:
    lead = leader()
    lead.relay.orders.close_sessions([7, 8])
    lead.relay.carry_on()
    assert lead.broadcast.batches == [[(0, CLOSE_SESSION), (0, CLOSE_SESSION)]]


def test_the_leader_asks_for_the_deletion_of_containers_in_a_block_of_nobodys() -> None:
    lead = leader()
    lead.relay.orders.delete_containers([b"/a", b"/b"], 0)
    lead.relay.carry_on()
    assert lead.broadcast.batches == [[(0, DELETE_CONTAINER), (0, DELETE_CONTAINER)]]


def test_touches_reach_the_leaders_tracker() -> None:
    lead = leader()
    lead.authority.begin([(7, 1000)], -900)
    lead.receive(2, Touch(EPOCH), encode_session_ids([7, 99]))
    assert lead.authority.take_expired(200) == []
    assert lead.authority.take_expired(1200) == [7]


@pytest.mark.parametrize("body", [b"", b"garbage that is no block"])
def test_a_block_that_does_not_decode_costs_its_sender_the_link(body: bytes) -> None:
    with pytest.raises(MessageError):
        leader().receive(2, Forward(EPOCH), body)


def test_a_block_in_another_servers_name_is_refused() -> None:
    source = Server(3)
    source.relay.follow(1, EPOCH)
    source.relay.submit(writes(8, 1))
    with pytest.raises(MessageError, match="server 3"):
        leader().receive(2, *forwarded(source))


def test_while_a_batch_is_under_way_small_blocks_gather_into_one() -> None:
    lead = leader()
    for xid in range(5):
        lead.relay.submit(writes(9, xid))
        lead.relay.carry_on()
    assert lead.broadcast.batches == [[(0, SET_DATA)]]
    lead.relay.orders.on_executed(EPOCH << 32)
    lead.relay.carry_on()
    assert lead.broadcast.batches == [[(0, SET_DATA)]]
    lead.relay.orders.on_executed((EPOCH << 32) + 1)
    lead.relay.carry_on()
    assert lead.broadcast.batches[1:] == [[(xid, SET_DATA) for xid in range(1, 5)]]


def test_a_large_block_follows_the_batch_under_way_and_a_third_waits() -> None:
    lead = leader()
    for xid in range(4):
        lead.relay.submit(writes(9, xid, size=SECOND_BYTES_MIN))
        lead.relay.carry_on()
    assert lead.broadcast.batches == [[(0, SET_DATA)], [(1, SET_DATA)]]
    lead.relay.orders.on_executed((EPOCH << 32) + 1)
    lead.relay.carry_on()
    assert lead.broadcast.batches[2:] == [[(2, SET_DATA), (3, SET_DATA)]]


def test_a_leadership_that_has_just_ended_proposes_nothing_and_fails_nobody() -> None:
    lead = leader()

    def refuse() -> int:
        raise NotLeadingError("the leadership has ended")

    lead.broadcast.confirm_leadership = refuse  # type: ignore[method-assign]
    lead.receive(2, SyncAsk(EPOCH, 4))
    lead.relay.submit(writes(9, 1))
    lead.relay.carry_on()
    assert lead.broadcast.batches == []


def test_identities_count_for_the_bounds_of_a_block() -> None:
    """Each connection may have many, and each set stands in the block's auth table: a crowd of them must not
    make a block that nobody takes, or more sets than a block can number.
    """
    intake = Intake()
    sets = [
        tuple(Identity("digest", f"{number}-{position}-{'é' * 400}") for position in range(10))
        for number in range(1500)
    ]
    for number, identities in enumerate(sets):
        intake.extend(7, identities, [number], [SET_DATA], [b"x"])
    assert intake.body_bytes > BLOCK_BODY_BYTES_MAX
    parts = intake.cut(BLOCK_BODY_BYTES_MAX, BLOCK_REQUESTS_MAX)
    found = []
    for part in parts:
        data = encode_block(1, part.sessions, part.xids, part.ops, part.auth, part.auth_table, part.bodies)
        assert len(data) <= BLOCK_BODY_BYTES_MAX + 100_000 < BLOCK_BYTES_MAX
        block, _ = decode_block(data)
        found += list(zip(block.xids, block.auth, strict=True))
    assert found == list(enumerate(sets))
