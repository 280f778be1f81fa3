"""The tree against the plain model: random histories, every reply, event and Stat compared after each step.

Beside what clients see, each step checks what replicas rely on: the incremental digest is the recomputed one,
a request that fails changes nothing, and a second replica fed the same bytes is equal.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coord.protocol import opcodes as o
from coord.protocol.jute import Reader, encode_int, encode_long, encode_text
from coord.protocol.records import (
    OPEN_ACL,
    Acl,
    Stat,
    decode_watcher_event,
    encode_acl,
    encode_create,
    encode_multi,
    encode_path_version,
    encode_set_data,
    read_stat,
)
from coord.tree import WATCH_CHILD, WATCH_DATA, answer_watch_request
from coord.tree.execute import encode_create_session
from tests.coord.tree.machine import (
    BOB,
    DIGEST_ID,
    LOCAL,
    OTHER_SESSION,
    PASSWORD,
    SESSION,
    SUPER,
    Machine,
    decode_results,
    dump,
    load,
    take_checkpoint,
)
from tests.coord.tree.model import Model, valid
from tests.coord.tree.watch_model import CHILD_WATCH, DATA_WATCH, PERSISTENT, RECURSIVE, WatchModel


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """As `st.one_of`, which drops what is named twice, with weights."""
    strategies = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.sampled_from(strategies).flatmap(lambda strategy: strategy)


PATHS = st.one_of(
    st.sampled_from(["/a", "/b", "/a/x", "/a/y", "/a/x/k", "/zookeeper", "/zookeeper/quota/q", "/", "/a/"]),
    st.sampled_from(
        ["/a//b", "//a", "//", "", "abc", "a/b", "/a/.", "/a/..", "/\x01", "/a\0", "/é", "/\ue000"]
    ),
    st.lists(st.sampled_from(["a", "b", "x", "y", ".", "", "é", "\U0001f600"]), min_size=1, max_size=4).map(
        lambda parts: "/" + "/".join(parts)
    ),
)
GOOD_PATHS = st.sampled_from(["/a", "/b", "/a/x", "/a/y", "/a/x/k", "/b/e"])
ANY_PATH = weighted((9, GOOD_PATHS), (1, PATHS))
DATA = st.one_of(st.none(), st.binary(max_size=12))
VERSIONS = weighted((3, st.just(-1)), (1, st.integers(-3, 4)))
ACLS = weighted(
    (4, st.just(OPEN_ACL)),
    (
        1,
        st.sampled_from(
            [
                (),
                (Acl(1, "world", "anyone"),),
                (Acl(31, "digest", DIGEST_ID),),
                (Acl(31, "auth", ""),),
                (Acl(1, "world", "anyone"), Acl(31, "auth", ""), Acl(1, "world", "anyone")),
                (Acl(31, "ip", "127.0.0.1"), Acl(31, "ip", "127.0.0.1")),
                (Acl(31, "world", "nobody"),),
                (Acl(31, "weird", "x"),),
                (Acl(0, "world", "anyone"),),
            ]
        ),
    ),
)
WHO = st.tuples(
    st.sampled_from([SESSION] * 9 + [OTHER_SESSION] * 3 + [99]), st.sampled_from([LOCAL, BOB, BOB, SUPER])
)

CREATES = st.tuples(st.just("create"), ANY_PATH, DATA, ACLS, st.sampled_from([0, 0, 0, 1, 2, 3, 4]))
CONTAINERS = st.tuples(st.just("create_container"), ANY_PATH, DATA, ACLS, st.sampled_from([0, 1, 2, 4]))
TTL_NODES = st.tuples(
    st.just("create_ttl"),
    ANY_PATH,
    DATA,
    ACLS,
    st.sampled_from([5, 5, 6, 0, 2, 4]),
    st.sampled_from([-1, 0, 1, 50, 50, (1 << 40) - 1, 1 << 40]),
)
DELETES = st.tuples(st.just("delete"), ANY_PATH, VERSIONS)
SETS = st.tuples(st.just("set_data"), ANY_PATH, DATA, VERSIONS)
CHECKS = st.tuples(st.just("check"), ANY_PATH, VERSIONS)
SET_ACLS = st.tuples(st.just("set_acl"), ANY_PATH, ACLS, VERSIONS)
QUOTA_NODES = st.sampled_from(
    [
        *("/zookeeper/quota/a", "/zookeeper/quota/a/zookeeper_limits", "/zookeeper/quota/a/zookeeper_stats"),
        *(
            "/zookeeper/quota/a/x",
            "/zookeeper/quota/a/x/zookeeper_limits",
            "/zookeeper/quota/zookeeper_stats",
        ),
        *("/zookeeper/quota/a/x/zookeeper_stats", "/zookeeper/quota/zookeeper_limits"),
    ]
)
QUOTA_TEXTS = st.sampled_from(
    [
        *(b"", b"count=3", b"count=3,bytes=9", b"countHardLimit=2", b"nonsense", None),
        *(b"count=-1,bytes=-1=;byteHardLimit=8;countHardLimit=3", b"byteHardLimit=10"),
    ]
)
QUOTA_CREATES = st.tuples(st.just("create"), QUOTA_NODES, QUOTA_TEXTS, st.just(OPEN_ACL), st.just(0))
QUOTA_SETS = st.tuples(st.just("set_data"), QUOTA_NODES, QUOTA_TEXTS, st.just(-1))
QUOTA_DELETES = st.tuples(st.just("delete"), QUOTA_NODES, st.just(-1))
MULTIS = st.tuples(
    st.just("multi"),
    st.lists(
        weighted(
            *((4, CREATES), (2, DELETES), (2, SETS), (1, CHECKS), (1, CONTAINERS), (1, TTL_NODES)),
            *((1, QUOTA_CREATES), (1, QUOTA_SETS), (1, QUOTA_DELETES)),
        ),
        min_size=1,
        max_size=6,
    ),
)
TIMES = st.tuples(st.just("pass"), st.sampled_from([1, 49, 50, 51, 1000]))
REAPS = st.tuples(st.just("reap"), ANY_PATH, st.sampled_from([0, 0, 50]))
CONNECTIONS = st.sampled_from(["one", "two", "three"])
WATCH_PATHS = st.sampled_from(["/", "/a", "/b", "/a/x", "/a/x/k", "/a/y", "", "/zookeeper/quota/a"])
WATCHES = st.one_of(
    st.tuples(
        st.just("watch"),
        CONNECTIONS,
        st.sampled_from([DATA_WATCH, CHILD_WATCH, PERSISTENT, RECURSIVE]),
        WATCH_PATHS,
    ),
    st.tuples(st.just("unwatch"), CONNECTIONS, st.integers(0, 6), WATCH_PATHS),
    st.tuples(st.just("drop"), CONNECTIONS),
)
SESSIONS = st.tuples(
    st.sampled_from(["close_session", "create_session"]), st.sampled_from([SESSION, OTHER_SESSION])
)
STEPS = weighted(
    *((8, CREATES), (4, DELETES), (4, SETS), (1, SET_ACLS), (5, MULTIS), (1, SESSIONS)),
    *((2, CONTAINERS), (2, TTL_NODES), (3, REAPS), (2, TIMES)),
    *((2, QUOTA_CREATES), (2, QUOTA_SETS), (1, QUOTA_DELETES)),
)

#: Without a least length hypothesis makes histories of five steps, in which little can happen.
LENGTH: dict[str, Any] = {"min_size": 20, "max_size": 50}

_OPS = {
    "create": o.CREATE,
    "create_container": o.CREATE_CONTAINER,
    "create_ttl": o.CREATE_TTL,
    "delete": o.DELETE,
    "set_data": o.SET_DATA,
    "check": o.CHECK,
    "set_acl": o.SET_ACL,
}


def encode(step: tuple[Any, ...]) -> tuple[int, bytes]:
    name, *rest = step
    if name in ("create", "create_container"):
        return _OPS[name], encode_create(*rest)
    if name == "create_ttl":
        return o.CREATE_TTL, encode_create(*rest[:4]) + encode_long(rest[4])
    if name == "set_data":
        return o.SET_DATA, encode_set_data(*rest)
    if name == "set_acl":
        path, acl, version = rest
        return o.SET_ACL, encode_text(path) + encode_acl(acl) + encode_int(version)
    if name == "multi":
        return o.MULTI, encode_multi([encode(item) for item in rest[0]])
    return _OPS[name], encode_path_version(*rest)


def decode_answer(name: str, body: bytes) -> object:
    if name == "create":
        return Reader(body).read_text()
    if name in ("create_container", "create_ttl"):
        reader = Reader(body)
        return reader.read_text(), read_stat(reader)
    if name in ("set_data", "set_acl"):
        return read_stat(Reader(body))
    assert body == b""
    return None


def run_model(model: Model, step: tuple[Any, ...], who: Any, at: tuple[int, int]) -> tuple[int, object]:
    name, *rest = step
    if name == "multi":
        results = model.multi([(item[0], item[1:]) for item in rest[0]], who, at)
        # Limits that cannot be read refuse a multi as a whole, as 3.9.5 does.
        return (o.MARSHALLING_ERROR, ()) if o.MARSHALLING_ERROR in results else (0, results)
    err, result = getattr(model, name)(*rest, who, at)
    return err, result


#: Quotas in force, and nodes below them, before what is random begins.
BEGINNINGS = st.sampled_from(
    [
        [],
        [
            *(("create", path, b"", OPEN_ACL, 0) for path in ("/a", "/zookeeper/quota/a")),
            ("create", "/zookeeper/quota/a/zookeeper_limits", b"count=2=;countHardLimit=3", OPEN_ACL, 0),
            ("create", "/zookeeper/quota/a/zookeeper_stats", b"", OPEN_ACL, 0),
        ],
    ]
)


@settings(max_examples=200, deadline=None)
@given(BEGINNINGS, st.lists(st.tuples(weighted((3, STEPS), (1, WATCHES)), WHO), **LENGTH))
def test_random_histories_match_the_model(
    beginning: list[tuple[Any, ...]], history: list[tuple[tuple[Any, ...], Any]]
) -> None:
    machine, model, watches = Machine(), Model.fresh(), WatchModel()
    model.sessions = {SESSION, OTHER_SESSION}
    for step, who in [(step, (SESSION, LOCAL)) for step in beginning] + history:
        name = step[0]
        machine.identities = who[1]
        if name == "pass":
            machine.context.wall_ms += step[1]
        elif name in ("watch", "unwatch", "drop"):
            run_watch_step(machine, watches, step)
        else:
            run_step(machine, model, step, who)
            told = machine.watches.fire(machine.context.events, machine.zxid)
            heard: dict[str, list[tuple[int, str]]] = {}
            for connection, frame in told:
                heard.setdefault(str(connection), []).append(decode_watcher_event(frame[20:])[0::2])
            assert heard == watches.fire(model.events)
        assert machine.watches.count == watches.count()


def run_step(machine: Machine, model: Model, step: tuple[Any, ...], who: Any) -> None:
    name = step[0]
    before = dump(machine.tree)
    digest = machine.tree.digest
    model.events = []
    at = (machine.zxid + 1, machine.context.wall_ms)
    if name == "close_session":
        assert machine.close_session(step[1]) == 0
        model.close_session(step[1], at)
    elif name == "create_session":
        machine.run(o.CREATE_SESSION, encode_create_session(5_000, PASSWORD), session_id=step[1])
        model.sessions.add(step[1])
    elif name == "reap":
        assert machine.reap(step[1], step[2]) == model.reap(step[1], step[2], at)
    else:
        err, body = machine.run(*encode(step), session_id=who[0])
        expected_err, expected = run_model(model, step, who, at)
        assert err == expected_err, step
        if name == "multi" and not err:
            assert decode_results(body) == expected
        elif err == 0:
            assert decode_answer(name, body) == expected
        if not machine.events:
            failed = err or (name == "multi" and any(isinstance(r, int) and r for r in expected))  # type: ignore[attr-defined]
            if failed:
                assert dump(machine.tree) == before
                assert machine.tree.digest == digest
    assert machine.zxid == at[0]
    assert [(kind, path.decode()) for kind, path in machine.events] == model.events
    compare(machine, model)


def run_watch_step(machine: Machine, watches: WatchModel, step: tuple[Any, ...]) -> None:
    name, connection, *rest = step
    if name == "drop":
        machine.watches.remove_connection(connection)
        watches.drop(connection)
        return
    kind, path = rest
    if name == "watch":
        watches.add(connection, kind, path)
        if kind in (DATA_WATCH, CHILD_WATCH):
            machine.watches.add(connection, WATCH_DATA if kind == DATA_WATCH else WATCH_CHILD, path.encode())
        else:
            body = encode_text(path) + encode_int(1 if kind == RECURSIVE else 0)
            answer = answer_watch_request(machine.watches, machine.tree, connection, o.ADD_WATCH, body)
            assert answer == (0, bytes(4), [])
        return
    body = encode_text(path) + encode_int(kind)
    for op, expected in ((o.CHECK_WATCHES, watches.check), (o.REMOVE_WATCHES, watches.remove)):
        err, _, _ = answer_watch_request(machine.watches, machine.tree, connection, op, body)
        assert err == expected(connection, kind, path)


def compare(machine: Machine, model: Model) -> None:
    tree = machine.tree
    assert {path.decode() for path in tree.nodes} == set(model.nodes)
    for path, node in model.nodes.items():
        assert machine.tree.nodes[path.encode()].stat == _packed(model.stat(path)), path
        assert Reader(machine.tree.nodes[path.encode()].data).read_buffer() == node.data
        assert tree.acl_of(tree.nodes[path.encode()].acl) == node.acl
        assert valid(path)
    assert tree.digest == tree.recompute_digest()
    assert tree.data_bytes == sum(len(p.encode()) + len(n.data or b"") for p, n in model.nodes.items())
    assert set(tree.reapable.values()) == {
        path.encode() for path, node in model.nodes.items() if node.is_container or node.ttl_ms
    }
    limits = {path for path in model.nodes if path.endswith("/zookeeper_limits")}
    assert {f"/zookeeper/quota{path.decode()}/zookeeper_limits" for path in tree.quotas} == limits - {
        "/zookeeper/quota/zookeeper_limits"
    }
    assert tree.ephemeral_count == sum(1 for node in model.nodes.values() if node.owner)


def _packed(stat: Stat) -> bytes:
    from coord.protocol.records import STAT

    return STAT.pack(*stat)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(STEPS, WHO), **LENGTH), st.integers(0, 40))
def test_a_replica_restored_on_the_way_stays_equal(
    history: list[tuple[tuple[Any, ...], Any]], restart_at: int
) -> None:
    """Replay, also from a checkpoint, is the same execution: tree, numbers, digest and answers are equal."""
    first, second = Machine(), Machine()
    for position, (step, who) in enumerate(history):
        if position == restart_at:
            facts, records = take_checkpoint(second.tree)
            second.tree = load(facts, records)
        answers = []
        for machine in (first, second):
            machine.identities = who[1]
            if step[0] == "pass":
                machine.context.wall_ms += step[1]
                answers.append((0, b"", []))
            elif step[0] == "reap":
                answers.append((machine.reap(step[1], step[2]), b"", machine.events))
            elif step[0] == "close_session":
                answers.append((machine.close_session(step[1]), b"", machine.events))
            elif step[0] == "create_session":
                body = encode_create_session(5_000, PASSWORD)
                answers.append((*machine.run(o.CREATE_SESSION, body, session_id=step[1]), machine.events))
            else:
                answers.append((*machine.run(*encode(step), session_id=who[0]), machine.events))
        assert answers[0] == answers[1]
        assert first.tree.state_digest() == second.tree.state_digest()
    assert dump(first.tree) == dump(second.tree)
    assert first.tree.sessions == second.tree.sessions
    assert first.tree.reapable == second.tree.reapable
    assert set(first.tree.quotas) == set(second.tree.quotas)
