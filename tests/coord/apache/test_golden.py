"""Files that Apache ZooKeeper 3.9.5 wrote, read as they are."""

import shutil
from pathlib import Path

import pytest

from coord.apache.convert import database_of, tree_of
from coord.apache.database import CONTAINER_OWNER, Database
from coord.apache.directory import load_state
from coord.apache.passwords import session_password
from coord.protocol.records import OPEN_ACL, STAT, Acl, Stat
from tests.coord.apache.files import (
    GOLDEN,
    LAST_ZXID,
    LOG,
    NEXT_LOG,
    SESSIONS,
    SNAPSHOT,
    golden_directory,
)

OLDER_PASSWORDS = {
    "3.4.14": bytes.fromhex("60b64d706d1806d03e2007bffeb6cacf"),
    "3.6.4": bytes.fromhex("d98ac5d9f2457c2edfffd9708b94eac1"),
}


def stat_of(database: Database, path: bytes) -> Stat:
    """The Stat that a client of ours is shown."""
    return Stat._make(STAT.unpack(tree_of(database, LAST_ZXID).nodes[path].stat))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return load_state(str(golden_directory(tmp_path, "snapshot.0", LOG))).database


@pytest.mark.parametrize("names", [("snapshot.0", LOG), (LOG,), (SNAPSHOT + ".gz",), (SNAPSHOT + ".snappy",)])
def test_every_way_to_the_state_ends_in_the_same_tree(tmp_path: Path, names: tuple[str, ...]) -> None:
    state = load_state(str(golden_directory(tmp_path, *names)))
    assert state.zxid == LAST_ZXID
    assert state.notes == []
    assert state.database.digest == 0xC575C79DD
    plain = load_state(str(golden_directory(tmp_path / "plain", SNAPSHOT))).database
    assert tree_of(state.database, LAST_ZXID).state_digest() == tree_of(plain, LAST_ZXID).state_digest()


def test_the_digest_behind_each_transaction_proves_the_tree(tmp_path: Path) -> None:
    state = load_state(str(golden_directory(tmp_path, "snapshot.0", LOG)))
    assert state.transactions == 40
    assert state.digests == 37


def test_the_log_of_a_new_epoch_follows_the_snapshot(tmp_path: Path) -> None:
    directory = golden_directory(tmp_path, SNAPSHOT, LOG, NEXT_LOG, "currentEpoch", "acceptedEpoch")
    state = load_state(str(directory))
    assert (state.zxid, state.epoch, state.transactions) == (0x200000003, 2, 3)
    assert b"/after-CHECKED" in state.database.nodes


def test_sessions_come_with_timeout_and_the_password_that_zookeeper_gave(database: Database) -> None:
    """4.2."""
    assert database.sessions == dict.fromkeys(SESSIONS, 30_000)
    assert {one: session_password(one) for one in SESSIONS} == SESSIONS
    tree = tree_of(database, LAST_ZXID)
    assert {one: session.password for one, session in tree.sessions.items()} == SESSIONS


def test_nodes_of_every_kind_are_what_their_clients_saw(database: Database) -> None:
    first, second = SESSIONS
    nodes = database.nodes
    assert nodes[b"/app/eph"].stat.ephemeral_owner == first
    assert nodes[b"/app/raweph"].stat.ephemeral_owner == second
    assert nodes[b"/app/null"].data is None
    assert nodes["/app/ünïcode".encode()].data == "wört".encode()
    assert nodes[b"/app/container"].stat.ephemeral_owner == CONTAINER_OWNER
    assert nodes[b"/app/ttl"].stat.ephemeral_owner & 0xFFFFFFFFFF == 3_600_000
    assert nodes[b"/app/acl"].acl == (
        Acl(31, "digest", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ="),
        Acl(31, "digest", "super:D/InIHSb7yEEbrWz8b9l71RjZJU="),
    )
    assert nodes[b"/app/empty"].data == b"multi"
    assert b"/app/never" not in nodes  # a multi that failed
    assert b"/app/gone1" not in nodes  # its session was closed
    assert nodes[b"/app"].acl == OPEN_ACL


def test_stats_are_those_that_zookeeper_showed(database: Database) -> None:
    """8.2: cversion counts creates and deletes, containers and TTL nodes show no owner."""
    app = stat_of(database, b"/app")
    assert (app.cversion, app.num_children, app.data_length) == (20, 14, 10)
    assert stat_of(database, b"/app/empty").version == 3
    assert stat_of(database, b"/app/container").ephemeral_owner == 0
    assert stat_of(database, b"/app/acl").aversion == 1
    assert stat_of(database, b"/").cversion == 3


def test_the_next_sequential_name_follows_the_last_one(database: Database) -> None:
    """8.4."""
    assert tree_of(database, LAST_ZXID).nodes[b"/app"].created == 17


def test_quotas_are_counted_anew(database: Database) -> None:
    stats = database.nodes[b"/zookeeper/quota/app/zookeeper_stats"]
    assert stats.data == b"count=16,bytes=38"


def test_the_configuration_of_the_old_ensemble_stays_behind(database: Database) -> None:
    tree = tree_of(database, LAST_ZXID)
    assert b"server.1" in (database.nodes[b"/zookeeper/config"].data or b"")
    assert tree.nodes[b"/zookeeper/config"].data == bytes(4)


def test_the_way_back_gives_the_same_database(database: Database) -> None:
    tree = tree_of(database, LAST_ZXID)
    back = database_of(tree)
    assert back.digest == database.digest
    assert tree_of(back, LAST_ZXID).state_digest() == tree.state_digest()


@pytest.mark.parametrize(("release", "digests"), [("3.4.14", 0), ("3.6.4", 16)])
def test_files_of_older_releases_are_read(tmp_path: Path, release: str, digests: int) -> None:
    """3.4 has no digests, closeSession names no paths; 3.6 has both."""
    shutil.copytree(GOLDEN / release, tmp_path / "version-2")
    state = load_state(str(tmp_path))
    assert (state.zxid, state.transactions, state.digests) == (17, 17, digests)
    nodes = state.database.nodes
    below = sorted(path for path in nodes if path.startswith(b"/app/"))
    assert below == [b"/app/acl", b"/app/eph", b"/app/m1", b"/app/seq-0000000001", b"/app/seq-0000000002"]
    assert nodes[b"/app"].data == b"multi"
    assert nodes[b"/app"].stat[4:] == (2, 8, 0, 0, 17)
    ((session_id, timeout_ms),) = state.database.sessions.items()
    assert (nodes[b"/app/eph"].stat.ephemeral_owner, timeout_ms) == (session_id, 30_000)
    assert session_password(session_id) == OLDER_PASSWORDS[release]
