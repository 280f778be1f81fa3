"""Elections: one leads, the next takes over, no candidature stays behind."""

import random

import pytest
import trio

import coord
from coord.protocol import opcodes
from coord.protocol.records import OPEN_ACL, encode_create, encode_path_version
from tests.coord.client.fake_ensemble import FakeEnsemble


@pytest.fixture
def fake() -> FakeEnsemble:
    return FakeEnsemble()


async def test_candidates_lead_one_after_the_other(fake: FakeEnsemble) -> None:
    leading: list[str] = []
    tokens: list[int] = []

    async def stand(name: str) -> None:
        async with fake.connect() as zk, coord.lead(zk, "/election", name.encode()) as leadership:
            leading.append(name)
            tokens.append(leadership.token)
            await trio.testing.wait_all_tasks_blocked()
            assert leading[-1] == name
            assert (await zk.get(leadership.path))[0] == name.encode()

    async with trio.open_nursery() as nursery:
        for name in ("anna", "ben", "carla"):
            nursery.start_soon(stand, name)
    assert sorted(leading) == ["anna", "ben", "carla"]
    assert tokens == sorted(set(tokens))
    assert fake.children("/election") == []


async def test_a_leader_s_death_wakes_only_the_next(fake: FakeEnsemble) -> None:
    async with fake.connect() as first, fake.connect() as second, fake.connect() as third:
        leading: list[int] = []

        async def stand(number: int, zk: coord.Client) -> None:
            try:
                async with coord.lead(zk, "/election"):
                    leading.append(number)
                    await zk.expired.wait()
            except coord.SessionExpiredError:
                pass

        async with trio.open_nursery() as nursery:
            for number, zk in enumerate((first, second, third)):
                nursery.start_soon(stand, number, zk)
                await trio.testing.wait_all_tasks_blocked()
            assert leading == [0]
            before = fake.served[opcodes.GET_CHILDREN2]
            fake.expire(first.session_id)
            await trio.testing.wait_all_tasks_blocked()
            assert leading == [0, 1]
            assert fake.served[opcodes.GET_CHILDREN2] == before + 1
            fake.expire(second.session_id)
            await trio.testing.wait_all_tasks_blocked()
            assert leading == [0, 1, 2]
            nursery.cancel_scope.cancel()
        assert fake.children("/election") == []


@pytest.mark.parametrize("executed", [True, False])
async def test_a_lost_answer_to_the_create_makes_one_candidate(fake: FakeEnsemble, executed: bool) -> None:
    async with fake.connect() as zk:
        await zk.create("/election")
        fake.lost_answers = {opcodes.CREATE: executed}
        async with coord.lead(zk, "/election", rng=random.Random(7)) as leadership:
            names = fake.children("/election")
            assert [f"/election/{name}" for name in names] == [leadership.path]
        assert fake.children("/election") == []


async def test_a_leader_cancelled_resigns_while_its_session_goes_on(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        with trio.CancelScope() as scope:
            async with coord.lead(zk, "/election"):
                scope.cancel()
                await trio.sleep_forever()
        assert fake.children("/election") == []
        assert await zk.get_children("/election") == []


async def test_a_candidate_cancelled_before_its_create_was_answered_leaves_no_node(
    fake: FakeEnsemble,
) -> None:
    """It would lead for ever, as its session lives, and nobody would know."""
    async with fake.connect() as zk, trio.open_nursery() as nursery:
        await zk.create("/election")
        fake.holding = True
        scope = trio.CancelScope()

        async def stand() -> None:
            with scope:
                async with coord.lead(zk, "/election"):
                    raise AssertionError("nobody can lead here")

        nursery.start_soon(stand)
        await trio.testing.wait_all_tasks_blocked()
        assert len(fake.children("/election")) == 1
        scope.cancel()
        fake.release()
        await trio.testing.wait_all_tasks_blocked()
        assert fake.children("/election") == []


async def test_a_waiting_candidate_that_is_cancelled_withdraws(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk, fake.connect() as other, coord.lead(zk, "/election"):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def stand() -> None:
                    async with coord.lead(other, "/election"):
                        raise AssertionError("the first leads")

                nursery.start_soon(stand)
                await trio.testing.wait_all_tasks_blocked()
                assert len(fake.children("/election")) == 2
                scope.cancel()
        assert len(fake.children("/election")) == 1


async def test_a_resignation_goes_on_after_a_lost_connection(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        async with coord.lead(zk, "/election"):
            fake.lost_answers = {opcodes.DELETE: True}
        assert fake.children("/election") == []


async def test_a_candidate_waits_through_an_outage(
    fake: FakeEnsemble, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.connect(session_timeout_ms=3000) as zk, fake.connect(session_timeout_ms=3000) as other:
        led = trio.Event()

        async def stand() -> None:
            async with coord.lead(other, "/election"):
                led.set()

        async with trio.open_nursery() as nursery:
            async with coord.lead(zk, "/election"):
                nursery.start_soon(stand)
                await trio.testing.wait_all_tasks_blocked(0.001)
                fake.refusing = {1, 2, 3}
                fake.cut_all()
                await trio.sleep(10)
                assert not led.is_set()
                fake.refusing = set()
                await trio.sleep(5)
            with trio.fail_after(10):
                await led.wait()


async def test_a_candidate_whose_node_was_deleted_is_told(fake: FakeEnsemble) -> None:
    async def stand(zk: coord.Client) -> None:
        with pytest.raises(coord.NoNodeError, match="deleted by somebody else"):
            async with coord.lead(zk, "/election"):
                pass

    async with (
        fake.connect() as zk,
        fake.connect() as other,
        coord.lead(zk, "/election") as leadership,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(stand, other)
        await trio.testing.wait_all_tasks_blocked()
        (name,) = set(fake.children("/election")) - {leadership.path.rpartition("/")[2]}
        fake.change(opcodes.DELETE, encode_path_version(f"/election/{name}", -1))
        fake.change(opcodes.DELETE, encode_path_version(leadership.path, -1))


async def test_kazoo_s_contenders_stand_in_the_same_order(fake: FakeEnsemble) -> None:
    """kazoo's lock names its nodes uuid + __lock__ + number."""
    async with fake.connect() as zk:
        await zk.create("/election")
        flags = opcodes.FLAG_EPHEMERAL | opcodes.FLAG_SEQUENTIAL
        prefix = "/election/" + "f" * 32 + "__lock__"
        fake.change(opcodes.CREATE, encode_create(prefix, b"", OPEN_ACL, flags))
        led = False

        async def stand() -> None:
            nonlocal led
            async with coord.lead(zk, "/election"):
                led = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stand)
            await trio.testing.wait_all_tasks_blocked()
            assert not led
            fake.change(opcodes.DELETE, encode_path_version(prefix + "0000000000", -1))
        assert led


async def test_paths_are_made_with_their_ancestors(fake: FakeEnsemble) -> None:
    async with fake.connect() as zk:
        await coord.ensure_path(zk, "/a/b/c")
        await coord.ensure_path(zk, "/a/b/c")
        await coord.ensure_path(zk, "/")
        assert fake.children("/a/b") == ["c"]
        fake.lost_answers = {opcodes.CREATE: True}
        await coord.ensure_path(zk, "/a/b/d/e")
        assert fake.children("/a/b/d") == ["e"]


async def test_a_chroot_of_one_part_can_be_made_from_inside(fake: FakeEnsemble) -> None:
    async with fake.connect("a:1/app") as zk:
        await coord.ensure_path(zk, "/x")
        assert fake.children("/app") == ["x"]
