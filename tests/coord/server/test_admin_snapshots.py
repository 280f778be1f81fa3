"""`snapshot` and `restore` over HTTP: who may, how often, what becomes of the server (specification 17.4)."""

import contextlib
import re
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from coord.protocol.records import Acl, encode_acl
from coord.server.config.admin import AdminConfig
from tests.coord.http_client import Answer, fetch
from tests.coord.server.operated import ask, operated
from tests.coord.server.wire_client import CREATE, EXISTS, GET_DATA, Wire, buffer, create, watched
from tests.coord_servers import CoordServers, free_ports

SET_ACL, AUTH, NO_NODE = 7, 100, -101
DIGEST = {"Authorization": "digest super:test"}
ADMIN = AdminConfig(enables_restore=True, snapshot_interval_ms=0, restore_interval_ms=0)


class Operated:
    def __init__(self, port: int, admin_port: int) -> None:
        self.port = port
        self.admin_port = admin_port

    async def snapshot(self, query: str = "", headers: dict[str, str] | None = None) -> Answer:
        return await fetch(self.admin_port, f"/commands/snapshot{query}", headers=headers or DIGEST)

    async def restore(self, body: bytes, headers: dict[str, str] | None = None) -> Answer:
        return await fetch(self.admin_port, "/commands/restore", "POST", body=body, headers=headers or DIGEST)

    async def wait_restored(self, answer: Answer) -> None:
        """Until the server serves in an epoch above that of the snapshot."""
        restored_epoch = answer.json()["last_zxid"] >> 32
        with trio.fail_after(60):
            while await self._epoch() <= restored_epoch:  # noqa: ASYNC110 (it is asked over the wire)
                await trio.sleep(0.01)

    async def _epoch(self) -> int:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            found = re.search(rb"^Zxid: 0x([0-9a-f]+)$", await ask(self.port, b"srvr"), re.MULTILINE)
            return int(found[1], 16) >> 32 if found else -1
        return -1


@contextlib.asynccontextmanager
async def with_admin(directory: Path, admin: AdminConfig = ADMIN) -> AsyncIterator[Operated]:
    client_port, admin_port = free_ports(2)
    admin = replace(admin, server_port=admin_port)
    async with operated(directory, client_port=client_port, admin=admin) as port:
        yield Operated(port, admin_port)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Operated]:
    async with with_admin(tmp_path) as server:
        yield server


async def test_a_restored_server_has_the_state_of_the_snapshot_and_higher_zxids(server: Operated) -> None:
    async with await Wire.session(server.port) as wire:
        await wire.call(1, CREATE, create(b"/before", b"x" * 100_000))
        await wire.call(2, CREATE, create(b"/e", b"", 1))
        snapshot = await server.snapshot()
        assert snapshot.status == 200
        assert snapshot.headers["content-type"] == "application/octet-stream"
        assert int(snapshot.headers["snapshot_size"]) == len(snapshot.body)
        await wire.call(3, CREATE, create(b"/behind"))
        answer = await server.restore(snapshot.body)
        assert (answer.status, answer.json()["error"]) == (200, None)
        assert answer.json()["last_zxid"] == int(snapshot.headers["last_zxid"], 16)
        assert await wire.rest() == b"", "clients are disconnected"
        session, password = wire.session_id, wire.password
    await server.wait_restored(answer)
    seen = answer.json()["last_zxid"] + 1
    options = {"session_id": session, "password": password, "last_zxid": seen}
    async with await Wire.session(server.port, **options) as wire:
        assert wire.session_id == session, (
            "its session was in the snapshot, and what it has seen is no obstacle"
        )
        assert (await wire.call(1, EXISTS, watched(b"/behind")))[0] == NO_NODE
        assert (await wire.call(2, EXISTS, watched(b"/e")))[0] == 0
        error, body = await wire.call(3, GET_DATA, watched(b"/before"))
        assert (error, body[4:100_004]) == (0, b"x" * 100_000)
        await wire.call(4, CREATE, create(b"/new"))
        _, stat = await wire.call(5, EXISTS, watched(b"/new"))
        assert struct.unpack_from(">q", stat)[0] >> 32 > seen >> 32


async def test_the_state_of_a_new_server_can_be_taken_and_restored(server: Operated) -> None:
    snapshot = await server.snapshot()
    assert snapshot.headers["last_zxid"] == "0x0"
    async with await Wire.session(server.port) as wire:
        await wire.call(1, CREATE, create(b"/behind"))
    answer = await server.restore(snapshot.body)
    assert answer.status == 200
    await server.wait_restored(answer)
    async with await Wire.session(server.port) as wire:
        assert (await wire.call(1, EXISTS, watched(b"/behind")))[0] == NO_NODE


