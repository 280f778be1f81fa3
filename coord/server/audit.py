"""The audit log: a line for every change that a client of this server asked for, in ZooKeeper's form.

    session=0x1…0⇥user=127.0.0.1,bob⇥ip=127.0.0.1⇥operation=create⇥znode=/a⇥znode_type=persistent⇥result=success

(⇥ is a tab.) Lines are made from requests that have been executed, so they stand in the order of the
changes; each server names those of its own clients, and the ephemerals that end with any session. They go to
a file, in one write for each batch, or to the server's log. A line that cannot be written is counted, and
costs nobody his change.
"""

import os
import pwd
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

from coord import eventlog
from coord.clock import Clock
from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader, encode_buffer
from coord.protocol.records import STAT_BYTES, Acl, Identity
from coord.tree import DataTree
from coord.tree.context import Context
from coord.tree.execute import execute
from coord.tree.multi import decode_multi

REOPEN_MS: Final = 1000
"""How often the file is looked for under its name, so that it may be moved away and begins anew."""

_OPERATIONS: Final = {
    opcodes.CREATE: "create",
    opcodes.CREATE2: "create",
    opcodes.CREATE_CONTAINER: "create",
    opcodes.CREATE_TTL: "create",
    opcodes.DELETE: "delete",
    opcodes.DELETE_CONTAINER: "delete",
    opcodes.SET_DATA: "setData",
    opcodes.SET_ACL: "setAcl",
    opcodes.MULTI: "multiOperation",
    opcodes.RECONFIG: "reconfig",
    opcodes.CHANGE_MEMBERSHIP: "reconfig",
}
_CREATES: Final = frozenset({opcodes.CREATE, opcodes.CREATE2, opcodes.CREATE_CONTAINER, opcodes.CREATE_TTL})
_MODES: Final = (
    *("persistent", "ephemeral", "persistent_sequential", "ephemeral_sequential", "container"),
    *("persistent_with_ttl", "persistent_sequential_with_ttl"),
)
_MULTI_HEADER_BYTES: Final = 9
_unpack_int = struct.Struct(">i").unpack_from
_EPHEMERAL_END: Final = "ephemeralZNodeDeletionOnSessionCloseOrExpire"

log = eventlog.get("coord.audit")

Fields = dict[str, str]


class Sink(Protocol):
    """Where lines go."""

    def write(self, lines: Sequence[Fields]) -> None: ...

    def close(self) -> None: ...


