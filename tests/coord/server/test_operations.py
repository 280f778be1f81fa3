"""The operations beyond the basic ones, asked of a real server byte by byte (specification 6, 9, 10)."""

import contextlib
import struct

import pytest
import trio

from coord.server.config import ConfigError, ServerConfig, parse_config
from coord.server.config.nodes import NodesConfig
from coord.tree.watches import WATCH_BYTES_MAX
from tests.coord.server.stage import Stage
from tests.coord.server.test_server import Start, port, start
from tests.coord.server.wire_client import (
    CREATE,
    DELETE,
    EXISTS,
    GET_DATA,
    SET_DATA,
    SYNC,
    Wire,
    buffer,
    create,
    request,
    set_data,
    watched,
)

__all__ = ["port", "start"]

MULTI, CHECK_WATCHES, REMOVE_WATCHES, CREATE_CONTAINER, DELETE_CONTAINER, CREATE_TTL = 14, 17, 18, 19, 20, 21
MULTI_READ, GET_EPHEMERALS, GET_ALL_CHILDREN_NUMBER, SET_WATCHES2, ADD_WATCH, WHO_AM_I = (
    *(22, 103, 104),
    *(105, 106, 107),
)
NO_NODE, NO_WATCHER = -101, -121
TTL_NODES = NodesConfig(extended_types=True, container_check_ms=20, container_deletions_per_minute=600_000)


def ints(*values: int) -> bytes:
    return struct.pack(f">{len(values)}i", *values)


def event(kind: int, path: bytes) -> bytes:
    return ints(kind, 3) + buffer(path)


def create_ttl(path: bytes, ttl_ms: int, flags: int = 5) -> bytes:
    return create(path, flags=flags) + struct.pack(">q", ttl_ms)


async def wait_gone(wire: Wire, path: bytes) -> None:
    """Until the server itself has deleted the node: its deletion is an event."""
    error, _ = await wire.call(1, EXISTS, watched(path, True))
    if error != NO_NODE:
        xid, _, _, body = await wire.reply()
        assert (xid, body) == (-1, event(2, path))


async def test_22_40_and_22_42_the_leader_deletes_what_has_had_its_time(start: Start) -> None:
    port = await start(nodes=TTL_NODES)
    async with await Wire.session(port) as wire:
        assert (await wire.call(1, CREATE_CONTAINER, create(b"/c")))[0] == 0
        assert (await wire.call(2, CREATE, create(b"/c/k")))[0] == 0
        assert (await wire.call(3, CREATE_TTL, create_ttl(b"/t", 10)))[0] == 0
        assert (await wire.call(4, CREATE_TTL, create_ttl(b"/later", 3_600_000)))[0] == 0
        await wait_gone(wire, b"/t")
        assert (await wire.call(5, DELETE, buffer(b"/c/k") + ints(-1)))[0] == 0
        await wait_gone(wire, b"/c")
        assert (await wire.call(6, EXISTS, watched(b"/later")))[0] == 0


async def test_8_3_what_is_due_goes_after_a_restart_too(start: Start) -> None:
    """Kinds and ages are in the log and in checkpoints; a replica without the setting replays what was so."""
    port = await start(nodes=NodesConfig(extended_types=True))
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE_CONTAINER, create(b"/c"))
        await wire.call(2, CREATE, create(b"/c/k"))
        await wire.call(3, DELETE, buffer(b"/c/k") + ints(-1))
        assert (await wire.call(4, CREATE_TTL, create_ttl(b"/t", 1)))[0] == 0
    port = await start(nodes=NodesConfig(container_check_ms=20))
    async with await Wire.session(port) as wire:
        await wait_gone(wire, b"/c")
        await wait_gone(wire, b"/t")
        assert (await wire.call(2, CREATE_TTL, create_ttl(b"/t", 1)))[0] == -6


async def test_6_5_a_client_that_asks_for_the_deletion_of_a_container_is_refused(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE_CONTAINER, create(b"/c"))
        await wire.send(request(2, DELETE_CONTAINER, buffer(b"/c")))
        assert await wire.rest() == bytes.fromhex("00000010 00000002 ffffffffffffffff fffffffa")
    async with await Wire.session(port) as wire:
        assert (await wire.call(1, EXISTS, watched(b"/c")))[0] == 0


