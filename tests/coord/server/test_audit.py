"""The audit log: ZooKeeper's lines (compared with those of 3.9.5), into a file or the server's log."""

import os
import struct
from pathlib import Path

import pytest

from coord import eventlog
from coord.protocol import opcodes as o
from coord.protocol.records import Acl, encode_acl, encode_multi
from coord.server.audit import Audit, FileSink
from coord.server.config.security import SecurityConfig
from coord.tree import Context, DataTree
from coord.tree.execute import execute
from tests.coord.server.test_authentication import auth_packet
from tests.coord.server.test_server import Start, start
from tests.coord.server.wire_client import (
    CLOSE,
    CREATE,
    DELETE,
    SET_DATA,
    Wire,
    buffer,
    create,
    request,
    set_data,
)

__all__ = ["start"]

CHECK = 13


def delete(path: bytes) -> bytes:
    return buffer(path) + struct.pack(">i", -1)


def lines(path: Path) -> list[str]:
    """Without their time."""
    return [line.partition(" INFO audit: ")[2] for line in path.read_text().splitlines()]


async def test_each_change_is_a_line_as_zookeeper_writes_it(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    port = await start(security=SecurityConfig(audit_enabled=True, audit_file=str(file)))
    async with await Wire.session(port) as wire:
        session = f"session=0x{wire.session_id:x}\tuser=127.0.0.1"
        await wire.call(1, CREATE, create(b"/a", b"x"))
        await wire.call(2, SET_DATA, set_data(b"/a", b"y"))
        await wire.call(3, CREATE, create(b"/e", flags=1))
        await wire.call(4, CREATE, create(b"/s-", flags=2))
        await wire.call(5, DELETE, delete(b"/nope"))
        await wire.call(6, CREATE, create(b"/a"))
        await wire.call(7, o.CREATE_CONTAINER, create(b"/c", flags=4))
        await wire.send(auth_packet("digest", b"bob:pw"))
        await wire.frame()
        acl = buffer(b"/a") + encode_acl([Acl(31, "auth", "")]) + struct.pack(">i", -1)
        await wire.call(8, o.SET_ACL, acl)
        good = [(CREATE, create(b"/t1")), (CHECK, delete(b"/t1")), (SET_DATA, set_data(b"/t1", b"z"))]
        await wire.call(9, o.MULTI, encode_multi([*good, (DELETE, delete(b"/t1"))]))
        bad = [(CREATE, create(b"/t1")), (CHECK, buffer(b"/t1") + struct.pack(">i", 99))]
        await wire.call(10, o.MULTI, encode_multi(bad))
        await wire.call(11, CREATE, b"\0\0\0\7/")
        await wire.send(request(12, CLOSE))
        await wire.rest()
    await start()
    ip, bob = "\tip=127.0.0.1\toperation=", ",bob\tip=127.0.0.1\toperation="
    found = lines(file)
    user = found[0].split("\t")[0]
    assert found == [
        f"{user}\toperation=serverStart\tresult=success",
        f"{session}{ip}create\tznode=/a\tznode_type=persistent\tresult=success",
        f"{session}{ip}setData\tznode=/a\tresult=success",
        f"{session}{ip}create\tznode=/e\tznode_type=ephemeral\tresult=success",
        f"{session}{ip}create\tznode=/s-0000000002\tznode_type=persistent_sequential\tresult=success",
        f"{session}{ip}delete\tznode=/nope\tresult=failure",
        f"{session}{ip}create\tznode=/a\tznode_type=persistent\tresult=failure",
        f"{session}{ip}create\tznode=/c\tznode_type=container\tresult=success",
        f"{session}{bob}setAcl\tznode=/a\tacl=digest:bob:ikIaKsbtGweaHnb/jKn7OHqbunM=:cdrwa\tresult=success",
        f"{session}{bob}create\tznode=/t1\tznode_type=persistent\tresult=success",
        f"{session}{bob}setData\tznode=/t1\tresult=success",
        f"{session}{bob}delete\tznode=/t1\tresult=success",
        f"{session}{bob}multiOperation\tresult=failure",
        f"{session}{bob}create\tresult=failure",
        f"session=0x{wire.session_id:x}\t{user}\toperation=ephemeralZNodeDeletionOnSessionCloseOrExpire"
        "\tznode=/e\tresult=success",
        f"{user}\toperation=serverStop\tresult=success",
    ]


async def test_no_name_can_begin_a_line_of_its_own(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    port = await start(security=SecurityConfig(audit_enabled=True, audit_file=str(file)))
    async with await Wire.session(port) as wire:
        await wire.send(auth_packet("digest", "eve\nsession=0x1\toperation=delete:é".encode()))
        await wire.frame()
        await wire.call(1, CREATE, create(b"/a\n\tb"))
    (line,) = [line for line in lines(file) if "create" in line]
    assert r"user=127.0.0.1,eve\nsession=0x1\toperation=delete" in line
    assert r"znode=/a\n\tb" in line


async def test_without_a_file_lines_go_to_the_servers_log(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    eventlog.configure()
    port = await start(security=SecurityConfig(audit_enabled=True))
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/a"))
    text = capsys.readouterr().err
    assert "INFO coord.audit audit session=0x" in text
    assert "operation=create znode=/a znode_type=persistent result=success" in text


class Clock:
    now_ms = 0

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return self.now_ms


def test_a_file_that_is_moved_away_begins_anew(tmp_path: Path) -> None:
    clock, file, moved = Clock(), tmp_path / "audit.log", tmp_path / "audit.log.1"
    sink = FileSink(str(file), clock)
    sink.write([{"znode": "/1"}])
    file.rename(moved)
    sink.write([{"znode": "/2"}])
    clock.now_ms += 1000
    sink.write([{"znode": "/3"}])
    sink.close()
    assert (lines(moved), lines(file)) == (["znode=/1", "znode=/2"], ["znode=/3"])


def test_a_full_disk_loses_lines_and_no_change(tmp_path: Path) -> None:
    file = tmp_path / "full"
    os.symlink("/dev/full", file)
    sink = FileSink(str(file), Clock())
    audit = Audit(sink, "me")
    tree, context = DataTree.fresh(), Context(zxid=1, session_id=1, is_local=True)
    for number in range(3):
        context.zxid += 1
        assert audit.execute_own(tree, context, CREATE, create(b"/%d" % number))[0] == 0
        audit.flush()
    assert sink.dropped == 3
    sink.close()


def test_auditing_changes_no_result() -> None:
    class Nowhere:
        def write(self, lines: object) -> None:
            pass

        def close(self) -> None:
            pass

    audit = Audit(Nowhere(), "me")
    trees = DataTree.fresh(), DataTree.fresh()
    contexts = [Context(session_id=1, is_local=True) for _ in trees]
    bodies = [
        (CREATE, create(b"/a")),
        (o.SET_ACL, b"?"),
        (o.MULTI, encode_multi([])),
        (77, b""),
        (DELETE, delete(b"/a")),
    ]
    for zxid, (op, body) in enumerate(bodies, 1):
        for context in contexts:
            context.zxid = zxid
        assert audit.execute_own(trees[0], contexts[0], op, body) == execute(trees[1], contexts[1], op, body)
