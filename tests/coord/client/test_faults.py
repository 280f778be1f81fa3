"""The client under random faults: what it says about each outcome is true."""

import random

import pytest
import trio

import coord
from coord.protocol import opcodes
from tests.coord.client.fake_ensemble import FakeEnsemble


@pytest.mark.parametrize("seed", range(20))
async def test_acknowledged_happened_refused_did_not_and_only_lost_ones_are_unknown(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Sequential creates of several tasks, while connections break, answers get lost and servers refuse."""
    fake, chance = FakeEnsemble(), random.Random(seed)
    acknowledged: list[str] = []
    unknown = 0

    async def create(zk: coord.Client) -> None:
        nonlocal unknown
        for _ in range(30):
            try:
                acknowledged.append(await zk.create("/n-", sequential=True))
            except coord.CoordError as error:
                unknown += error.happened is None
            if chance.random() < 0.3:
                await trio.sleep(chance.random() / 10)

    async def disturb() -> None:
        while True:
            await trio.sleep(chance.random() / 5)
            match chance.randrange(4):
                case 0:
                    fake.cut_all()
                case 1:
                    fake.lost_answers[opcodes.CREATE] = chance.random() < 0.5
                case 2:
                    fake.refusing = set(chance.sample((1, 2, 3), chance.randrange(4)))
                case _:
                    fake.refusing = set()

    async with fake.connect(session_timeout_ms=3000) as zk, trio.open_nursery() as background:
        background.start_soon(disturb)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(create, zk)
        background.cancel_scope.cancel()
    present = {f"/{name}" for name in fake.children("/") if name.startswith("n-")}
    assert len(set(acknowledged)) == len(acknowledged)
    assert set(acknowledged) <= present
    assert len(present) <= len(acknowledged) + unknown
    assert fake.connections == []


@pytest.mark.parametrize("seed", range(10))
async def test_a_watch_ends_at_the_last_value_whatever_happens(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    fake, chance = FakeEnsemble(), random.Random(seed)
    async with fake.connect(session_timeout_ms=3000) as zk, fake.connect("w:9") as writer:
        await writer.create("/x", b"0")
        last = trio.Event()

        async def follow() -> None:
            versions: list[int] = []
            async with zk.watch("/x") as events:
                async for event in events:
                    assert event.stat is not None
                    versions.append(event.stat.version)
                    if event.stat.version == 100:
                        break
            assert versions == sorted(set(versions))
            last.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            for _ in range(100):
                await writer.set("/x", b"")
                if chance.random() < 0.3:
                    for connection in [one for one in fake.connections if one.port != 9]:
                        connection.cut()
                if chance.random() < 0.3:
                    await trio.sleep(chance.random())
            with trio.fail_after(60):
                await last.wait()


@pytest.mark.parametrize("seed", range(15))
async def test_a_mirror_of_a_tree_is_right_in_the_end_whatever_happens(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Who reads again behind a MISSED event, and else only follows events, knows the tree; also when the
    follower is slow for its buffer, and when a connection breaks while watches are being set again."""
    fake, chance = FakeEnsemble(), random.Random(seed)
    mirror: set[str] = set()
    followed = 0

    async def follow(zk: coord.Client, task_status: trio.TaskStatus[None]) -> None:
        nonlocal followed
        async with zk.add_watch("/t", recursive=True, buffer=5) as events:
            mirror.update([path async for path in coord.walk(zk, "/t")])
            task_status.started()
            async for event in events:
                followed += 1
                if event.kind is coord.EventKind.MISSED:
                    found = await read_all(zk)
                    mirror.clear()
                    mirror.update(found)
                elif event.kind is coord.EventKind.CREATED:
                    mirror.add(event.path)
                elif event.kind is coord.EventKind.DELETED:
                    mirror.discard(event.path)
                if chance.random() < 0.2:
                    await trio.sleep(chance.random() / 5)

    async def read_all(zk: coord.Client) -> list[str]:
        while True:
            try:
                return [path async for path in coord.walk(zk, "/t")]
            except (coord.ConnectionLossError, coord.NotConnectedError):
                continue

    def cut() -> None:
        for connection in [one for one in fake.connections if one.port != 9]:
            connection.cut()

    async with fake.connect(session_timeout_ms=3000) as zk, fake.connect("w:9") as writer:
        await writer.create("/t")
        async with trio.open_nursery() as nursery:
            await nursery.start(follow, zk)
            for number in range(150):
                if chance.random() < 0.6:
                    await coord.ensure_path(writer, f"/t/{chance.randrange(5)}/{number}")
                elif names := await writer.get_children("/t"):
                    await coord.delete_tree(writer, f"/t/{chance.choice(names)}")
                match chance.randrange(12):
                    case 0:
                        cut()
                    case 1:
                        fake.lost_answers[opcodes.SET_WATCHES2] = chance.random() < 0.5
                        cut()
                    case 2:
                        fake.refusing = set(chance.sample((1, 2, 3), chance.randrange(4)))
                    case 3:
                        fake.refusing = set()
                if chance.random() < 0.3:
                    await trio.sleep(chance.random() / 3)
            fake.refusing = set()
            fake.lost_answers = {}
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
        assert mirror == {path async for path in coord.walk(writer, "/t")}
        assert followed > 20


@pytest.mark.parametrize("seed", range(10))
async def test_never_two_leaders_whatever_happens(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    fake, chance = FakeEnsemble(), random.Random(seed)
    leading: set[int] = set()
    terms = 0

    async def stand(number: int) -> None:
        nonlocal terms
        async with fake.connect() as zk:
            for _ in range(5):
                with trio.move_on_after(chance.random() * 3):
                    async with coord.lead(zk, "/election"):
                        leading.add(number)
                        try:
                            assert leading == {number}
                            terms += 1
                            await trio.sleep(chance.random() / 2)
                        finally:
                            leading.discard(number)

    async def disturb() -> None:
        while True:
            await trio.sleep(chance.random() / 3)
            if chance.random() < 0.5:
                fake.cut_all()
            else:
                op = chance.choice((opcodes.CREATE, opcodes.DELETE, opcodes.GET_CHILDREN2, opcodes.EXISTS))
                fake.lost_answers[op] = chance.random() < 0.5

    async with trio.open_nursery() as background:
        background.start_soon(disturb)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(stand, number)
        background.cancel_scope.cancel()
    assert terms > 0
    assert fake.children("/election") == []
