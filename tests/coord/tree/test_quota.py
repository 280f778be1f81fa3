"""Quotas: spec chapter 12, 22.81. Every outcome here was seen on 3.9.5, but where a test says otherwise."""

import pytest

from coord.protocol import opcodes as o
from coord.protocol.jute import Reader, encode_buffer, encode_int
from coord.protocol.records import (
    OPEN_ACL,
    encode_create,
    encode_multi,
    encode_path_version,
    encode_set_data,
    read_stat,
)
from coord.tree.context import QuotaExcess
from coord.tree.policy import POLICY_EXTENDED_TYPES
from coord.tree.quota import Limits, Usage, parse_limits, parse_usage
from tests.coord.tree.machine import SESSION, SUPER, Machine, dump, load, take_checkpoint

QUOTA = "/zookeeper/quota"


@pytest.fixture
def machine() -> Machine:
    return Machine()


def limit(machine: Machine, path: str, text: bytes | None, *, stats: bool = True) -> None:
    """As setquota does it: the nodes on the way, the limits, the stats."""
    node = QUOTA
    for name in path.strip("/").split("/"):
        node += "/" + name
        assert machine.create(node) in (0, o.NODE_EXISTS)
    assert machine.create(node + "/zookeeper_limits", text) == 0
    if stats:
        assert machine.create(node + "/zookeeper_stats") == 0


def change_limits(machine: Machine, path: str, text: bytes | None) -> None:
    assert machine.set(f"{QUOTA}{path}/zookeeper_limits", text) == 0


def usage(machine: Machine, path: str) -> bytes | None:
    return machine.data(f"{QUOTA}{path}/zookeeper_stats")


# stats


def test_12_3_stats_are_computed_when_they_are_created_whatever_was_sent(machine: Machine) -> None:
    machine.create("/q", b"abc")
    machine.create("/q/a", b"12345")
    machine.create("/q/n", None)
    machine.create("/quite", b"another")
    limit(machine, "/q", b"count=5,bytes=20", stats=False)
    err, answer = machine.run(o.CREATE2, encode_create(QUOTA + "/q/zookeeper_stats", b"hello", OPEN_ACL, 0))
    reader = Reader(answer)
    reader.read_text()
    assert (err, read_stat(reader).data_length) == (0, 5)  # the reply's Stat is from before
    assert usage(machine, "/q") == b"count=3,bytes=8"
    assert machine.stat(QUOTA + "/q/zookeeper_stats").data_length == 15


def test_12_3_stats_without_limits_are_computed_and_then_left_alone(machine: Machine) -> None:
    machine.create("/u", b"123")
    machine.create(QUOTA + "/u")
    machine.create(QUOTA + "/u/zookeeper_stats", b"zz")
    assert usage(machine, "/u") == b"count=1,bytes=3"
    machine.create("/u/1", b"9")
    assert usage(machine, "/u") == b"count=1,bytes=3"


def test_12_3_a_quota_on_nothing_has_no_usage(machine: Machine) -> None:
    limit(machine, "/deep/er", b"count=9")
    assert usage(machine, "/deep/er") == b"count=0,bytes=0"


def test_12_4_usage_follows_every_create_set_and_delete_in_place(machine: Machine) -> None:
    machine.create("/q")
    limit(machine, "/q", b"count=-1,bytes=-1")
    before = machine.stat(QUOTA + "/q/zookeeper_stats")
    machine.create("/q/a", b"1234")
    assert usage(machine, "/q") == b"count=2,bytes=4"
    assert machine.events == [(o.NODE_CREATED, b"/q/a"), (o.NODE_CHILDREN_CHANGED, b"/q")]
    machine.created("/q/s-", b"12", flags=2)
    machine.create("/q/e", b"1", flags=1)
    assert usage(machine, "/q") == b"count=4,bytes=7"
    machine.set("/q/a", b"123456")
    assert machine.events == [(o.NODE_DATA_CHANGED, b"/q/a")]
    machine.set("/q", b"root")
    assert usage(machine, "/q") == b"count=4,bytes=13"
    machine.delete("/q/a")
    assert usage(machine, "/q") == b"count=3,bytes=7"
    machine.set("/q", None)
    machine.close_session(SESSION)
    assert usage(machine, "/q") == b"count=2,bytes=2"
    after = machine.stat(QUOTA + "/q/zookeeper_stats")
    assert after == before._replace(data_length=len("count=2,bytes=2"))