async def test_22_59_a_persistent_watch_over_the_wire(port: int) -> None:
    async with await Wire.session(port) as wire:
        assert await wire.call(1, ADD_WATCH, buffer(b"/w") + ints(0)) == (0, bytes(4))
        assert await wire.call(2, ADD_WATCH, buffer(b"/w") + ints(9)) == (-5, b"")
        await wire.send(request(3, CREATE, create(b"/w")), request(4, SET_DATA, set_data(b"/w", b"x")))
        replies = [await wire.reply() for _ in range(4)]
        assert [(xid, body) for xid, _, _, body in replies if xid == -1] == [
            (-1, event(1, b"/w")),
            (-1, event(3, b"/w")),
        ]
        assert [reply[0] for reply in replies] == [-1, 3, -1, 4]
        assert await wire.call(5, CHECK_WATCHES, buffer(b"/w") + ints(4)) == (0, b"")
        assert await wire.call(6, REMOVE_WATCHES, buffer(b"/w") + ints(3)) == (0, b"")
        assert await wire.call(7, REMOVE_WATCHES, buffer(b"/w") + ints(3)) == (NO_WATCHER, b"")
        assert await wire.call(8, SET_DATA, set_data(b"/w", b"y"))


async def test_9_6_setwatches2_sends_the_events_before_its_reply(port: int) -> None:
    async with await Wire.session(port) as wire:
        lists = ints(1) + buffer(b"/gone") + ints(0, 0, 1) + buffer(b"/p") + ints(1) + buffer(b"/r")
        await wire.send(request(-8, SET_WATCHES2, bytes(8) + lists))
        assert await wire.reply() == (-1, -1, 0, event(2, b"/gone"))
        assert (await wire.reply())[0::2] == (-8, 0)
        await wire.send(request(1, CREATE, create(b"/r")))
        assert (await wire.reply())[3] == event(1, b"/r")


