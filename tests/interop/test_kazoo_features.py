"""What kazoo's documentation says of its client, feature by feature: create modes, asynchronous calls,
chroot, access lists, transactions, listeners. (Containers, TTL nodes and persistent watches are in no release
of kazoo yet; the Java client has them.)
"""

import secrets
import threading

import pytest
from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError,
    InvalidACLError,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    ReconfigDisabledError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.protocol.states import EventType, WatchedEvent
from kazoo.security import ACL, OPEN_ACL_UNSAFE, Id, make_acl, make_digest_acl

from tests.coord_servers import CoordServers
from tests.interop.conftest import MakeClient

pytestmark = pytest.mark.interop
WAIT_S = 60.0


@pytest.fixture
def client(standalone: CoordServers, make_client: MakeClient) -> KazooClient:
    return make_client(standalone.hosts)


@pytest.fixture
def root(client: KazooClient) -> str:
    return client.create(f"/f-{secrets.token_hex(6)}")


class Events:
    """Collects watch events across kazoo's threads."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.arrived = threading.Condition()

    def __call__(self, event: WatchedEvent) -> None:
        with self.arrived:
            self.seen.append((event.type, event.path))
            self.arrived.notify_all()

    def take(self, count: int) -> list[tuple[str, str]]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.seen) >= count, WAIT_S), self.seen
            taken, self.seen = self.seen, []
            return taken


# Create modes


def test_missing_parents_are_made(client: KazooClient, root: str) -> None:
    assert client.create(f"{root}/a/b/c", b"x", makepath=True) == f"{root}/a/b/c"
    assert client.ensure_path(f"{root}/a/b/d/e")
    assert client.get(f"{root}/a/b/c")[0] == b"x"


def test_default_acl_of_a_client(standalone: CoordServers, make_client: MakeClient, root: str) -> None:
    owner = make_client(standalone.hosts, default_acl=[make_digest_acl("u", "p", all=True)])
    owner.add_auth("digest", "u:p")
    owner.create(f"{root}/owned")
    assert owner.get_acls(f"{root}/owned")[0][0].id.scheme == "digest"


# Asynchronous calls


def test_asynchronous_calls_complete_and_chain(client: KazooClient, root: str) -> None:
    done = threading.Event()
    path = f"{root}/a"

    def created(result: object) -> None:
        client.set_async(path, b"2").rawlink(changed)

    def changed(result: object) -> None:
        done.set()

    client.create_async(path, b"1").rawlink(created)
    assert done.wait(WAIT_S)
    assert client.get_async(path).get(WAIT_S)[0] == b"2"
    assert client.get_children_async(root).get(WAIT_S) == ["a"]
    assert client.exists_async(f"{root}/none").get(WAIT_S) is None
    assert client.sync_async(root).get(WAIT_S) == root
    acls, _ = client.get_acls_async(path).get(WAIT_S)
    assert acls == OPEN_ACL_UNSAFE
    failed = client.delete_async(root)
    failed.wait(WAIT_S)
    assert isinstance(failed.exception, NotEmptyError)
    assert client.ensure_path_async(f"{root}/b/c").get(WAIT_S)
    client.delete_async(path).get(WAIT_S)


def test_a_thousand_calls_under_way_are_answered_in_order(client: KazooClient, root: str) -> None:
    made = [client.create_async(f"{root}/s-", sequence=True) for _ in range(1000)]
    assert [one.get(WAIT_S) for one in made] == [f"{root}/s-{number:010d}" for number in range(1000)]


# Chroot


def test_a_chroot_hides_what_is_above(
    standalone: CoordServers, make_client: MakeClient, client: KazooClient, root: str
) -> None:
    inside = make_client(f"{standalone.hosts}{root}")
    events = Events()
    assert inside.exists("/x", watch=events) is None
    assert inside.create("/x", b"1") == "/x"
    assert events.take(1) == [(EventType.CREATED, "/x")]
    assert inside.create("/s-", sequence=True) == "/s-0000000001"
    assert sorted(inside.get_children("/")) == ["s-0000000001", "x"]
    assert client.get(f"{root}/x")[0] == b"1"
    assert inside.sync("/") == "/"
    commit = inside.transaction()
    commit.create("/t")
    assert commit.commit() == ["/t"]


# Access lists


def test_access_lists_are_read_changed_and_enforced(
    client: KazooClient, standalone: CoordServers, make_client: MakeClient, root: str
) -> None:
    owner = make_client(standalone.hosts, auth_data=[("digest", "own:er"), ("digest", "sec:ond")])
    path = owner.create(f"{root}/owned", acl=[make_acl("auth", "", all=True)])
    acls, stat = owner.get_acls(path)
    assert {acl.id.id.partition(":")[0] for acl in acls} == {"own", "sec"}
    with pytest.raises(NoAuthError):
        client.get(path)
    with pytest.raises(NoAuthError):
        client.exists(path)
    with pytest.raises(BadVersionError):
        owner.set_acls(path, OPEN_ACL_UNSAFE, version=stat.aversion + 1)
    readable = [*acls, make_acl("world", "anyone", read=True)]
    assert owner.set_acls(path, readable).aversion == 1
    assert client.get(path)[1].aversion == 1
    assert all(acl.id.id.endswith(":x") for acl in client.get_acls(path)[0] if acl.id.scheme == "digest")
    with pytest.raises(NoAuthError):
        client.set(path, b"x")
    with pytest.raises(NoAuthError):
        client.create(f"{path}/child")


@pytest.mark.parametrize(
    "acl",
    [
        ACL(31, Id("world", "somebody")),
        ACL(31, Id("nope", "x")),
        ACL(31, Id("ip", "1.2.3")),
        ACL(31, Id("digest", "no-colon")),
        make_acl("auth", "", all=True),
    ],
    ids=str,
)
def test_22_68_lists_that_mean_nobody_are_refused(client: KazooClient, root: str, acl: ACL) -> None:
    with pytest.raises(InvalidACLError):
        client.create(f"{root}/none", acl=[acl])


def test_22_66_credentials_may_hold_colons_and_any_letters(
    client: KazooClient, standalone: CoordServers, make_client: MakeClient, root: str
) -> None:
    owner = make_client(standalone.hosts)
    owner.add_auth("digest", "benutzer:pass:wört")
    owner.create(f"{root}/owned", acl=[make_digest_acl("benutzer", "pass:wört", all=True)])
    owner.set(f"{root}/owned", b"x")
    with pytest.raises(NoAuthError):
        client.get(f"{root}/owned")


# Transactions


def test_a_transaction_of_all_its_operations(client: KazooClient, root: str) -> None:
    work = client.transaction()
    work.create(f"{root}/a", b"1")
    work.create(f"{root}/a/e", ephemeral=True)
    work.create(f"{root}/a/s-", sequence=True)
    work.set_data(f"{root}/a", b"2", version=0)
    work.check(f"{root}/a", version=1)
    work.delete(f"{root}/a/e")
    made, ephemeral, sequential, changed, checked, deleted = work.commit()
    assert (made, ephemeral, sequential) == (f"{root}/a", f"{root}/a/e", f"{root}/a/s-0000000001")
    assert (changed.version, checked, deleted) == (1, True, True)
    assert client.get_children(f"{root}/a") == ["s-0000000001"]


def test_a_failed_transaction_says_where(client: KazooClient, root: str) -> None:
    work = client.transaction()
    work.create(f"{root}/a")
    work.create(f"{root}/b/c")
    work.delete(root)
    assert [type(result) for result in work.commit()] == [RolledBackError, NoNodeError, RuntimeInconsistency]
    assert client.exists(f"{root}/a") is None


# The rest


def test_children_with_their_stat(client: KazooClient, root: str) -> None:
    client.create(f"{root}/a")
    names, stat = client.get_children(root, include_data=True)
    assert (names, stat.numChildren, stat.cversion) == (["a"], 1, 1)


def test_listeners_hear_of_suspension_and_return(client: KazooClient, root: str) -> None:
    states: list[str] = []
    back = threading.Event()

    def listen(state: str) -> None:
        states.append(state)
        if state == KazooState.CONNECTED:
            back.set()

    client.add_listener(listen)
    session = client.client_id
    client._connection._socket.shutdown(2)
    assert back.wait(WAIT_S)
    assert states == [KazooState.SUSPENDED, KazooState.CONNECTED]
    assert client.client_id == session
    client.remove_listener(listen)


def test_a_client_can_be_stopped_and_started_work(client: KazooClient, root: str) -> None:
    client.create(f"{root}/e", ephemeral=True)
    first = client.client_id
    client.restart()
    assert client.client_id != first
    assert client.exists(f"{root}/e") is None
    assert client.exists(root) is not None


def test_retries_go_on_until_the_call_succeeds(client: KazooClient, root: str) -> None:
    assert client.retry(client.create, f"{root}/r") == f"{root}/r"
    with pytest.raises(NodeExistsError):
        client.retry(client.create, f"{root}/r")


def test_the_membership_is_not_changed_unless_the_server_allows_it(client: KazooClient) -> None:
    with pytest.raises(ReconfigDisabledError):
        client.reconfig(joining="server.9=127.0.0.1:1:2;3", leaving=None, new_members=None)