def test_12_4_ttl_nodes_and_containers_count_and_go(machine: Machine) -> None:
    machine.create("/q")
    limit(machine, "/q", b"count=-1")
    machine.create("/q/c", b"ab", op=o.CREATE_CONTAINER)
    machine.create_ttl("/q/t", 10)
    assert usage(machine, "/q") == b"count=3,bytes=2"
    machine.context.wall_ms += 11
    assert machine.reap("/q/t") == machine.reap("/q/c", 10) == 0
    assert usage(machine, "/q") == b"count=1,bytes=0"


def test_12_4_only_the_nearest_quota_is_charged(machine: Machine) -> None:
    for path in ("/q", "/q/a", "/q/ab"):
        machine.create(path)
    limit(machine, "/q", b"count=-1")
    limit(machine, "/q/a", b"count=-1")
    for path in ("/q/a/x", "/q/ab/x", "/q/a/x/y"):
        assert machine.create(path) == 0
    assert usage(machine, "/q/a") == b"count=3,bytes=0"
    assert usage(machine, "/q") == b"count=4,bytes=0"
    machine.delete("/q/a/x/y")
    assert usage(machine, "/q/a") == b"count=2,bytes=0"


def test_12_3_deleting_the_limits_ends_the_quota_and_leaves_its_usage(machine: Machine) -> None:
    machine.create("/q")
    limit(machine, "/q", b"countHardLimit=1")
    assert machine.create("/q/a") == o.QUOTA_EXCEEDED
    machine.delete(QUOTA + "/q/zookeeper_limits")
    assert machine.tree.quotas == {}
    assert machine.create("/q/a") == 0
    assert usage(machine, "/q") == b"count=1,bytes=0"
    machine.create(QUOTA + "/q/zookeeper_limits", b"countHardLimit=2")
    assert machine.create("/q/b") == 0  # by the stale usage there is room
    assert machine.create("/q/c") == o.QUOTA_EXCEEDED


def test_12_2_further_keys_of_the_usage_stay(machine: Machine) -> None:
    machine.create("/q")
    limit(machine, "/q", b"count=1")
    machine.set(QUOTA + "/q/zookeeper_stats", b"count=7,bytes=7=;zzz=1;byteHardLimit=4")
    machine.create("/q/2", b"99")
    assert usage(machine, "/q") == b"count=8,bytes=9=;byteHardLimit=4;zzz=1"
    machine.set(QUOTA + "/q/zookeeper_stats", b"")
    machine.create("/q/3", b"")
    assert usage(machine, "/q") == b"count=0,bytes=-1"


@pytest.mark.parametrize("where", ["enforced", "not enforced"])
def test_a_usage_that_cannot_be_read_is_left_as_it_is(where: str) -> None:
    """It would end the process of Apache's server where quotas are not enforced."""
    machine = Machine() if where == "enforced" else Machine(policy=0)
    machine.create("/q")
    machine.create("/q/a")
    limit(machine, "/q", b"count=1000")
    machine.set(QUOTA + "/q/zookeeper_stats", b"nonsense")
    assert machine.create("/q/b") == (o.MARSHALLING_ERROR if where == "enforced" else 0)
    assert machine.delete("/q/a") == 0
    assert usage(machine, "/q") == b"nonsense"


# limits


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        (b"count=-1,bytes=-1=;byteHardLimit=10;countHardLimit=4", (0, -125)),
        (b"countHardLimit=4", (0, -125)),
        (b"countHardLimit=0", (-125, -125)),
        (b"byteHardLimit=2", (0, 0)),
        (b"count=1,bytes=1", (0, 0)),
    ],
)
def test_22_81_a_hard_count_refuses_creates_and_a_soft_one_does_not(
    machine: Machine, text: bytes, answers: tuple[int, int]
) -> None:
    machine.create("/q")
    machine.create("/q/a")
    machine.create("/q/b")
    limit(machine, "/q", text)
    before = dump(machine.tree)
    assert (machine.create("/q/c"), machine.create("/q/d")) == answers
    if answers[0]:
        assert dump(machine.tree) == before
    assert machine.delete("/q/a") == 0


