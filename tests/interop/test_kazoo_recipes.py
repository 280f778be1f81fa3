"""Every recipe of kazoo's, its users at different servers of an ensemble of ours."""

import datetime
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import CancelledError, LockTimeout
from kazoo.recipe.lease import MultiNonBlockingLease, NonBlockingLease

from tests.coord_servers import CoordServers, wait_for
from tests.interop.conftest import MakeClient

pytestmark = pytest.mark.interop
WAIT_S = 60.0
SHORT_S = 0.2
"""How long it is watched that nothing happens; a server that is wrong is seen at once."""

Background = Callable[..., "Future[object]"]


@pytest.fixture
def clients(ensemble: CoordServers, make_client: MakeClient) -> list[KazooClient]:
    """One at each server."""
    return [make_client(server.address, timeout=10.0) for server in ensemble.servers]


@pytest.fixture
def root(clients: list[KazooClient]) -> str:
    """A path that is not there yet."""
    return f"/r-{secrets.token_hex(6)}"


@pytest.fixture
def background() -> Iterator[Background]:
    with ThreadPoolExecutor() as threads:
        yield threads.submit


def test_a_lock_is_held_by_one_and_handed_on_in_order(
    clients: list[KazooClient], root: str, background: Background
) -> None:
    locks = [client.Lock(root, f"c{number}") for number, client in enumerate(clients)]
    assert locks[0].acquire(timeout=WAIT_S)
    order: list[int] = []

    def take(number: int) -> None:
        with locks[number]:
            order.append(number)

    waiting = []
    for number in (1, 2):
        waiting.append(background(take, number))
        wait_for(lambda: len(locks[0].contenders()) == number + 1, "it stands in the queue", WAIT_S)  # noqa: B023
    assert locks[0].contenders() == ["c0", "c1", "c2"]
    assert order == []
    locks[0].release()
    for one in waiting:
        one.result(WAIT_S)
    assert order == [1, 2]


def test_a_lock_gives_up_waiting_and_can_be_cancelled(
    clients: list[KazooClient], root: str, background: Background
) -> None:
    first, second = clients[0].Lock(root), clients[1].Lock(root)
    first.acquire(timeout=WAIT_S)
    with pytest.raises(LockTimeout):
        second.acquire(timeout=SHORT_S)
    assert not second.acquire(blocking=False)
    clients[0].sync(root)  # else it may still see the node of that attempt
    waiting = background(second.acquire)
    wait_for(lambda: len(clients[0].get_children(root)) == 2, "it waits", WAIT_S)
    second.cancel()
    with pytest.raises(CancelledError):
        waiting.result(WAIT_S)
    first.release()


def test_a_lock_of_a_session_that_ended_is_free(clients: list[KazooClient], root: str) -> None:
    assert clients[0].Lock(root).acquire(timeout=WAIT_S)
    clients[0].stop()
    assert clients[1].Lock(root).acquire(timeout=WAIT_S)


def test_readers_share_and_a_writer_is_alone(
    clients: list[KazooClient], root: str, background: Background
) -> None:
    readers = [client.ReadLock(root) for client in clients[:2]]
    writer = clients[2].WriteLock(root)
    assert all(reader.acquire(timeout=WAIT_S) for reader in readers)
    waiting = background(writer.acquire)
    wait_for(lambda: len(clients[0].get_children(root)) == 3, "the writer waits", WAIT_S)
    late = clients[0].ReadLock(root)
    assert not late.acquire(blocking=False)
    for reader in readers:
        assert not waiting.done()
        reader.release()
    assert waiting.result(WAIT_S)
    assert not late.acquire(blocking=False)
    writer.release()


def test_a_semaphore_has_as_many_leases_as_it_says(
    clients: list[KazooClient], root: str, background: Background
) -> None:
    one, two, three = (client.Semaphore(root, max_leases=2) for client in clients)
    assert one.acquire(timeout=WAIT_S)
    assert two.acquire(timeout=WAIT_S)
    assert not three.acquire(blocking=False)
    waiting = background(three.acquire)
    one.release()
    assert waiting.result(WAIT_S)
    wait_for(lambda: len(two.lease_holders()) == 2, "two holders", WAIT_S)
    with pytest.raises(ValueError, match="max leases"):
        clients[0].Semaphore(root, max_leases=3).acquire(blocking=False)


def test_an_election_has_one_leader_at_a_time(
    clients: list[KazooClient], root: str, background: Background
) -> None:
    inside, led = threading.Semaphore(1), []

    def lead(number: int) -> None:
        assert inside.acquire(blocking=False), "two lead"
        led.append(number)
        inside.release()

    elections = [client.Election(root, f"c{number}") for number, client in enumerate(clients)]
    running = [background(election.run, lead, number) for number, election in enumerate(elections)]
    for one in running:
        one.result(WAIT_S)
    assert sorted(led) == [0, 1, 2]
    clients[0].sync(root)
    assert elections[0].contenders() == []


def test_a_queue_gives_by_priority_and_then_by_age(clients: list[KazooClient], root: str) -> None:
    producer, consumer = clients[0].Queue(root), clients[1].Queue(root)
    for value, priority in ((b"late", 200), (b"first", 100), (b"second", 100)):
        producer.put(value, priority=priority)
    clients[1].sync(root)
    assert len(consumer) == 3
    assert [consumer.get() for _ in range(4)] == [b"first", b"second", b"late", None]


