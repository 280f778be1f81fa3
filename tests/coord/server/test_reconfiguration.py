"""Reconfiguration of real ensembles (chapter 19, 22.8 no. 88, 89), and the rules of its requests."""

import struct
from pathlib import Path

import pytest
import trio

import coord
from coord.protocol import opcodes
from coord.server.members import Members
from coord.server.reconfiguration import ReconfigurationError, Request, apply
from tests.coord.ensemble import Ensemble, create_surely, member_lines
from tests.coord.server.wire_client import Wire, create, request
from tests.coord_servers import free_ports

SUPER = ("digest", "super:secret")
KEYS = {
    "reconfigEnabled": "true",
    "DigestAuthenticationProvider__superDigest": "super:lK75jTNcA+U9vtVEw5vB51mj/w4=",
}
THREE = Members.parse("server.1=a:1:2;5,server.2=b:1:2;5,server.3=c:1:2;5", version=0x100000000)


def ensemble_of(tmp_path: Path, nursery: trio.Nursery, lines: dict[int, str]) -> Ensemble:
    return Ensemble(tmp_path, nursery, lines, **KEYS)


def text_of(lines: dict[int, str], version: int) -> str:
    return "\n".join(f"server.{sid}={lines[sid]}" for sid in sorted(lines)) + f"\nversion={version:x}"


async def test_the_first_configuration_is_in_the_tree(tmp_path: Path, nursery: trio.Nursery) -> None:
    """19.3, 89: version is the epoch's first zxid; data version and aversion -1, czxid 0."""
    lines = member_lines(3)
    ensemble = Ensemble(tmp_path, nursery, lines)
    await ensemble.start()
    versions: set[int] = set()
    for sid in (1, 2, 3):
        async with coord.connect(f"127.0.0.1:{ensemble.port(sid)}") as client:
            await client.sync("/")
            config = await client.get_config()
            stat = config.stat
            versions.add(stat.mzxid)
            assert config.text == text_of(lines, stat.mzxid)
            assert (stat.czxid, stat.pzxid, stat.ctime) == (0, 0, 0)
            assert (stat.version, stat.aversion, stat.cversion) == (-1, -1, 0)
            assert stat.data_length == len(config.text)
    (version,) = versions
    assert version > 0
    assert version & 0xFFFFFFFF == 0
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_servers_join_and_leave(tmp_path: Path, nursery: trio.Nursery) -> None:
    """88: add, remove; the joiner was synchronized before and serves; the removed one goes on following."""
    lines = member_lines(5)
    first = {sid: lines[sid] for sid in (1, 2, 3)}
    ensemble = ensemble_of(tmp_path, nursery, lines)
    await ensemble.start(1, 2, 3, lines=first)
    hosts = f"127.0.0.1:{ensemble.port(1)},127.0.0.1:{ensemble.port(2)}"
    async with coord.connect(hosts, auth=[SUPER]) as client:
        await client.create("/before", b"1")
        await ensemble.start(4, 5, lines={**first, 4: lines[4], 5: lines[5]})
        assert [ensemble.modes[4], ensemble.modes[5]] == ["follower", "follower"]
        joining = [f"server.{sid}={lines[sid]}" for sid in (4, 5)]
        changed = await client.reconfig(joining=joining)
        assert changed.text == text_of(lines, changed.stat.mzxid)
        for sid in (4, 5):
            await ensemble.stop(sid)
        await client.create("/three-of-five", b"2")
        await ensemble.start(4, 5, lines=lines)
        removed = await client.reconfig(leaving=["4"], version=changed.stat.mzxid)
        assert removed.text == text_of({sid: lines[sid] for sid in (1, 2, 3, 5)}, removed.stat.mzxid)
        async with coord.connect(f"127.0.0.1:{ensemble.port(4)}") as late:
            await late.create("/by-removed", b"3")
            await late.sync("/")
            assert (await late.get_config()).text == removed.text
        await client.sync("/")
        assert (await client.get("/by-removed"))[0] == b"3"
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_a_leader_that_removes_itself_hands_over(tmp_path: Path, nursery: trio.Nursery) -> None:
    """88: removing the leader; it follows the one it named, and writes go on."""
    lines = member_lines(4)
    ensemble = ensemble_of(tmp_path, nursery, lines)
    await ensemble.start()
    leader = await ensemble.leader()
    other = 1 if leader != 1 else 2
    async with coord.connect(f"127.0.0.1:{ensemble.port(other)}", auth=[SUPER]) as client:
        with pytest.raises(coord.CoordError):
            # Its own server is closed with the leadership, answered or not.
            await client.reconfig(leaving=[str(leader)])
            await client.get("/none")
        await ensemble.until(
            lambda: ensemble.modes[leader] == "follower" and "leader" in ensemble.modes.values(),
            "another leads and the old one follows",
        )
        await create_surely(client, "/after", b"1")
        assert f"server.{leader}=" not in (await client.get_config()).text
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_roles_swap(tmp_path: Path, nursery: trio.Nursery) -> None:
    """88: role swap; an observer becomes a participant, and a participant an observer."""
    lines = member_lines(3, observers=1)
    ensemble = ensemble_of(tmp_path, nursery, lines)
    await ensemble.start()
    follower = next(sid for sid in (1, 2, 3) if ensemble.modes[sid] == "follower")
    leader = await ensemble.leader()
    async with coord.connect(f"127.0.0.1:{ensemble.port(leader)}", auth=[SUPER]) as client:
        swapped = [
            f"server.4={lines[4].replace('observer', 'participant')}",
            f"server.{follower}={lines[follower].replace('participant', 'observer')}",
        ]
        await client.reconfig(joining=swapped)
        await ensemble.until(
            lambda: (ensemble.modes[4], ensemble.modes[follower]) == ("follower", "observer"),
            "roles are swapped",
        )
        assert "zk_quorum_size\t3\n" in await ensemble.ask(leader, "mntr")
        third = next(sid for sid in (1, 2, 3) if sid not in (leader, follower))
        await ensemble.stop(third)
        await client.create("/by-leader-and-4", b"")
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_the_data_directory_has_the_last_word(tmp_path: Path, nursery: trio.Nursery) -> None:
    """19.5: a changed ensemble starts again as it was, whatever its old files say."""
    lines = member_lines(4)
    first = {sid: lines[sid] for sid in (1, 2, 3)}
    ensemble = ensemble_of(tmp_path, nursery, lines)
    await ensemble.start(1, 2, 3, lines=first)
    await ensemble.start(4)
    async with coord.connect(f"127.0.0.1:{ensemble.port(1)}", auth=[SUPER]) as client:
        changed = await client.reconfig(joining=[f"server.4={lines[4]}"])
    await ensemble.stop()
    await ensemble.start(1, 2, 4, lines=first | {4: lines[4]})
    await ensemble.stop(1)
    await ensemble.until(lambda: not any(ensemble.modes.values()), "two of four are too few")
    await ensemble.start(3, lines=first)
    await ensemble.until(lambda: all(ensemble.modes.values()), "three of four serve")
    async with coord.connect(f"127.0.0.1:{ensemble.port(3)}") as client:
        assert (await client.get_config()).text == changed.text
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_watchers_of_the_configuration_are_told_once(tmp_path: Path, nursery: trio.Nursery) -> None:
    """19.3: a data watch fires on reconfig; chapter 24: one event."""
    lines = member_lines(3)
    ensemble = ensemble_of(tmp_path, nursery, lines)
    await ensemble.start()
    async with (
        coord.connect(f"127.0.0.1:{ensemble.port(1)}", auth=[SUPER]) as client,
        coord.connect(f"127.0.0.1:{ensemble.port(2)}") as other,
    ):
        await client.create("/first", b"")
        await other.sync("/")  # the ensemble's first configuration is there
        changed = await told_of_a_change(client, other)
        assert (await other.get_config()).stat.mzxid == changed.stat.mzxid
    await ensemble.stop()
    assert ensemble.failures == {}