@pytest.mark.parametrize("flags", [1, 2, 3])
def test_22_81_ephemeral_and_sequential_creates_count(machine: Machine, flags: int) -> None:
    machine.create("/q")
    limit(machine, "/q", b"countHardLimit=1")
    assert machine.create("/q/x", flags=flags) == o.QUOTA_EXCEEDED
    change_limits(machine, "/q", b"countHardLimit=2")
    assert machine.created("/q/x", flags=flags) == ("/q/x" if flags == 1 else "/q/x0000000000")


def test_22_81_hard_bytes_refuse_what_leaves_the_total_above_even_if_it_shrinks(machine: Machine) -> None:
    machine.create("/q", b"12345")
    limit(machine, "/q", b"byteHardLimit=8")
    assert machine.create("/q/a", b"1234") == o.QUOTA_EXCEEDED
    assert machine.create("/q/a", b"123") == 0
    assert machine.create("/q/empty", b"") == 0
    assert machine.set("/q/a", b"1234") == o.QUOTA_EXCEEDED
    change_limits(machine, "/q", b"byteHardLimit=4")
    assert machine.set("/q/a", b"12") == o.QUOTA_EXCEEDED
    assert machine.set("/q/a", b"abc") == 0  # as large as before
    assert machine.set("/q", b"") == 0
    assert usage(machine, "/q") == b"count=3,bytes=3"


def test_12_5_the_quota_is_asked_after_the_nodes_and_before_the_version(machine: Machine) -> None:
    machine.create("/q")
    machine.create("/q/e", flags=1)
    limit(machine, "/q", b"byteHardLimit=0=;countHardLimit=1")
    assert machine.create("/q/e") == o.NODE_EXISTS
    assert machine.create("/q/e/k") == o.NO_CHILDREN_FOR_EPHEMERALS
    assert machine.set("/q/e", b"x", version=7) == o.QUOTA_EXCEEDED
    assert machine.set("/q/e", b"", version=7) == o.BAD_VERSION


def test_12_5_without_stats_nothing_is_refused(machine: Machine) -> None:
    machine.create("/q")
    limit(machine, "/q", b"countHardLimit=0", stats=False)
    assert machine.create("/q/a") == 0


def test_12_5_quotas_that_are_not_enforced_refuse_nothing() -> None:
    machine = Machine(policy=POLICY_EXTENDED_TYPES)
    machine.create("/q")
    limit(machine, "/q", b"byteHardLimit=0=;countHardLimit=0")
    assert machine.create("/q/a", b"x") == 0
    assert usage(machine, "/q") == b"count=2,bytes=1"
    change_limits(machine, "/q", b"nonsense")
    assert machine.create("/q/b", b"x") == 0


UNREADABLE = [
    *(b"abc", b"count=,bytes=3", b"count=5,bytes=", b"count=99999999999999999999", b",count=1", b"count= 5"),
    *(b"count=5,foo=x", b"bytes=1.5", b";;count=9", b"=", b"count=1,=,bytes=2", b"count=-", b"count=+-1"),
]


@pytest.mark.parametrize("text", [*UNREADABLE, None])
def test_12_5_limits_that_cannot_be_read_fail_the_writes_below(machine: Machine, text: bytes | None) -> None:
    machine.create("/q")
    limit(machine, "/q", b"count=1000")
    change_limits(machine, "/q", text)
    assert machine.create("/q/a", b"x") == o.MARSHALLING_ERROR
    assert machine.set("/q", b"") == o.MARSHALLING_ERROR
    assert machine.set("/q", b"", version=9) == o.MARSHALLING_ERROR
    assert machine.create("/other") == 0


