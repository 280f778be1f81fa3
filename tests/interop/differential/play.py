"""Plays a script against one server and writes down all that comes back.

After each step every session sends a sync and everything up to its answer is taken: so an event belongs to
the step that caused it, at whichever server of an ensemble the session is.
"""

import struct
from collections.abc import Sequence

from coord.protocol import opcodes
from coord.protocol.jute import Reader
from tests.coord_raw import ACL, buffer
from tests.coord_servers import CoordServers
from tests.interop.differential.script import (
    SESSIONS,
    Burst,
    Handshake,
    Request,
    Restart,
    Step,
    Stray,
)
from tests.interop.differential.transcript import Transcript
from tests.interop.differential.wire import Connection

HEADER = struct.Struct(">iqi")
LONG = struct.Struct(">q")
RESPONSE = struct.Struct(">iiqi")
SESSION_TIMEOUT_MS = 20_000
"""Long enough for a session whose connection is gone to live on until the script comes back to it."""
BARRIER_XID = 0x7FFF0000
BARRIER = buffer(struct.pack(">ii", BARRIER_XID, opcodes.SYNC) + buffer(b"/"))
SUPER = struct.pack(">i", 0) + buffer(b"digest") + buffer(b"super:test")
ZXIDS_KEPT = 16
AHEAD_ZXID = 2**62
UNKNOWN_SESSION = 0x0123456789ABCDEF
ZEROS = bytes(16)
OWN_XIDS = {opcodes.PING: -2, opcodes.AUTH: -4, opcodes.SET_WATCHES: -8, opcodes.SET_WATCHES2: -8}

Address = tuple[str, int]


