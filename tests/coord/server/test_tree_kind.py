"""What start-up and snapshots execute is what a serving replica executes, batch by batch."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coord.protocol import opcodes
from coord.protocol.batch import OP_REFUSED, Stamp, encode_batch, encode_block
from coord.protocol.records import (
    OPEN_ACL,
    Acl,
    Identity,
    encode_acl,
    encode_create,
    encode_path_version,
    encode_set_data,
)
from coord.server.replica import Replica
from coord.server.state import State
from coord.server.statistics import ServerStatistics
from coord.server.tree_kind import TreeKind
from coord.tree.acl import POLICY_SKIP_ACL
from coord.tree.execute import encode_create_session
from coord.tree.policy import POLICY_ENFORCE_QUOTA, POLICY_EXTENDED_TYPES

SERVED, OTHER = 1, 2
GLOBAL, LOCAL = 0x0100000000000001, 0x0200000000000007
REFUSAL = b"\xff\xff\xff\x8a"
BOB = (Identity("ip", "127.0.0.1"), Identity("digest", "bob:x"))
PATHS = ("/a", "/a/b", "/c", "/zookeeper/quota/a", "/zookeeper/quota/a/zookeeper_limits")


class Nobody:
    """An audience that is told of everything and does nothing; answers that hold nothing back."""

    parked_count = 0

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: None


def make_replica() -> Replica:
    statistics = ServerStatistics()
    nobody: Any = Nobody()
    state = State(TreeKind().fresh())
    return Replica(
        sid=SERVED,
        state=state,
        answers=nobody,
        attached={},
        statistics=statistics,
        audience=nobody,
        meters=nobody,
    )


paths = st.sampled_from(PATHS)
data = st.none() | st.sampled_from((b"", b"x" * 50, b"count=2,bytes=60"))
acls = st.sampled_from((OPEN_ACL, (Acl(31, "digest", "bob:x"),), (Acl(1, "world", "anyone"),)))
requests = st.one_of(
    st.tuples(st.just(opcodes.CREATE), st.builds(encode_create, paths, data, acls, st.integers(0, 5))),
    st.tuples(st.just(opcodes.SET_DATA), st.builds(encode_set_data, paths, data, st.integers(-1, 2))),
    st.tuples(st.just(opcodes.DELETE), st.builds(encode_path_version, paths, st.integers(-1, 1))),
    st.tuples(
        st.just(opcodes.SET_ACL),
        st.builds(
            lambda path, acl: len(path).to_bytes(4, "big") + path.encode() + encode_acl(acl) + b"\xff" * 4,
            paths,
            acls,
        ),
    ),
    st.just((opcodes.CREATE_SESSION, encode_create_session(5000, b"p" * 16))),
    st.just((opcodes.CLOSE_SESSION, b"")),
    st.just((OP_REFUSED, REFUSAL)),
)
blocks = st.tuples(
    st.sampled_from((SERVED, OTHER)), st.booleans(), st.lists(requests, min_size=1, max_size=5), st.booleans()
)
policies = st.sampled_from((0, POLICY_SKIP_ACL, POLICY_EXTENDED_TYPES | POLICY_ENFORCE_QUOTA))
batches = st.lists(st.tuples(policies, st.lists(blocks, min_size=1, max_size=3)), max_size=8)


def encode(owner: int, is_local: bool, items: list[tuple[int, bytes]], as_bob: bool) -> bytes:
    count = len(items)
    return encode_block(
        owner,
        [LOCAL if is_local else GLOBAL] * count,
        list(range(count)),
        [op for op, _ in items],
        [0] * count,
        [BOB if as_bob else BOB[:1]],
        [body for _, body in items],
        is_local=is_local,
    )


@given(batches)
def test_replay_leaves_the_tree_that_serving_left(
    history: list[tuple[int, list[tuple[int, bool, list[tuple[int, bytes]], bool]]]],
) -> None:
    replica, kind = make_replica(), TreeKind()
    replayed = kind.fresh()
    begin = [
        (0, [(SERVED, False, [(opcodes.CREATE_SESSION, encode_create_session(9000, b"q" * 16))], False)])
    ]
    zxid = 1
    for number, (policy, parts) in enumerate(begin + history):
        count = sum(len(items) for _, _, items, _ in parts)
        payload = encode_batch(
            Stamp(1, 1000 + number, zxid, count, policy), [encode(*part) for part in parts]
        )
        zxid += count
        replica.execute_payload(payload)
        kind.apply(replayed, payload)
        assert replayed.state_digest() == replica._state.tree.state_digest()


def test_a_write_of_a_local_session_is_there_after_a_replay() -> None:
    """Its session is in no replica's state: the block says that its owner vouches for it (4.7)."""
    kind = TreeKind()
    tree = kind.fresh()
    create = [(opcodes.CREATE, encode_create("/kept", b"", OPEN_ACL, 0))]
    kind.apply(tree, encode_batch(Stamp(1, 1000, 1, 1), [encode(OTHER, True, create, False)]))
    assert b"/kept" in tree.nodes