async def told_of_a_change(client: coord.Client, other: coord.Client) -> coord.Config:
    async with other.watch("/zookeeper/config") as events:
        told = aiter(events)
        assert (await anext(told)).kind is coord.EventKind.CURRENT
        changed = await client.reconfig()
        with trio.fail_after(60):
            event = await anext(told)
        assert (event.kind, event.path) == (coord.EventKind.CHANGED, "/zookeeper/config")
        return changed


async def test_another_address_is_listened_on_and_dialled(tmp_path: Path, nursery: trio.Nursery) -> None:
    """88: port change; the server goes on under its new quorum port."""
    lines = member_lines(3)
    moved = member_lines(1, first=3)[3].rsplit(";", 1)[0] + ";" + lines[3].rsplit(";", 1)[1]
    ensemble = ensemble_of(tmp_path, nursery, lines)
    await ensemble.start()
    async with coord.connect(f"127.0.0.1:{ensemble.port(1)}", auth=[SUPER]) as client:
        try:
            await client.reconfig(joining=[f"server.3={moved}"])
        except coord.ConnectionLossError:
            pass  # server 3 led, and has handed over
        await ensemble.until(lambda: all(ensemble.modes.values()), "all serve")
        await ensemble.stop(1, 2)
        await ensemble.start(1, 2)
        await ensemble.until(lambda: all(ensemble.modes.values()), "all serve again")
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_clients_are_served_at_another_port(tmp_path: Path, nursery: trio.Nursery) -> None:
    """88: port change; at once, and after a restart with the old zoo.cfg; who is connected stays."""
    lines = member_lines(3)
    ensemble = ensemble_of(tmp_path, nursery, lines)
    await ensemble.start()
    moved = lines[2].rpartition(":")[0] + f":{free_ports(1)[0]}"
    async with (
        coord.connect(f"127.0.0.1:{ensemble.port(1)}", auth=[SUPER]) as client,
        await Wire.session(ensemble.port(2), timeout_ms=20_000) as stays,
    ):
        await client.reconfig(joining=[f"server.2={moved}"])
        ensemble.lines[2] = moved
        await ensemble.until(lambda: bool(ensemble.modes[2]), "it answers at the new port")
        assert (await stays.call(1, opcodes.CREATE, create(b"/stays")))[0] == 0
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", int(lines[2].rpartition(":")[2]))
    await ensemble.stop(2)
    await ensemble.start(2, lines=lines)
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_a_rolling_restart_with_other_lines_changes_the_ensemble(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """Without reconfigEnabled the files are the operator's word: the leader sees to it."""
    lines = member_lines(4)
    first = {sid: lines[sid] for sid in (1, 2, 3)}
    ensemble = Ensemble(tmp_path, nursery, lines)
    await ensemble.start(1, 2, 3, lines=first)
    for sid in (1, 2, 3):
        await ensemble.stop(sid)
        await ensemble.start(sid)
    await ensemble.start(4)
    async with coord.connect(f"127.0.0.1:{ensemble.port(1)}") as client:
        with trio.fail_after(60):
            while f"server.4={lines[4]}" not in (await client.get_config()).text:
                await client.sync("/")
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_refusals_come_in_their_order(tmp_path: Path, nursery: trio.Nursery) -> None:
    """19.4; kazoo tests exactly: bad text, wrong version, and a valid joiner without super."""
    lines = member_lines(2)
    ensemble = ensemble_of(tmp_path, nursery, lines)
    await ensemble.start()
    observer = "server.9=127.0.0.9:2:3:observer;4"
    port = ensemble.port(1)
    async with (
        coord.connect(f"127.0.0.1:{port}") as anybody,
        coord.connect(f"127.0.0.1:{port}", auth=[SUPER]) as operator,
    ):
        with pytest.raises(coord.BadArgumentsError):
            await anybody.reconfig(joining=["some thing"])
        with pytest.raises(coord.BadVersionError):
            await anybody.reconfig(joining=[observer], version=77)
        with pytest.raises(coord.NoAuthError):
            await anybody.reconfig(joining=[observer])
        with pytest.raises(coord.NewConfigNoQuorumError):
            await operator.reconfig(joining=["server.8=127.0.0.8:2:3;4", "server.7=127.0.0.7:2:3;4"])
        with pytest.raises(coord.BadArgumentsError):
            await operator.reconfig(leaving=["2"])
        text = (await operator.get_config()).text
        changed = await operator.reconfig(joining=[observer])
        assert changed.text.split("\n")[:2] == text.split("\n")[:2]
        assert changed.text.split("\n")[2] == "server.9=127.0.0.9:2:3:observer;0.0.0.0:4"
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_a_request_that_ends_early_changes_nothing(tmp_path: Path, nursery: trio.Nursery) -> None:
    """2.5: undecodable is -5, in its place; it is not taken for the leader's own wish."""
    lines = member_lines(2)
    ensemble = ensemble_of(tmp_path, nursery, lines)
    await ensemble.start()
    for sid in (1, 2):
        async with await Wire.session(ensemble.port(sid)) as wire:
            whole = struct.pack(">iiiq", -1, -1, -1, -1)
            for size in range(len(whole)):
                assert (await wire.call(size, opcodes.RECONFIG, whole[:size]))[0] == opcodes.MARSHALLING_ERROR
            assert (await wire.call(99, opcodes.RECONFIG, whole))[0] == opcodes.NO_AUTH
            await wire.send(
                request(1, opcodes.CREATE, create(b"/before%d" % sid)),
                request(2, opcodes.RECONFIG, whole),
                request(3, opcodes.CREATE, create(b"/behind%d" % sid)),
            )
            assert [(await wire.reply())[::2] for _ in range(3)] == [(1, 0), (2, opcodes.NO_AUTH), (3, 0)]
    await ensemble.stop()
    assert ensemble.failures == {}


async def test_it_is_disabled_unless_enabled(tmp_path: Path, nursery: trio.Nursery) -> None:
    """19.4: reconfigEnabled=false is the default; the first check of all."""
    ensemble = Ensemble(tmp_path, nursery, member_lines(2))
    await ensemble.start()
    async with coord.connect(f"127.0.0.1:{ensemble.port(2)}") as client:
        with pytest.raises(coord.ReconfigDisabledError):
            await client.reconfig(joining=["some thing"], version=77)
    await ensemble.stop()
    assert ensemble.failures == {}


# The text of requests (19.4)


def change(joining: str | None = None, leaving: str | None = None, members: str | None = None) -> Members:
    return apply(Request(joining, leaving, members, -1), THREE, voters_min=2)


def test_leaving_is_applied_before_joining() -> None:
    """19.4: and unknown leaving ids are ignored."""
    made = change("server.4=d:1:2;5,server.2=x:1:2:observer;5", "2,77")
    assert [peer.sid for peer in made.servers] == [1, 2, 3, 4]
    assert made.find(2) == Members.parse("server.2=x:1:2:observer;5").servers[0]


def test_joining_an_existing_id_replaces_it() -> None:
    """19.4: role or port change; `server.` is optional, as only what follows the last dot counts."""
    made = change("2=b:7:8;9")
    assert made.lines() == (
        "server.1=a:1:2:participant;0.0.0.0:5\n"
        "server.2=b:7:8:participant;0.0.0.0:9\n"
        "server.3=c:1:2:participant;0.0.0.0:5"
    )


def test_a_whole_list_replaces_everything() -> None:
    """19.4: separated by commas or newlines; it may bring groups, and counts beside joining and leaving."""
    made = change("nonsense", "1", "server.1=a:1:2;5\nserver.2=b:1:2;5,group.1=1:2,weight.2=3")
    assert made.text() == (
        "server.1=a:1:2:participant;0.0.0.0:5\nserver.2=b:1:2:participant;0.0.0.0:5\n"
        "group.1=1:2\nweight.1=1\nweight.2=3\nversion=0"
    )


def test_no_lists_at_all_change_nothing() -> None:
    """19.4: all three lists null passes as a reconfiguration without change."""
    assert change() == THREE


@pytest.mark.parametrize(
    ("joining", "leaving", "members", "code"),
    [
        ("some thing", None, None, opcodes.BAD_ARGUMENTS),
        ("server.4=d:1:2=x;5", None, None, opcodes.BAD_ARGUMENTS),
        ("server.4=d:1;5", None, None, opcodes.BAD_ARGUMENTS),
        ("server.4=d:1:2", None, None, opcodes.BAD_ARGUMENTS),
        ("server.4=d:x:2;5", None, None, opcodes.BAD_ARGUMENTS),
        ("server.4=d:1:2:boss;5", None, None, opcodes.BAD_ARGUMENTS),
        ("server.4=a:1:9;5", None, None, opcodes.BAD_ARGUMENTS),
        ("server.4=a:8:2;5", None, None, opcodes.BAD_ARGUMENTS),
        ("", "", "", opcodes.BAD_ARGUMENTS),
        (None, None, "version=7", opcodes.BAD_ARGUMENTS),
        (None, None, "hello=1", opcodes.BAD_ARGUMENTS),
        (None, "2,3", None, opcodes.BAD_ARGUMENTS),
        ("server.x=d:1:2;5", None, None, opcodes.MARSHALLING_ERROR),
        (None, "two", None, opcodes.MARSHALLING_ERROR),
    ],
)
def test_text_problems(joining: str | None, leaving: str | None, members: str | None, code: int) -> None:
    """19.4."""
    with pytest.raises(ReconfigurationError) as refused:
        change(joining, leaving, members)
    assert refused.value.code == code


def test_an_incremental_change_of_an_ensemble_with_groups_is_refused() -> None:
    """19.4."""
    grouped = Members.parse("server.1=a:1:2;5,server.2=b:1:2;5,server.3=c:1:2;5,group.1=1:2:3")
    with pytest.raises(ReconfigurationError) as refused:
        apply(Request("server.4=d:1:2;5", None, None, -1), grouped, voters_min=2)
    assert refused.value.code == opcodes.BAD_ARGUMENTS


def test_loopback_and_wildcard_addresses_are_never_used() -> None:
    """19.4."""
    now = Members.parse("server.1=127.0.0.1:1:2;0.0.0.0:5,server.2=b:1:2;5")
    made = apply(Request("server.3=127.0.0.1:1:2;0.0.0.0:5", None, None, -1), now, voters_min=2)
    assert len(made.servers) == 3


def test_a_joiner_may_have_several_addresses_where_that_is_enabled() -> None:
    """19.1."""
    request = Request("server.4=d:1:2|e:1:2;5", None, None, -1)
    with pytest.raises(ReconfigurationError, match=r"multiAddress\.enabled"):
        apply(request, THREE, voters_min=2)
    made = apply(request, THREE, voters_min=2, several_addresses=True)
    assert made.servers[-1].text() == "d:1:2|e:1:2:participant;0.0.0.0:5"