def test_each_entry_of_a_queue_is_taken_once(
    clients: list[KazooClient], root: str, background: Background
) -> None:
    producer = clients[0].Queue(root)
    for number in range(60):
        producer.put(b"%d" % number)

    def drain(client: KazooClient) -> list[bytes]:
        client.sync(root)
        own, taken = client.Queue(root), []
        while (value := own.get()) is not None:
            taken.append(value)
        return taken

    parts = [one.result(WAIT_S) for one in [background(drain, client) for client in clients]]
    assert sorted(value for part in parts for value in part) == sorted(b"%d" % n for n in range(60))


def test_a_locking_queue_keeps_what_is_not_consumed(clients: list[KazooClient], root: str) -> None:
    first, second = clients[0].LockingQueue(root), clients[1].LockingQueue(root)
    first.put_all([b"a", b"b"], priority=50)
    assert first.get(timeout=WAIT_S) == b"a"
    assert first.holds_lock()
    assert second.get(timeout=WAIT_S) == b"b"
    assert second.consume()
    assert first.release()
    assert second.get(timeout=WAIT_S) == b"a"
    assert second.consume()
    assert not second.consume()
    clients[0].sync(root)
    assert len(first) == 0


def test_a_barrier_holds_until_it_is_removed(
    clients: list[KazooClient], root: str, background: Background
) -> None:
    barrier, other = clients[0].Barrier(root), clients[1].Barrier(root)
    barrier.create()
    clients[1].sync(root)
    assert not other.wait(SHORT_S)
    waiting = background(other.wait, WAIT_S)
    assert barrier.remove()
    assert waiting.result(WAIT_S)
    assert not barrier.remove()


def test_a_double_barrier_is_entered_and_left_together(
    clients: list[KazooClient], root: str, background: Background
) -> None:
    barriers = [client.DoubleBarrier(root, num_clients=3) for client in clients]
    entering = [background(barrier.enter) for barrier in barriers[:2]]
    wait_for(lambda: len(clients[2].get_children(root)) >= 2 if clients[2].exists(root) else False, "two")
    assert not any(one.done() for one in entering)
    barriers[2].enter()
    for one in entering:
        one.result(WAIT_S)
    leaving = [background(barrier.leave) for barrier in barriers]
    for one in leaving:
        one.result(WAIT_S)
    assert not any(barrier.participating for barrier in barriers)


def test_a_counter_loses_no_change(clients: list[KazooClient], root: str, background: Background) -> None:
    def count(client: KazooClient) -> None:
        counter = client.Counter(root)
        for _ in range(20):
            counter += 2
            counter -= 1

    for one in [background(count, client) for client in clients]:
        one.result(2 * WAIT_S)
    clients[0].sync(root)
    assert clients[0].Counter(root).value == 60
    assert clients[0].Counter(f"{root}-float", default=1.5).value == 1.5
    curators = clients[0].Counter(f"{root}-curator", support_curator=True)
    curators += 7
    assert clients[0].get(f"{root}-curator")[0] == b"\0\0\0\7"


@pytest.mark.parametrize("kind", ["Party", "ShallowParty"])
def test_a_party_knows_who_is_there(clients: list[KazooClient], root: str, kind: str) -> None:
    parties = [getattr(client, kind)(root, f"c{number}") for number, client in enumerate(clients)]
    for party in parties:
        party.join()
    clients[0].sync(root)
    assert sorted(parties[0]) == ["c0", "c1", "c2"]
    parties[1].leave()
    clients[2].stop()
    wait_for(lambda: list(parties[0]) == ["c0"], "two have left", WAIT_S)
    assert len(parties[0]) == 1


def test_a_lease_is_held_by_one_until_it_runs_out(clients: list[KazooClient], root: str) -> None:
    hour, now = datetime.timedelta(hours=1), datetime.datetime(2026, 1, 1)

    def lease(number: int, at: datetime.datetime) -> NonBlockingLease:
        clients[number].sync(root)
        return clients[number].NonBlockingLease(root, hour, identifier=f"c{number}", utcnow=lambda: at)

    assert lease(0, now)
    assert not lease(1, now + hour / 2)
    assert lease(0, now + hour / 2)
    assert lease(1, now + 2 * hour)


def test_several_leases_may_be_held_at_once(clients: list[KazooClient], root: str) -> None:
    hour, now = datetime.timedelta(hours=1), datetime.datetime(2026, 1, 1)

    def lease(number: int) -> MultiNonBlockingLease:
        clients[number].sync(root)
        return clients[number].MultiNonBlockingLease(
            2, root, hour, identifier=f"c{number}", utcnow=lambda: now
        )

    assert [bool(lease(number)) for number in range(3)] == [True, True, False]


def test_a_set_is_partitioned_among_its_members(
    clients: list[KazooClient], root: str, background: Background
) -> None:
    whole = tuple(range(9))

    def partition(number: int) -> object:
        return clients[number].SetPartitioner(
            root, whole, identifier=f"c{number}", time_boundary=0.3, max_reaction_time=0.1
        )

    partitioners = [one.result(WAIT_S) for one in [background(partition, number) for number in range(3)]]

    def settle(members: int) -> None:
        """Until all have a part, and the parts are the whole."""

        def step() -> bool:
            for partitioner in partitioners[:members]:
                if partitioner.release:
                    partitioner.release_set()
                elif partitioner.allocating:
                    partitioner.wait_for_acquire(0.05)
            return all(one.acquired for one in partitioners[:members]) and sorted(
                item for one in partitioners[:members] for item in one
            ) == list(whole)

        wait_for(step, f"{members} members share the set", 2 * WAIT_S)

    settle(3)
    assert [len(list(one)) for one in partitioners] == [3, 3, 3]
    partitioners[2].finish()
    settle(2)
    for partitioner in partitioners[:2]:
        partitioner.finish()
