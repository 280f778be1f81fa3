"""Our client with ensembles of three: without a quorum, with other members, with another list of servers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import coord
from tests.coord_servers import CoordServers, ask, wait_for
from tests.interop.apache import SUPER_DIGEST, ApacheServers
from tests.interop.conftest import SYNC_LIMIT

pytestmark = [pytest.mark.interop, pytest.mark.slow]
S = coord.State
HOLD_S = 60.0
"""No wait of these tests takes longer."""
READ_ONLY = "readonlymode.enabled=true\nlocalSessionsEnabled=true\nlocalSessionsUpgradingEnabled=true\n"
KINDS: dict[str, Callable[..., CoordServers]] = {"zoolog": CoordServers, "apache-3.9": ApacheServers}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_minority_serves_reads_until_there_is_a_quorum_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spec 14: a client that asks for it reads, and moves on with a session of its own."""
    # Apache's reads this one from Java's properties only.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dreadonlymode.enabled=true")
    with KINDS[kind](tmp_path, 3, extra=READ_ONLY) as ensemble, trio.fail_after(HOLD_S):
        async with coord.connect(ensemble.hosts) as zk:
            await zk.create("/kept", b"1")
        first, second, third = ensemble.servers
        for server in (first, second):
            await trio.to_thread.run_sync(server.kill)
        await trio.to_thread.run_sync(wait_for, lambda: ask(third.port, "isro") == "ro", "it reads only")
        async with coord.connect(ensemble.hosts, read_only=True) as zk:
            assert zk.state is S.READ_ONLY
            assert (await zk.get("/kept"))[0] == b"1"
            for refused in (zk.create("/x"), zk.sync(), zk.get("/kept", linearizable=True)):
                with pytest.raises(coord.NotReadOnlyError):
                    await refused
            async with zk.watch("/kept") as events:
                await anext(events)
                first.start()
                assert await zk.wait_state(S.CONNECTED) is S.CONNECTED
                while True:
                    try:
                        await zk.set("/kept", b"2")
                        break
                    except (coord.ConnectionLossError, coord.NotConnectedError, coord.NotReadOnlyError):
                        continue
                assert (await anext(events)).kind is coord.EventKind.CHANGED
        second.start()


async def test_a_new_list_of_servers_costs_no_request(kind: str, tmp_path: Path) -> None:
    """What is in flight is answered before the client moves."""
    with KINDS[kind](tmp_path, 3, sync_limit=SYNC_LIMIT) as ensemble, trio.fail_after(HOLD_S):
        first, second, third = (server.address for server in ensemble.servers)
        async with coord.connect(first) as zk, trio.open_nursery() as nursery:
            await zk.create("/x")
            written = 0

            async def write() -> None:
                nonlocal written
                while True:
                    await zk.set("/x", b"")
                    written += 1

            for _ in range(20):
                nursery.start_soon(write)
            for hosts in (second, third, first, f"{second},{third}"):
                before = written
                with zk.states() as states:
                    assert await zk.update_hosts(hosts)
                    assert [await anext(states) for _ in range(3)] == [S.CONNECTED, S.SUSPENDED, S.CONNECTED]
                assert zk.server is not None
                assert coord.format_address(*zk.server) in hosts
                # Answers of one tick wake their tasks in any order, so one write more of ours may come first.
                while written == before:
                    await zk.set("/x", b"")
            nursery.cancel_scope.cancel()


async def test_members_are_changed_and_the_configuration_is_watched(kind: str, tmp_path: Path) -> None:
    auth = [("digest", "super:test")]
    extra = f"reconfigEnabled=true\nDigestAuthenticationProvider.superDigest={SUPER_DIGEST}\n"
    with KINDS[kind](tmp_path, 3, sync_limit=SYNC_LIMIT, extra=extra) as servers, trio.fail_after(HOLD_S):
        leaving = servers.followers()[0]
        hosts = ",".join(server.address for server in servers.servers if server is not leaving)
        async with coord.connect(hosts, auth=auth) as zk, coord.connect(hosts) as plain:
            config = await zk.get_config()
            assert config.text.count("server.") == 3
            with pytest.raises(coord.NoAuthError):
                await plain.reconfig(leaving=[str(leaving.sid)])
            with pytest.raises(coord.BadVersionError):
                await zk.reconfig(leaving=[str(leaving.sid)], version=1)
            async with zk.watch("/zookeeper/config") as events:
                await anext(events)
                changed = await zk.reconfig(leaving=[str(leaving.sid)])
                assert changed.text.count("server.") == 2
                assert (await anext(events)).kind is coord.EventKind.CHANGED
            prefix = f"server.{leaving.sid}="
            (line,) = (line for line in config.text.splitlines() if line.startswith(prefix))
            joining = f"{line.partition(';')[0]};{leaving.address}"
            assert (await zk.reconfig(joining=[joining])).text == (await zk.get_config()).text