class Session:
    """One session of the script, with its connection while it has one."""

    def __init__(self, name: str, address: Address) -> None:
        self.name = name
        self.address = address
        self.connection: Connection | None = None
        self.identity = (0, ZEROS)
        self.xid = 0
        self.zxids = [0]

    def end(self) -> None:
        self.drop()
        self.identity = (0, ZEROS)
        self.zxids = [0]

    def drop(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Player:
    """Plays scripts against servers, session N at the N-th of them."""

    def __init__(self, servers: CoordServers) -> None:
        self.servers = servers
        self.addresses: list[Address] = [("127.0.0.1", server.port) for server in servers.servers]

    def play(self, script: Sequence[Step], root: str) -> Transcript:
        """The transcript of one script; `root` is made for it, dumped at its end, and removed."""
        self.transcript = Transcript()
        self.step = 0
        self.made = 0
        self.sessions = [
            Session(f"s{number}", self.addresses[number % len(self.addresses)]) for number in range(SESSIONS)
        ]
        caretaker = Caretaker(self.addresses[0], root)
        try:
            for session in self.sessions:
                self.connection_of(session)
            for self.step, step in enumerate(script, 1):
                match step:
                    case Burst():
                        self.burst(self.sessions[step.session], step.requests)
                    case Handshake():
                        self.shake_hands(self.sessions[step.session], step)
                    case Stray():
                        self.stray(step.request)
                    case Restart():
                        self.restart()
                        caretaker.connect()
                        caretaker.dump(self.transcript)
                self.barrier()
            caretaker.dump(self.transcript)
            self.step = -2
            for session in self.sessions:
                if session.connection is not None:
                    self.burst(session, (Request(opcodes.CLOSE_SESSION, b""),))
                session.drop()
        finally:
            for session in self.sessions:
                session.drop()
            caretaker.remove()
        return self.transcript

    def restart(self) -> None:
        """Kills the servers and starts them again; every session is taken up again."""
        self.servers.kill()
        for server in self.servers.servers:
            server.start()
        self.servers.wait_serving()
        for session in self.sessions:
            session.drop()
            self.connection_of(session)

    def connection_of(self, session: Session) -> Connection:
        """The session's connection; taken up again, or begun, where there is none."""
        if session.connection is not None and session.connection.is_open:
            return session.connection
        connection = Connection(session.address)
        response = connection.handshake(SESSION_TIMEOUT_MS, *session.identity, session.zxids[-1], b"\0")
        self.note_handshake(session.name, session, response)
        session.connection = connection
        return connection

    def note_handshake(self, who: str, session: Session, response: bytes | None) -> None:
        """Writes a ConnectResponse down; the session is what it says."""
        if response is None:
            self.transcript.add(self.step, who, "closed in the handshake")
            return
        version, timeout_ms, session_id, password_length = RESPONSE.unpack_from(response)
        password = response[RESPONSE.size : RESPONSE.size + password_length]
        known = "expired"
        if session_id:
            if session_id not in self.transcript.sessions:
                self.made += 1
                self.transcript.sessions[session_id] = f"session {self.made}"
            known = self.transcript.sessions[session_id]
            session.identity = (session_id, password)
        elif who == session.name:
            session.end()
        rest = response[RESPONSE.size + password_length :].hex()
        self.transcript.add(self.step, who, "handshake", version, timeout_ms, known, password_length, rest)

    def burst(self, session: Session, requests: Sequence[Request]) -> None:
        connection = self.connection_of(session)
        sent, waiting = b"", []
        for request in requests:
            session.xid += 1
            body = request.body
            if request.zxid_back is not None:
                body = LONG.pack(session.zxids[max(-1 - request.zxid_back, -len(session.zxids))]) + body
            xid = OWN_XIDS.get(request.op, session.xid)
            sent += buffer(struct.pack(">ii", xid, request.op) + body)
            waiting.append(request.op)
        connection.send(sent)
        for op in waiting:
            if not self.take_reply(session, op):
                break
        if opcodes.CLOSE_SESSION in waiting:
            self.take_rest(session)
            session.end()

    def take_reply(self, session: Session, op: int) -> bool:
        """Notes everything up to the next reply; whether there was one."""
        assert session.connection is not None
        while (frame := session.connection.receive()) is not None:
            xid, zxid, _ = HEADER.unpack_from(frame)
            if xid == -1:
                self.transcript.add_event(self.step, session.name, frame)
                continue
            if zxid > 0:
                session.zxids = [*session.zxids[1 - ZXIDS_KEPT :], zxid]
            self.transcript.add_reply(self.step, session.name, op, frame)
            return True
        self.transcript.add(self.step, session.name, "closed")
        return False

    def take_rest(self, session: Session) -> None:
        """Waits for the server's close; what it says behind the reply to closeSession is free (4.5)."""
        assert session.connection is not None
        while session.connection.receive() is not None:
            pass

    def barrier(self) -> None:
        """Takes every event of this step."""
        waiting = [one for one in self.sessions if one.connection is not None and one.connection.is_open]
        for session in waiting:
            assert session.connection is not None
            session.connection.send(BARRIER)
        for session in waiting:
            assert session.connection is not None
            while (frame := session.connection.receive()) is not None:
                xid, _, _ = HEADER.unpack_from(frame)
                if xid == BARRIER_XID:
                    break
                self.transcript.add_event(self.step, session.name, frame)
            else:
                self.transcript.add(self.step, session.name, "closed")

    def shake_hands(self, session: Session, step: Handshake) -> None:
        if step.kind == "drop":
            session.drop()
            self.connection_of(session)
            return
        if not session.identity[0]:
            self.connection_of(session)
        session_id, password = session.identity
        timeout_ms, last_zxid, flag = step.timeout_ms, 0, b"\0"
        match step.kind:
            case "wrong-password":
                # Apache cuts the session's own connection before it looks at the password (4.4).
                session.drop()
                password = b"x" * 16
            case "unknown":
                session_id = UNKNOWN_SESSION
            case "ahead":
                session_id, last_zxid = 0, AHEAD_ZXID
            case "short":
                session_id, flag = 0, b""
            case "second":
                session.drop()
                timeout_ms = SESSION_TIMEOUT_MS
            case "null-password":
                session_id, password = 0, b""
        connection = Connection(session.address)
        response = connection.handshake(timeout_ms, session_id, password, last_zxid, flag)
        other = Session("other", session.address)
        self.note_handshake("other", other, response)
        if step.kind == "second":
            session.connection = connection
            return
        if other.identity[0]:
            other.connection = connection
            self.burst(other, (Request(opcodes.CLOSE_SESSION, b""),))
        connection.close()

    def stray(self, request: Request) -> None:
        stranger = Session("stranger", self.addresses[0])
        self.burst(stranger, (request,))
        assert stranger.connection is not None
        if stranger.connection.is_open:
            stranger.connection.send(BARRIER)
            answered = stranger.connection.receive() is not None
            self.transcript.add(
                self.step, "stranger", "answered after that" if answered else "closed after that"
            )
        stranger.drop()
        if stranger.identity[0]:
            self.burst(stranger, (Request(opcodes.CLOSE_SESSION, b""),))


class Caretaker:
    """A super user's session that makes the script's root, writes down what is left, and removes it."""

    def __init__(self, address: Address, root: str) -> None:
        self.address = address
        self.root = root
        self.connection: Connection | None = None
        self.connect()
        err, _ = self.call(opcodes.CREATE, buffer(root.encode()) + buffer(b"") + ACL + struct.pack(">i", 0))
        assert err == 0, f"cannot make {root}: {err}"

    def connect(self) -> None:
        """Begins a session; an earlier one has no ephemerals and may expire when it likes."""
        if self.connection is not None:
            self.connection.close()
        self.connection = Connection(self.address)
        response = self.connection.handshake(SESSION_TIMEOUT_MS, 0, ZEROS, 0, b"\0")
        assert response is not None
        self.call(opcodes.AUTH, SUPER, xid=-4)

    def call(self, op: int, body: bytes, xid: int = 1) -> tuple[int, bytes]:
        assert self.connection is not None
        self.connection.send(buffer(struct.pack(">ii", xid, op) + body))
        frame = self.connection.receive()
        assert frame is not None, f"the server closed the caretaker's connection at operation {op}"
        return HEADER.unpack_from(frame)[2], frame

    def tree(self) -> list[str]:
        """All paths that scripts share or make, parents first."""
        found, waiting = [], ["/"]
        while waiting:
            path = waiting.pop()
            err, frame = self.call(opcodes.GET_CHILDREN, buffer(path.encode()) + b"\0")
            if err:
                continue
            found.append(path)
            reader = Reader(frame, 16)
            names = sorted(str(reader.read_text()) for _ in range(reader.read_int()))
            waiting += [f"{path.rstrip('/')}/{name}" for name in reversed(names)]
        return found

    def dump(self, transcript: Transcript) -> None:
        for path in self.tree():
            for op, tail in ((opcodes.GET_DATA, b"\0"), (opcodes.GET_ACL, b"")):
                _, frame = self.call(op, buffer(path.encode()) + tail)
                transcript.add_reply(-1, path, op, frame)

    def remove(self) -> None:
        """Leaves the tree as it was, as far as this session may."""
        for path in reversed(self.tree()):
            if path not in ("/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"):
                self.call(opcodes.DELETE, buffer(path.encode()) + struct.pack(">i", -1))
        self.call(opcodes.CLOSE_SESSION, b"")
        assert self.connection is not None
        self.connection.close()