def test_12_5_limits_that_cannot_be_read_refuse_a_multi_whole(machine: Machine) -> None:
    """As 3.9.5 does it; a limit that is reached is refused in its place."""
    machine.create("/q")
    limit(machine, "/q", b"count=1000")
    change_limits(machine, "/q", b"nonsense")
    body = encode_multi([(o.CREATE, encode_create("/q/a", b"", OPEN_ACL, 0))])
    assert machine.run(o.MULTI, body) == (o.MARSHALLING_ERROR, b"")


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (b"", Limits(-1, -1, -1, -1)),
        (b"count=5,bytes=10", Limits(5, 10, -1, -1)),
        (b"count=5,bytes=10=;byteHardLimit=20;countHardLimit=7", Limits(5, 10, 7, 20)),
        (b"count==5", Limits(-1, -1, -1, -1)),
        (b"count=5=7", Limits(5, -1, -1, -1)),
        (b"count=1,", Limits(1, -1, -1, -1)),
        (b"foo=3", Limits(-1, -1, -1, -1)),
        (b" count=5", Limits(-1, -1, -1, -1)),
        (b"count=+99,bytes=-7", Limits(99, -7, -1, -1)),
        (b"count=1,count=99", Limits(99, -1, -1, -1)),
        (b"count=9223372036854775807", Limits((1 << 63) - 1, -1, -1, -1)),
        (b"bytes=-9223372036854775808", Limits(-1, -(1 << 63), -1, -1)),
        (b"count=" + b"0" * 5000 + b"7", Limits(7, -1, -1, -1)),
        (b"count=1;;,bytes=2", Limits(1, 2, -1, -1)),
    ],
)
def test_12_2_the_texts_that_can_be_read(text: bytes, limits: Limits) -> None:
    assert parse_limits(encode_buffer(text)) == limits


def test_12_2_numbers_are_ascii_whatever_python_thinks_of_others() -> None:
    """Java reads them; which characters are digits must not depend on a library's version."""
    for text in ("count=\u0663", "count=5_000", "count=\uff11"):
        assert parse_limits(encode_buffer(text.encode())) is None


def test_usage_wraps_at_64_bits_and_can_still_be_read() -> None:
    largest = Usage((1 << 63) - 1, 0)
    wrapped = largest.changed(1, -1)
    assert wrapped == Usage(-(1 << 63), -1)
    assert parse_usage(encode_buffer(wrapped.text())) == wrapped


# multi


def item(path: str, data: bytes = b"") -> tuple[int, bytes]:
    return o.CREATE, encode_create(path, data, OPEN_ACL, 0)


def test_10_4_a_multi_is_judged_by_the_quotas_before_it(machine: Machine) -> None:
    machine.create("/q")
    limit(machine, "/q", b"countHardLimit=2")
    assert machine.multi(item("/q/1"), item("/q/2"), item("/q/3")) == ["/q/1", "/q/2", "/q/3"]
    assert usage(machine, "/q") == b"count=4,bytes=0"
    assert machine.multi(item("/x"), item("/q/4"), item("/y")) == [0, -125, -2]
    assert machine.create("/q/4") == o.QUOTA_EXCEEDED


def test_10_4_a_quota_that_a_multi_makes_binds_only_what_comes_after_it(machine: Machine) -> None:
    results = machine.multi(
        item("/r"),
        item(QUOTA + "/r"),
        item(QUOTA + "/r/zookeeper_limits", b"countHardLimit=1"),
        item(QUOTA + "/r/zookeeper_stats"),
        item("/r/a"),
        item("/r/b"),
    )
    assert results[-1] == "/r/b"
    assert usage(machine, "/r") == b"count=3,bytes=0"
    assert machine.create("/r/c") == o.QUOTA_EXCEEDED


def test_10_4_the_last_quota_binds_in_the_multi_that_removes_it(machine: Machine) -> None:
    machine.create("/q")
    limit(machine, "/q", b"countHardLimit=1")
    removal = (o.DELETE, encode_path_version(QUOTA + "/q/zookeeper_limits", -1))
    assert machine.multi(removal, item("/q/1")) == [0, o.QUOTA_EXCEEDED]
    write = (o.SET_DATA, encode_set_data("/q", b"data", -1))
    change_limits(machine, "/q", b"byteHardLimit=1")
    assert machine.multi(removal, write) == [0, o.QUOTA_EXCEEDED]
    assert machine.create("/q/1") == 0


def test_10_3_a_failed_multi_changes_no_quota(machine: Machine) -> None:
    machine.create("/q", b"1")
    machine.create("/q/a", b"22")
    limit(machine, "/q", b"countHardLimit=100")
    before, quotas = dump(machine.tree), dict(machine.tree.quotas)
    results = machine.multi(
        item("/q/b", b"333"),
        (o.SET_DATA, encode_set_data("/q/a", b"4444", -1)),
        (o.DELETE, encode_path_version("/q/a", -1)),
        (o.DELETE, encode_path_version(QUOTA + "/q/zookeeper_limits", -1)),
        item(QUOTA + "/n"),
        item(QUOTA + "/n/zookeeper_limits", b"count=1"),
        (o.CHECK, encode_path_version("/nowhere", -1)),
    )
    assert results[-1] == o.NO_NODE
    assert dump(machine.tree) == before
    assert machine.tree.quotas == quotas
    assert machine.tree.quotas_before == {}
    assert machine.tree.digest == machine.tree.recompute_digest()
    assert machine.create("/q/c") == 0
    assert usage(machine, "/q") == b"count=3,bytes=3"


