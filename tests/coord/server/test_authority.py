"""Session ownership and liveness on the leader (specification 4.3, 4.4)."""

from coord.protocol.batch import OP_REFUSED, Block
from coord.protocol.bodies import Bodies
from coord.protocol.opcodes import CLOSE_SESSION, SET_DATA
from coord.server.authority import Authority, refuse

PASSWORD = b"p" * 16


def authority() -> Authority:
    made = Authority(100, {7: PASSWORD}.get)
    made.begin([(7, 1000)], 0)
    return made


def block(*ops: int) -> Block:
    count = len(ops)
    return Block(1, [7] * count, list(range(count)), list(ops), [()] * count, Bodies.of([b"body"] * count))


def test_before_anybody_attached_every_server_may_forward() -> None:
    assert authority().refused(1, [7, 8]) == frozenset()


def test_after_an_attachment_only_the_owner_may_forward() -> None:
    table = authority()
    assert table.attach(2, 7, 1000, PASSWORD, 0)
    assert table.refused(1, [7, 7, 8]) == {7}
    assert table.refused(2, [7, 8]) == frozenset()


def test_a_wrong_password_changes_nothing() -> None:
    table = authority()
    assert table.attach(1, 7, 1000, PASSWORD, 0)
    assert not table.attach(2, 7, 1000, b"q" * 16, 0)
    assert not table.attach(2, 7, 1000, b"", 0)
    assert table.refused(1, [7]) == frozenset()


def test_an_unknown_session_cannot_be_attached() -> None:
    assert not authority().attach(1, 8, 1000, PASSWORD, 0)


def test_an_attachment_renews_the_session_with_the_new_timeout() -> None:
    table = authority()
    assert table.attach(1, 7, 5000, PASSWORD, 900)
    assert (
        table.take_expired(
            5800,
        )
        == []
    )
    assert table.take_expired(6000) == [7]


def test_a_new_leadership_forgets_owners() -> None:
    table = authority()
    assert table.attach(2, 7, 1000, PASSWORD, 0)
    table.begin([(7, 1000)], 0)
    assert table.refused(1, [7]) == frozenset()


def test_refused_requests_keep_their_place_and_a_close_passes() -> None:
    changed = refuse(block(SET_DATA, CLOSE_SESSION), frozenset({7}), -118)
    assert list(changed.ops) == [OP_REFUSED, CLOSE_SESSION]
    assert changed.bodies[0] == (-118).to_bytes(4, "big", signed=True)
    assert changed.bodies[1] == b"body"


def test_sessions_with_many_ephemerals_end_in_rounds() -> None:
    """A round's close is one batch, which is executed in one piece (DESIGN 3: a tick's budget)."""
    authority = Authority(100, lambda session_id: None, {1: 1500, 2: 1500, 3: 5}.get)  # type: ignore[arg-type]
    authority.begin([(number, 1000) for number in (1, 2, 3)], 0)
    assert authority.take_expired(1100) == [1, 2]
    assert authority.take_expired(1100) == [3]