class Audit:
    """The audit of one server.

    Args:
        user: whom this process belongs to: the user of what no client asked for.
    """

    def __init__(self, sink: Sink, user: str) -> None:
        self._sink = sink
        self._user = user
        self._lines: list[Fields] = []

    def note_server(self, operation: str) -> None:
        """`serverStart` or `serverStop`."""
        self._lines.append({"user": self._user, "operation": operation, "result": "success"})
        self.flush()

    def execute_own(self, tree: DataTree, context: Context, op: int, body: bytes) -> tuple[int, bytes]:
        """In place of `execute`, for a request of a client of this server."""
        err, answer = execute(tree, context, op, body)
        if op in _OPERATIONS:
            self._note_request(tree, context, op, body, err, answer)
        elif op == opcodes.CLOSE_SESSION:
            self._note_session_end(context)
        return err, answer

    def execute_foreign(self, tree: DataTree, context: Context, op: int, body: bytes) -> tuple[int, bytes]:
        """In place of `execute`, for what another server's client asked for, or the leader."""
        err, answer = execute(tree, context, op, body)
        if op == opcodes.CLOSE_SESSION:
            self._note_session_end(context)
        return err, answer

    def _note_request(
        self, tree: DataTree, context: Context, op: int, body: bytes, err: int, answer: bytes
    ) -> None:
        users, host = _users(context.identities)
        who = {"session": f"0x{context.session_id:x}", "user": users, "ip": host}
        try:
            done = describe(tree, op, body, err, answer)
        except (DecodeError, struct.error):  # the request was none
            done = [Change(_OPERATIONS[op], {}, is_done=False)]
        for change in done:
            result = {"result": "success" if change.is_done else "failure"}
            self._lines.append(who | {"operation": change.operation} | change.fields | result)

    def _note_session_end(self, context: Context) -> None:
        """The ephemerals of a session are gone; each is one of the request's events."""
        who = {"session": f"0x{context.session_id:x}", "user": self._user, "operation": _EPHEMERAL_END}
        for kind, path, _ in context.events:
            if kind == opcodes.NODE_DELETED:
                self._lines.append(who | {"znode": _text(path), "result": "success"})

    def flush(self) -> None:
        """At the end of each batch."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._sink.write(lines)

    def close(self) -> None:
        """The server has stopped."""
        self.note_server("serverStop")
        self._sink.close()


class Change(NamedTuple):
    """One operation that a client asked for."""

    operation: str
    fields: Fields
    is_done: bool


def describe(tree: DataTree, op: int, body: bytes, err: int, answer: bytes) -> list[Change]:
    """The operations of a request, which has been executed.

    Raises:
        DecodeError, struct.error: the body is no such request.
    """
    if op != opcodes.MULTI:
        return [Change(_OPERATIONS[op], _fields(tree, op, body, b"" if err else answer), not err)]
    changes: list[Change] = []
    offset = 0
    for item_op, item in decode_multi(body):
        result_op = -1 if err else _unpack_int(answer, offset)[0]
        if result_op == -1:
            return [Change(_OPERATIONS[op], {}, is_done=False)]
        offset += _MULTI_HEADER_BYTES
        result = answer[offset:]
        offset += _result_bytes(result_op, result)
        if item_op in _OPERATIONS:  # a check changes nothing
            if isinstance(item, tuple):
                item = encode_buffer(item[0])  # of a setData nothing is told but the path
            changes.append(Change(_OPERATIONS[item_op], _fields(tree, item_op, item, result), is_done=True))
    return changes


def _fields(tree: DataTree, op: int, body: bytes, answer: bytes) -> Fields:
    """`answer` is empty where the request failed."""
    if op in (opcodes.RECONFIG, opcodes.CHANGE_MEMBERSHIP):
        return {}
    reader = Reader(body)
    path = reader.read_string() or b""
    if op in _CREATES:
        reader.read_buffer()
        for _ in range(reader.read_count() or 0):
            reader.read_int()
            reader.read_string()
            reader.read_string()
        flags = reader.read_int()
        if op == opcodes.CREATE_CONTAINER:
            flags = opcodes.FLAG_CONTAINER
        mode = _MODES[flags] if 0 <= flags < len(_MODES) else str(flags)
        created = (Reader(answer).read_string() or b"") if answer else path
        return {"znode": _text(created), "znode_type": mode}
    fields = {"znode": _text(path)}
    if op == opcodes.SET_ACL and answer:
        fields["acl"] = printable(",".join(map(_acl_text, tree.acl_of(tree.nodes[path].acl))))
    return fields


def _result_bytes(op: int, result: bytes) -> int:
    """Bytes of one result of a multi, behind its header."""
    if op in (opcodes.CREATE, opcodes.CREATE2):
        reader = Reader(result)
        reader.read_string()
        return reader.offset + (STAT_BYTES if op == opcodes.CREATE2 else 0)
    return STAT_BYTES if op == opcodes.SET_DATA else 0


def _acl_text(acl: Acl) -> str:
    letters = "".join(letter for bit, letter in _PERMISSIONS if acl.perms & bit)
    return f"{acl.scheme}:{acl.id}:{letters}"


_PERMISSIONS: Final = (
    (opcodes.PERM_CREATE, "c"),
    (opcodes.PERM_DELETE, "d"),
    (opcodes.PERM_READ, "r"),
    (opcodes.PERM_WRITE, "w"),
    (opcodes.PERM_ADMIN, "a"),
)


def _users(identities: Iterable[Identity]) -> tuple[str, str]:
    """The names of a connection's identities, and its address (specification 11.4)."""
    names: list[str] = []
    host = ""
    for scheme, name in identities:
        if scheme == "ip":
            host = name
        if scheme != "super":
            names.append(name.partition(":")[0] if scheme == "digest" else name)
    return printable(",".join(names)), host


def _text(path: bytes) -> str:
    return printable(path.decode("utf-8", "replace"))


def printable(text: str) -> str:
    """No value may begin another field or line."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class LogSink:
    """Into the server's log: `INFO coord.audit audit session=… user=…`."""

    def write(self, lines: Sequence[Fields]) -> None:
        for fields in lines:
            log.info("audit", **fields)

    def close(self) -> None:
        """Nothing is kept open."""


class FileSink:
    """Into a file, which may be moved away at any time (logrotate): it begins anew within a second.

    Raises:
        OSError: the file cannot be opened.

    Attributes:
        dropped: lines that could not be written.
    """

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._descriptor = self._open()
        self._looked_ms = clock.monotonic_ms()
        self.dropped = 0

    def write(self, lines: Sequence[Fields]) -> None:
        moment = datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC)
        head = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z INFO audit: "
        data = "".join(head + _line(fields) + "\n" for fields in lines).encode()
        try:
            self._reopen_if_moved()
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            if not self.dropped:
                log.error("the audit log cannot be written", do="mend it", file=self._path, error=error)
            self.dropped += len(lines)

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def _reopen_if_moved(self) -> None:
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._looked_ms < REOPEN_MS:
            return
        self._looked_ms = now_ms
        mine = os.fstat(self._descriptor)
        try:
            named = os.stat(self._path)
            if (named.st_ino, named.st_dev) == (mine.st_ino, mine.st_dev):
                return
        except FileNotFoundError:
            pass
        opened = self._open()
        os.close(self._descriptor)
        self._descriptor = opened


def _line(fields: Fields) -> str:
    return "\t".join(f"{name}={value}" for name, value in fields.items())


def open_audit(path: str, clock: Clock) -> Audit:
    """The audit that goes to a file, or to the server's log where `path` is empty.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a number without a name, as in many containers
        user = str(os.getuid())
    return Audit(FileSink(path, clock) if path else LogSink(), user)