async def test_a_restore_of_another_servers_snapshot_survives_a_restart(
    tmp_path: Path,
) -> None:
    async with with_admin(tmp_path / "one") as one, await Wire.session(one.port) as wire:
        await wire.call(1, CREATE, create(b"/one"))
        snapshot = await one.snapshot()
    async with with_admin(tmp_path / "two") as two:
        answer = await two.restore(snapshot.body)
        assert answer.status == 200
        await two.wait_restored(answer)
        async with await Wire.session(two.port) as wire:
            await wire.call(1, CREATE, create(b"/two"))
    async with operated(tmp_path / "two") as port, await Wire.session(port) as wire:
        for path in (b"/one", b"/two"):
            assert (await wire.call(1, EXISTS, watched(path)))[0] == 0


async def test_a_body_that_is_no_snapshot_changes_nothing(server: Operated) -> None:
    async with await Wire.session(server.port) as wire:
        await wire.call(1, CREATE, create(b"/here"))
        sound = (await server.snapshot()).body
        flipped = bytearray(sound)
        flipped[sound.index(b"/here")] ^= 1
        for body in (b"x", b"ZKSN" + bytes(100), sound[:-1], bytes(flipped)):
            answer = await server.restore(body)
            assert answer.status == 400
            assert "no snapshot of zoolog's" in answer.json()["error"]
            assert (await wire.call(2, EXISTS, watched(b"/here")))[0] == 0, "its client is still connected"


async def test_streaming_false_only_makes_the_snapshot(server: Operated) -> None:
    answer = await server.snapshot("?streaming=false")
    assert (answer.status, answer.json()) == (200, {"command": "snapshot", "error": None})
    assert answer.headers["last_zxid"].startswith("0x")
    last = (await fetch(server.admin_port, "/commands/lsnp")).json()
    assert f"0x{last['zxid']}" == answer.headers["last_zxid"]


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [
        ({"X": "none"}, 401, "Auth info is missing for the command"),
        ({"Authorization": "digest"}, 401, "Not authenticated"),
        ({"Authorization": "basic abc:def"}, 401, "Not authenticated"),
    ],
)
async def test_somebody_without_credentials_is_refused(
    server: Operated, headers: dict[str, str], status: int, error: str
) -> None:
    for answer in (await server.snapshot(headers=headers), await server.restore(b"x", headers)):
        assert (answer.status, answer.json()["error"]) == (status, error)


async def test_all_permissions_on_the_root_are_needed(server: Operated) -> None:
    async with await Wire.session(server.port) as wire:
        admin = Acl(31, "digest", "super:D/InIHSb7yEEbrWz8b9l71RjZJU=")
        reader = Acl(1, "world", "anyone")
        body = buffer(b"/") + encode_acl((admin, reader)) + struct.pack(">i", -1)
        assert (await wire.call(1, SET_ACL, body))[0] == 0
    others = {"Authorization": "digest bob:secret"}
    answer = await server.snapshot(headers=others)
    assert (answer.status, answer.json()["error"]) == (403, "Not authorized")
    assert (await server.restore(b"x", others)).status == 403
    assert (await server.snapshot(headers={"Authorization": "ip 127.0.0.1"})).status == 403
    assert (await server.snapshot()).status == 200


async def test_both_can_be_disabled_and_restore_is_unless_asked_for(tmp_path: Path) -> None:
    async with with_admin(tmp_path, AdminConfig(enables_snapshot=False)) as server:
        for answer in (await server.snapshot(), await server.restore(b"x")):
            assert (answer.status, answer.json()["error"]) == (503, None)


async def test_too_often_is_429_also_after_a_restore(tmp_path: Path) -> None:
    admin = AdminConfig(enables_restore=True)
    async with with_admin(tmp_path, admin) as server:
        snapshot = await server.snapshot()
        assert snapshot.status == 200
        again = await server.snapshot()
        assert (again.status, again.json()["error"]) == (429, None)
        answer = await server.restore(snapshot.body)
        assert answer.status == 200
        await server.wait_restored(answer)
        assert (await server.restore(snapshot.body)).status == 429


async def test_methods_are_told_apart(server: Operated) -> None:
    assert (await fetch(server.admin_port, "/commands/snapshot", "POST", body=b"x")).status == 405
    assert (await fetch(server.admin_port, "/commands/rest")).status == 405


@pytest.mark.slow
async def test_an_ensemble_refuses_a_restore_and_says_what_to_do(tmp_path: Path) -> None:
    (admin_port,) = free_ports(1)

    def start() -> CoordServers:
        extra = "admin.restore.enabled=true\nadmin.serverPort=" + str(admin_port)
        return CoordServers(tmp_path, 3, extra=extra).__enter__()

    servers = await trio.to_thread.run_sync(start)
    try:
        answer = await fetch(admin_port, "/commands/restore", "POST", body=b"x", headers=DIGEST)
        assert answer.status == 409
        assert "stop all of them, load the same state on each" in answer.json()["error"]
    finally:
        await trio.to_thread.run_sync(servers.__exit__, None, None, None)
