"""Sessions that are taken up again while something else happens to them (specification 4.4)."""

import struct
from collections.abc import Callable

from coord.server.connection import CLOSED, SERVING, ClientConnection
from coord.server.handshake import Handshake
from coord.server.tracker import SessionIds
from tests.coord.server.wire_client import connect_request

SESSION = 7
PASSWORD = b"p" * 16


class Conn:
    """As much of a connection as a handshake touches."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = ""

    def send(self, data: bytes) -> None:
        self.sent += data

    def close(self, *, flush: bool = True, reason: str = "") -> None:
        self.closed = reason


class Leader:
    """Keeps the questions of handshakes until the test answers them."""

    is_serving = True
    is_read_only = False

    def __init__(self) -> None:
        self.asked: list[Callable[[bool], None]] = []

    def create_session(self, session_id: int, timeout_ms: int, password: bytes) -> None:
        raise AssertionError("no new session is asked for here")

    def attach_session(
        self, session_id: int, timeout_ms: int, password: bytes, done: Callable[[bool], None]
    ) -> None:
        self.asked.append(done)

    def await_own_writes(self, done: Callable[[], None]) -> None:
        raise AssertionError("no local session is taken up again here")


class Server:
    """A handshake with everything around it, by hand."""

    def __init__(self) -> None:
        self.leader = Leader()
        self.living = {SESSION}
        self.handshake = Handshake(
            timeout_ms_min=1000,
            timeout_ms_max=10_000,
            sessions=self.leader,
            session_ids=SessionIds(1, 0),
            make_password=bytes,
            executed_zxid=lambda: 0,
            exists=self.living.__contains__,
            serve=self.serve,
        )

    def serve(self, client: ClientConnection) -> None:
        client.state = SERVING

    def reopen(self) -> ClientConnection:
        """A connection that has asked for the session."""
        client = ClientConnection(Conn(), (), 0)  # type: ignore[arg-type]
        client.state = 1
        frame = connect_request(session_id=SESSION, password=PASSWORD)
        self.handshake.begin(client, frame[4:])
        return client

    def end(self, client: ClientConnection) -> None:
        """The client has closed the connection."""
        client.state = CLOSED
        self.handshake.forget(client)

    def answer(self, ok: bool = True) -> None:
        self.leader.asked.pop(0)(ok)


def served() -> tuple[Server, ClientConnection]:
    server = Server()
    client = server.reopen()
    server.answer()
    assert client.state == SERVING
    return server, client


def response_of(client: ClientConnection) -> tuple[int, int]:
    """Timeout and session id of the ConnectResponse."""
    _, _, timeout_ms, session_id = struct.unpack_from(">iiiq", client.conn.sent)  # type: ignore[attr-defined]
    return timeout_ms, session_id


def test_a_session_that_ended_behind_the_question_is_not_taken_up() -> None:
    """The leader said yes, then the session's close was executed: a client of a dead session would live for
    ever.
    """
    server = Server()
    client = server.reopen()
    server.living.clear()
    server.answer(ok=True)
    assert client.state == CLOSED
    assert response_of(client) == (0, 0)


def test_a_takeover_waits_for_the_writes_of_the_older_connection() -> None:
    server, older = served()
    newer = server.reopen()
    server.answer()
    assert older.state == CLOSED
    assert newer.state != SERVING
    server.answer()
    assert newer.state == SERVING


def test_so_it_does_when_the_older_connection_ended_by_itself_meanwhile() -> None:
    """What it sent between the question and its end is in no answer to that question."""
    server, older = served()
    newer = server.reopen()
    server.end(older)
    server.answer()
    assert newer.state != SERVING
    server.answer()
    assert newer.state == SERVING
    assert server.leader.asked == []


def test_the_second_of_two_takeovers_asks_again_as_well() -> None:
    server, _ = served()
    first, second = server.reopen(), server.reopen()
    server.answer()  # to the first: the older connection goes, and it asks again
    server.answer()  # to the second, asked before the older connection went
    assert second.state != SERVING
    server.answer()
    assert first.state == SERVING
    server.answer()
    assert first.state == CLOSED
    server.answer()
    assert second.state == SERVING


def test_a_connection_that_ends_while_it_asks_leaves_nothing_behind() -> None:
    server, older = served()
    newer = server.reopen()
    server.end(newer)
    server.answer()
    assert older.state == SERVING
    assert server.handshake._asking == {}
