"""`standaloneEnabled=false`: one member runs as an ensemble that can grow (specification 19.8)."""

from pathlib import Path

import pytest
import trio

import coord
from coord.inspection import verify_directory
from coord.server import ConfigError, DataDirectoryError, ServerConfig, parse_config, serve
from tests.coord_servers import free_ports


def config(directory: Path, **pairs: str) -> ServerConfig:
    quorum_port, election_port = free_ports(2)
    (directory / "myid").write_text("1")
    (directory / "ensemble.secret").write_text("0123456789abcdef")
    return parse_config(
        {
            "dataDir": str(directory),
            "clientPort": "0",
            "clientPortAddress": "127.0.0.1",
            "tickTime": "200",
            "initLimit": "10",
            "syncLimit": "5",
            "server.1": f"127.0.0.1:{quorum_port}:{election_port}",
        }
        | pairs
    )


async def test_it_serves_and_comes_back_with_what_it_had(tmp_path: Path) -> None:
    for number in range(2):
        one = config(tmp_path, standaloneEnabled="false")
        assert not one.standalone
        async with trio.open_nursery() as servers:
            host, port = await servers.start(serve, one)
            async with coord.connect(f"{host}:{port}") as client:
                await client.create(f"/{number}", b"")
                assert (await client.get(f"/{number}"))[1].czxid >> 32 == number + 1
                assert await client.exists("/0") is not None
            servers.cancel_scope.cancel()


async def test_the_directory_of_a_standalone_server_becomes_a_members_and_stays_its_own(
    tmp_path: Path,
) -> None:
    async def run(one: ServerConfig) -> None:
        async with trio.open_nursery() as servers:
            await servers.start(serve, one)
            servers.cancel_scope.cancel()

    await run(config(tmp_path))
    await run(config(tmp_path, standaloneEnabled="false"))
    with pytest.raises(DataDirectoryError, match=r"server 1 of ensemble 'zoolog', and this is .* 'other'"):
        await serve(config(tmp_path, standaloneEnabled="false", **{"ensemble.id": "other"}))
    owner = tmp_path / "zoolog" / "owner"
    (found,) = [one for one in verify_directory(str(tmp_path)) if one.path == str(owner)]
    assert (found.kind, found.text) == ("ok", "server 1 of ensemble 'zoolog'")
    owner.write_text("zoolog-owner 1 2 zoolog 00000000\n")
    assert [one.path for one in verify_directory(str(tmp_path)) if one.kind == "damage"] == [str(owner)]
    await run(config(tmp_path))


def test_an_ensemble_of_one_needs_what_an_ensemble_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="initLimit is not set"):
        config(tmp_path, standaloneEnabled="false", initLimit="0")
    assert config(tmp_path, initLimit="0").standalone
