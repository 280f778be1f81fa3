"""A chroot is invisible: a client below one sees what a client without sees on a tree of its own."""

from collections.abc import Awaitable, Callable

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import coord
from coord.protocol import opcodes
from coord.protocol.records import OPEN_ACL, encode_create
from tests.coord.client.fake_ensemble import FakeEnsemble

CHROOT = "/c/r"
Step = Callable[[coord.Client], Awaitable[object]]

paths = st.lists(st.sampled_from(["t", "u"]), min_size=1, max_size=3).map(
    lambda parts: "/t/" + "/".join(parts)
)
data = st.binary(max_size=3)
versions = st.integers(-1, 2)
operations = st.one_of(
    st.builds(coord.Create, paths, data, st.booleans(), st.booleans(), with_stat=st.booleans()),
    st.builds(coord.SetData, paths, data, versions),
    st.builds(coord.Delete, paths, versions),
    st.builds(coord.Check, paths, versions),
)
reads = st.one_of(st.builds(coord.GetData, paths), st.builds(coord.GetChildren, paths))


async def walk(zk: coord.Client) -> list[str]:
    return [path async for path in coord.walk(zk, "/t")]


steps = st.one_of(
    st.builds(lambda *a: lambda zk: zk.create(a[0], a[1], ephemeral=a[2], sequential=a[3]),
              paths, data, st.booleans(), st.booleans()),
    st.builds(lambda path: lambda zk: zk.create_with_stat(path, container=True), paths),
    st.builds(lambda *a: lambda zk: zk.set(*a), paths, data, versions),
    st.builds(lambda *a: lambda zk: zk.delete(*a), paths, versions),
    st.builds(lambda path: lambda zk: zk.get(path), paths),
    st.builds(lambda path: lambda zk: zk.exists(path, linearizable=True), paths),
    st.builds(lambda path: lambda zk: zk.get_children_and_stat(path), paths),
    st.builds(lambda path: lambda zk: zk.get_all_children_number(path), paths),
    st.builds(lambda path: lambda zk: zk.get_ephemerals(path), paths),
    st.builds(lambda path: lambda zk: zk.get_acl(path), paths),
    st.builds(lambda path: lambda zk: zk.set_acl(path, coord.READ_ACL), paths),
    st.builds(lambda path: lambda zk: zk.sync(path), paths),
    st.builds(lambda path: lambda zk: zk.check_watches(path), paths),
    st.builds(lambda ops: lambda zk: zk.multi(ops), st.lists(operations, max_size=4)),
    st.builds(lambda ops: lambda zk: zk.multi_read(ops), st.lists(reads, max_size=4)),
    st.just(walk),
)  # fmt: skip


def shown(value: object) -> object:
    """Errors compare by class, path and place."""
    if isinstance(value, coord.CoordError):
        return type(value), value.path, value.index, str(value)
    if isinstance(value, list):
        return [shown(one) for one in value]
    return value


async def play(hosts: str, script: list[Step]) -> list[object]:
    """The outcomes of a script, and the events that it made."""
    fake = FakeEnsemble()
    for path in ("/c", CHROOT):
        fake.change(opcodes.CREATE, encode_create(path, b"", OPEN_ACL, 0))
    outcomes: list[object] = []
    async with fake.connect(hosts) as zk:
        await zk.create("/t")
        async with zk.add_watch("/t", recursive=True) as events, zk.watch("/t/t") as state:
            outcomes.append(await anext(state))
            for step in script:
                try:
                    outcomes.append(shown(await step(zk)))
                except coord.CoordError as error:
                    outcomes.append(shown(error))
            await zk.create("/t/last")
            while (event := await anext(events)).path != "/t/last":
                outcomes.append(event)
            outcomes.append((state.stat, await zk.get_ephemerals(), await walk(zk)))
    return outcomes


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=15))
async def test_a_chroot_is_invisible(script: list[Step]) -> None:
    with trio.fail_after(30):
        assert await play(f"a:1{CHROOT}", script) == await play("a:1", script)
