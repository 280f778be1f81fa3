"""`import_directory`: what Apache ZooKeeper had is what a server of ours serves."""

from pathlib import Path

import pytest
import trio

import coord
from coord.apache import ApacheDataError, import_directory
from coord.server import ServerConfig, serve
from coord.storage import ForeignDataError
from tests.coord.apache.files import (
    LAST_ZXID,
    LOG,
    NEXT_LOG,
    SESSIONS,
    SNAPSHOT,
    create_record,
    golden_directory,
    log_file,
)


def config(directory: Path, log_directory: Path | None = None) -> ServerConfig:
    return ServerConfig(str(directory), str(log_directory or directory), 0, client_address="127.0.0.1")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return golden_directory(tmp_path / "apache", "snapshot.0", LOG)


async def test_a_client_of_zookeepers_takes_its_session_up_again(
    source: Path, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """4.2, 4.4: it finds its ephemeral and cannot tell the difference."""
    import_directory(str(source), str(tmp_path / "ours"))
    host, port = await nursery.start(serve, config(tmp_path / "ours"))
    session = next(iter(SESSIONS.items()))
    async with coord.connect(f"{host}:{port}", session=session) as client:
        assert client.session_id == session[0]
        data, stat = await client.get("/app/eph")
        assert (data, stat.ephemeral_owner) == (b"e", session[0])
        assert (await client.get("/app/empty"))[0] == b"multi"
        assert await client.create("/app/seq-", b"", sequential=True) == "/app/seq-0000000017"
    async with coord.connect(f"{host}:{port}") as client:
        assert await client.exists("/app/eph") is None  # gone with its session
    nursery.cancel_scope.cancel()


async def test_zxids_go_on_in_a_higher_epoch(source: Path, tmp_path: Path, nursery: trio.Nursery) -> None:
    import_directory(str(source), str(tmp_path / "ours"))
    host, port = await nursery.start(serve, config(tmp_path / "ours"))
    async with coord.connect(f"{host}:{port}") as client:
        await client.create("/new", b"")
        _, stat = await client.get("/new")
        assert stat.czxid >> 32 > LAST_ZXID >> 32
    nursery.cancel_scope.cancel()


async def test_epochs_that_were_promised_are_kept(tmp_path: Path, nursery: trio.Nursery) -> None:
    """20.2: no leader of ours has an epoch that one of ZooKeeper's may have had."""
    source = golden_directory(tmp_path / "apache", SNAPSHOT)
    (source / "version-2" / "acceptedEpoch").write_text("9")
    assert import_directory(str(source), str(tmp_path / "ours")).epoch == 9
    host, port = await nursery.start(serve, config(tmp_path / "ours"))
    async with coord.connect(f"{host}:{port}") as client:
        await client.create("/new", b"")
        assert (await client.get("/new"))[1].czxid >> 32 == 10
    nursery.cancel_scope.cancel()


def test_a_standalone_zookeepers_history_counts_as_one(tmp_path: Path) -> None:
    """Its zxids are of epoch 0, and a server of ours in epoch 0 has no history that counts in a quorum."""
    source = golden_directory(tmp_path / "apache")
    log_file(source, 1, [create_record(1, "/a"), create_record(2, "/b")])
    report = import_directory(str(source), None)
    assert (report.zxid, report.epoch) == (2, 1)


async def test_the_state_may_lie_beside_zookeepers_files(source: Path, nursery: trio.Nursery) -> None:
    with pytest.raises(ForeignDataError, match="zoolog coord import"):
        await serve(config(source))
    before = {path.name: path.read_bytes() for path in (source / "version-2").iterdir()}
    import_directory(str(source), str(source))
    host, port = await nursery.start(serve, config(source))
    async with coord.connect(f"{host}:{port}") as client:
        assert await client.exists("/app") is not None
    nursery.cancel_scope.cancel()
    assert {path.name: path.read_bytes() for path in (source / "version-2").iterdir()} == before


async def test_the_log_may_have_a_directory_of_its_own(
    source: Path, tmp_path: Path, nursery: trio.Nursery
) -> None:
    logs = tmp_path / "apache-log"
    (logs / "version-2").mkdir(parents=True)
    (source / "version-2" / LOG).rename(logs / "version-2" / LOG)
    ours, our_log = tmp_path / "ours", tmp_path / "our-log"
    report = import_directory(str(source), str(ours), source_log_dir=str(logs), target_log_dir=str(our_log))
    assert report.zxid == LAST_ZXID
    host, port = await nursery.start(serve, config(ours, our_log))
    async with coord.connect(f"{host}:{port}") as client:
        assert await client.exists("/app") is not None
    nursery.cancel_scope.cancel()


def test_two_imports_of_the_same_files_are_the_same_state(source: Path, tmp_path: Path) -> None:
    """So that the servers of an ensemble can each import."""
    first = import_directory(str(source), str(tmp_path / "1"))
    assert import_directory(str(source), str(tmp_path / "2")).digest == first.digest


def test_a_directory_with_a_state_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    import_directory(str(source), str(tmp_path / "ours"))
    with pytest.raises(ApacheDataError, match="has a state already"):
        import_directory(str(source), str(tmp_path / "ours"))


def test_without_a_target_everything_is_checked_and_nothing_written(source: Path) -> None:
    report = import_directory(str(source), None)
    assert (report.nodes, report.sessions, report.ephemerals) == (26, 2, 2)
    assert [path.name for path in source.iterdir()] == ["version-2"]


def test_damage_leaves_the_target_without_a_state(source: Path, tmp_path: Path) -> None:
    path = source / "version-2" / LOG
    path.write_bytes(path.read_bytes()[:9000] + b"!" + path.read_bytes()[9001:])
    with pytest.raises(ApacheDataError, match=r"log\.100000001 at \d+: expected checksum"):
        import_directory(str(source), str(tmp_path / "ours"))
    assert not (tmp_path / "ours").exists()


def test_ephemerals_of_sessions_that_have_ended_are_left_out(tmp_path: Path) -> None:
    """As when ZooKeeper starts; a fuzzy snapshot may hold some."""
    source = golden_directory(tmp_path / "apache", SNAPSHOT, NEXT_LOG)
    report = import_directory(str(source), None)
    assert (report.sessions, report.ephemerals, report.notes) == (2, 2, ())