# strange places


@pytest.mark.parametrize("name", ["zookeeper_stats", "zookeeper_limits"])
def test_12_4_the_root_can_have_no_quota(machine: Machine, name: str) -> None:
    """Either node ends the process of Apache's server."""
    assert machine.create(f"{QUOTA}/{name}", b"countHardLimit=0") == 0
    assert machine.data(f"{QUOTA}/{name}") == b"countHardLimit=0"
    assert machine.create("/anything") == 0
    assert machine.set("/", b"data") == 0
    assert machine.tree.quotas == {}
    assert machine.set(f"{QUOTA}/{name}", b"nonsense") == 0
    assert machine.create("/more") == 0
    assert machine.delete(f"{QUOTA}/{name}") == 0


def test_nodes_of_these_names_elsewhere_are_ordinary(machine: Machine) -> None:
    for parent in ("/zookeeper/quotas", "/a"):
        machine.create(parent)
        machine.create(parent + "/x")
        for name in ("zookeeper_limits", "zookeeper_stats"):
            assert machine.create(f"{parent}/x/{name}", b"countHardLimit=0") == 0
            assert machine.data(f"{parent}/x/{name}") == b"countHardLimit=0"
    assert machine.tree.quotas == {}


def test_a_quota_on_quotas_own_nodes_is_no_loop(machine: Machine) -> None:
    limit(machine, "/zookeeper", b"count=-1")
    machine.create(QUOTA + "/zookeeper/more", b"1")
    limits = parse_usage(encode_buffer(usage(machine, "/zookeeper")))
    assert limits is not None
    assert limits.count > 0
    assert machine.tree.digest == machine.tree.recompute_digest()


# the rest of the state


def test_22_81_a_restored_tree_has_the_same_quotas(machine: Machine) -> None:
    machine.create("/q")
    limit(machine, "/q", b"countHardLimit=2")
    limit(machine, "/deep/er", b"count=1", stats=False)
    machine.create(QUOTA + "/zookeeper_limits", b"count=1")
    facts, records = take_checkpoint(machine.tree)
    machine.tree = load(facts, records)
    assert set(machine.tree.quotas) == {b"/q", b"/deep/er"}
    assert machine.create("/q/a") == 0
    assert usage(machine, "/q") == b"count=2,bytes=0"
    assert machine.create("/q/b") == o.QUOTA_EXCEEDED


def test_every_excess_is_told_to_whoever_executes(machine: Machine) -> None:
    machine.create("/q")
    limit(machine, "/q", b"count=1,bytes=-1=;byteHardLimit=3")
    machine.create("/q/a")
    machine.create("/q/b", b"12")
    assert machine.context.excesses == {b"/q": QuotaExcess("count", 3, 1, False, 2)}
    machine.set("/q/b", b"1234")
    assert machine.context.excesses == {b"/q": QuotaExcess("bytes", 4, 3, True, 3)}


def test_13_plain_setdata_on_the_configuration_is_refused(machine: Machine) -> None:
    """Spec 24: Apache lets a super user write there without reconfiguring anything."""
    body = encode_set_data("/zookeeper/config", b"x", -1)
    assert machine.run(o.SET_DATA, body)[0] == o.NO_AUTH
    machine.identities = SUPER
    assert machine.run(o.SET_DATA, body)[0] == o.BAD_ARGUMENTS
    assert machine.set_acl("/zookeeper/config", OPEN_ACL) == 0
    machine.identities = ()
    assert machine.run(o.SET_DATA, body)[0] == o.BAD_ARGUMENTS
    assert machine.multi((o.SET_DATA, body)) == [o.BAD_ARGUMENTS]
    assert machine.run(o.SET_DATA, encode_buffer(b"/zookeeper/config") + encode_int(-1))[0] == -5