async def test_9_1_a_watch_asked_for_behind_a_write_sees_only_what_follows(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.send(
            request(1, CREATE, create(b"/w")),
            request(2, ADD_WATCH, buffer(b"/w") + ints(0)),
            request(3, SET_DATA, set_data(b"/w", b"x")),
        )
        assert [(await wire.reply())[0] for _ in range(4)] == [1, 2, -1, 3]


async def test_22_61_a_watcher_without_read_permission_is_not_told(port: int) -> None:
    """Specification 9.3; the standard watch of the exists is spent all the same."""
    acl = ints(1, 31) + buffer(b"auth") + buffer(b"")
    auth = ints(0) + buffer(b"digest") + buffer(b"u:p")
    async with await Wire.session(port) as owner, await Wire.session(port) as other:
        await owner.call(-4, 100, auth)
        await other.call(1, EXISTS, watched(b"/secret", True))
        await other.call(2, ADD_WATCH, buffer(b"/") + ints(1))
        await owner.call(1, CREATE, buffer(b"/secret") + buffer(b"") + acl + ints(0))
        await owner.call(2, SET_DATA, set_data(b"/secret", b"x"))
        await owner.call(3, CREATE, create(b"/open"))
        assert (await other.reply())[3] == event(1, b"/open")
        assert (await other.call(3, CHECK_WATCHES, buffer(b"/secret") + ints(2)))[0] == NO_WATCHER


async def test_6_13_whoami_names_every_identity_of_the_connection(port: int) -> None:
    async with await Wire.session(port) as wire:
        ip = buffer(b"ip") + buffer(b"127.0.0.1")
        assert await wire.call(1, WHO_AM_I) == (0, ints(1) + ip)
        await wire.call(-4, 100, ints(0) + buffer(b"digest") + buffer(b"bob:secret"))
        assert await wire.call(2, WHO_AM_I) == (0, ints(2) + ip + buffer(b"digest") + buffer(b"bob"))


async def test_22_34_ephemerals_are_listed_for_their_own_session_and_by_prefix(port: int) -> None:
    async with await Wire.session(port) as wire, await Wire.session(port) as other:
        for xid, path in enumerate((b"/a", b"/ab", b"/b"), 1):
            await wire.call(xid, CREATE, create(path, flags=1))
        for prefix in (None, b"", b" ", b"/"):
            body = ints(3) + buffer(b"/a") + buffer(b"/ab") + buffer(b"/b")
            assert await wire.call(4, GET_EPHEMERALS, buffer(prefix)) == (0, body)
        assert await wire.call(5, GET_EPHEMERALS, buffer(b"/a")) == (
            0,
            ints(2) + buffer(b"/a") + buffer(b"/ab"),
        )
        assert await other.call(6, GET_EPHEMERALS, buffer(None)) == (0, ints(0))


async def test_22_33_all_children_of_a_fresh_root_are_three(port: int) -> None:
    async with await Wire.session(port) as wire:
        assert await wire.call(1, GET_ALL_CHILDREN_NUMBER, buffer(b"/")) == (0, ints(3))
        assert await wire.call(2, GET_ALL_CHILDREN_NUMBER, buffer(b"/no")) == (NO_NODE, b"")


def test_6_7_who_counts_large_subtrees_again_and_again_lets_others_come_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counting takes time in proportion to the subtree, and its answers are too small to hold anybody up."""
    monkeypatch.setattr("coord.server.answers.NODE_BYTES", 1_000_000)
    stage = Stage()
    greedy, other = stage.session(), stage.session()
    paths = [b"/big", *(b"/big/%d" % number for number in range(10))]
    greedy.say(*(request(1, CREATE, create(path)) for path in paths))
    stage.execute()
    assert greedy.replies() == [(1, 0)] * 11
    greedy.say(*(request(n, GET_ALL_CHILDREN_NUMBER, buffer(b"/big")) for n in range(30)))
    answers = greedy.take()
    assert 0 < len(answers) <= 2 * (4 + 16 + 4)
    other.say(request(1, EXISTS, watched(b"/")))
    assert other.replies() == [(1, 0)]
    for _ in range(30):
        stage.end_tick()
    answers += greedy.take()
    zxid = stage.state.zxid
    assert answers == b"".join(buffer(struct.pack(">iqii", n, zxid, 0, 10)) for n in range(30))


async def test_10_5_a_multiread_answers_each_read_for_itself(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/a", b"x"))
        header = struct.Struct(">i?i")
        end = header.pack(-1, True, -1)
        reads = header.pack(8, False, -1) + watched(b"/a", True) + header.pack(4, False, -1) + watched(b"/no")
        expected = header.pack(8, False, 0) + ints(0) + header.pack(-1, False, NO_NODE) + ints(NO_NODE)
        assert await wire.call(2, MULTI_READ, reads + end) == (0, expected + end)
        assert await wire.call(3, CHECK_WATCHES, buffer(b"/a") + ints(3)) == (NO_WATCHER, b"")
        write = header.pack(DELETE, False, -1) + buffer(b"/a") + ints(-1)
        assert await wire.call(4, MULTI_READ, write + end) == (-5, end)
        assert await wire.call(5, MULTI_READ, reads + write + end) == (-5, b"")
        assert await wire.call(6, MULTI, reads + end) == (-5, b"")
        assert (await wire.call(7, GET_DATA, watched(b"/a")))[0] == 0


async def test_22_81_a_hard_quota_holds_and_its_usage_survives_a_restart(start: Start) -> None:
    node = b"/zookeeper/quota/q"
    for turn in range(2):
        port = await start(nodes=NodesConfig(enforce_quota=True))
        async with await Wire.session(port) as wire:
            if not turn:
                await wire.call(1, CREATE, create(b"/q", b"12"))
                await wire.call(2, CREATE, create(node))
                await wire.call(3, CREATE, create(node + b"/zookeeper_limits", b"countHardLimit=2"))
                await wire.call(4, CREATE, create(node + b"/zookeeper_stats"))
                assert (await wire.call(5, CREATE, create(b"/q/a", b"3")))[0] == 0
            assert (await wire.call(6, CREATE, create(b"/q/b")))[0] == -125
            error, body = await wire.call(7, GET_DATA, watched(node + b"/zookeeper_stats"))
            assert (error, body[: 4 + 15]) == (0, buffer(b"count=2,bytes=3"))
    port = await start()
    async with await Wire.session(port) as wire:
        assert (await wire.call(8, CREATE, create(b"/q/b")))[0] == 0


async def test_22_28_half_a_mebibyte_is_stored_and_two_end_the_connection(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/big"))
        assert (await wire.call(2, SET_DATA, set_data(b"/big", bytes(512 << 10))))[0] == 0
        with contextlib.suppress(trio.BrokenResourceError):
            await wire.send(request(3, SET_DATA, set_data(b"/big", bytes(2 << 20))))
        assert await wire.rest() == b""
    async with await Wire.session(port) as wire:
        error, body = await wire.call(1, GET_DATA, watched(b"/big"))
        assert (error, body[:4]) == (0, ints(512 << 10))


async def test_22_36_hundreds_of_mixed_requests_are_answered_in_their_order(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/h"))
        requests = [request(2, SYNC, buffer(b"/h"))]
        for n in range(100):
            path = b"/h/%d" % n
            requests += [
                request(10 * n + 10, CREATE, create(path, b"1")),
                request(10 * n + 11, GET_DATA, watched(path)),
                request(10 * n + 12, SET_DATA, set_data(path, b"2")),
                request(10 * n + 13, SYNC, buffer(path)),
                request(10 * n + 14, EXISTS, watched(path)),
                request(10 * n + 15, DELETE, buffer(path) + ints(1)),
                request(10 * n + 16, EXISTS, watched(path)),
            ]
        await wire.send(*requests)
        replies = [await wire.reply() for _ in requests]
        assert [xid for xid, *_ in replies] == [struct.unpack_from(">i", one, 4)[0] for one in requests]
        assert [error for _, _, error, _ in replies[1:]] == [0, 0, 0, 0, 0, 0, NO_NODE] * 100


async def test_22_37_sync_echoes_a_path_that_need_not_exist(port: int) -> None:
    async with await Wire.session(port) as wire:
        assert await wire.call(1, SYNC, buffer(b"/missing")) == (0, buffer(b"/missing"))
        assert await wire.call(2, SYNC, buffer(None)) == (0, buffer(None))


async def test_22_38_and_22_39_unknown_operations_and_a_lone_check_end_the_connection(port: int) -> None:
    for op in (0, 10, 13, 23, 99, -10, -1):
        async with await Wire.session(port) as wire:
            await wire.send(request(1, op, buffer(b"/") + ints(-1)))
            assert await wire.rest() == bytes.fromhex("00000010 00000001 ffffffffffffffff fffffffa"), op


async def test_22_55_ones_own_events_come_in_order_and_before_the_replies(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, ADD_WATCH, buffer(b"/") + ints(1))
        paths = [b"/%d" % n for n in range(20)]
        await wire.send(*(request(n, CREATE, create(path)) for n, path in enumerate(paths, 2)))
        replies = [await wire.reply() for _ in range(2 * len(paths))]
        assert [body for xid, _, _, body in replies if xid == -1] == [event(1, path) for path in paths]
        assert [xid for xid, *_ in replies] == [x for n in range(len(paths)) for x in (-1, n + 2)]
        assert all(replies[n][1] == replies[n + 1][1] for n in range(0, len(replies), 2))


def test_22_43_ttl_nodes_are_a_setting_with_and_without_its_prefix() -> None:
    for prefix in ("", "zookeeper."):
        pairs = {"dataDir": "/d", prefix + "extendedTypesEnabled": "true"}
        assert parse_config(pairs | {prefix + "znode.container.checkIntervalMs": "5"}).nodes == NodesConfig(
            extended_types=True, container_check_ms=5
        )
    with pytest.raises(ConfigError, match=r"znode\.container\.maxPerMinute .*'0'"):
        parse_config({"dataDir": "/d", "znode.container.maxPerMinute": "0"})


def test_4_2_with_ttl_nodes_server_ids_end_at_254() -> None:
    with pytest.raises(ConfigError, match="up to 254, got 255"):
        ServerConfig("/d", "/d", None, sid=255, nodes=NodesConfig(extended_types=True))


async def test_whoever_watches_too_much_loses_the_connection_only(port: int) -> None:
    async with await Wire.session(port) as wire, await Wire.session(port) as other:
        with contextlib.suppress(trio.BrokenResourceError):
            for number in range(WATCH_BYTES_MAX // 1_000_000 * 2):
                await wire.send(request(number, EXISTS, watched(b"/%d" % number + b"x" * 1_000_000, True)))
        assert len(await wire.rest()) < 20 * WATCH_BYTES_MAX // 1_000_000 * 2
        assert (await other.call(1, CREATE, create(b"/goes-on")))[0] == 0
        await _wait_unwatched(port)


async def test_22_62_a_connection_that_ends_leaves_no_watch(port: int) -> None:
    async with await Wire.session(port) as wire, await Wire.session(port) as other:
        await other.call(1, CREATE, create(b"/w"))
        await wire.call(1, ADD_WATCH, buffer(b"/w") + ints(0))
        await wire.stream.aclose()
        await _wait_unwatched(port)
        assert (await other.call(2, SET_DATA, set_data(b"/w", b"x")))[0] == 0


async def _mntr(port: int) -> bytes:
    async with await Wire.open(port) as wire:
        await wire.send(b"mntr")
        return await wire.rest()


async def _wait_unwatched(port: int) -> None:
    with trio.fail_after(60):
        while b"zk_watch_count\t0\n" not in await _mntr(port):  # noqa: ASYNC110 (asked over the wire)
            await trio.sleep(0.01)
