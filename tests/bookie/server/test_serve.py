"""A bookie's life: first start, restart, registration, read-only, garbage, refusals (spec 10, 11)."""

import contextlib
import errno

import lmdb
import pytest
import trio

from bookie.ledger import layout
from bookie.ledger.layout import Registration
from bookie.ledger.wire import Code, Fence, ListLedgers, ReadLac
from bookie.server import IdentityError, serve
from bookie.server.garbage import collect_garbage
from bookie.storage import StoreDamagedError
from bookie.storage.index import Index
from coord import rpc
from coord.disk import DiskLockedError, RealDisk
from tests.bookie.server.conftest import KEY, DiskFailedError, Node, add, link_to, read

COMMIT = Index.commit


async def wait_until(condition) -> None:
    """In real time: a clock that jumps would run ahead of the threads that write log and index."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110  # what is waited for tells nobody
            await trio.sleep(0.01)


@contextlib.contextmanager
def alone(*kinds):
    """The one failure that comes out of nurseries."""
    caught: list[BaseException] = []
    try:
        yield caught
    except BaseException as error:
        while isinstance(error, BaseExceptionGroup):
            (error,) = error.exceptions
        if not isinstance(error, kinds):
            raise
        caught.append(error)
    assert caught


async def test_a_new_bookie_lays_out_the_tree_and_registers(cluster):
    async with cluster.bookie() as bookie:
        nodes = cluster.service.nodes
        for path in (layout.LAYOUT, layout.INSTANCE_ID, layout.ID_GENERATOR, layout.UNDERREPLICATION):
            assert path in nodes
        registered = nodes[layout.available_path(bookie.bookie_id)]
        assert Registration.decode(registered.data) == Registration(
            bookie.host, bookie.port, bookie.incarnation
        )
        assert registered.ephemeral_owner
    assert layout.available_path(bookie.bookie_id) not in nodes
    assert layout.cookie_path(bookie.bookie_id) in nodes


async def test_a_restart_keeps_identity_and_data(cluster):
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        await add(link, 1, 0, [b"a", b"b"])
        await link.call(Fence(2, KEY, -1))
    async with cluster.bookie() as again, link_to(again) as link:
        assert (again.bookie_id, again.incarnation) == (bookie.bookie_id, bookie.incarnation)
        assert (await read(link, 1, 0, 1))[1] == [b"a", b"b"]
        assert (await link.call(ReadLac(2))).message.fenced


async def test_a_bookie_without_id_takes_its_address_or_a_name_of_its_own(cluster):
    async with cluster.bookie("x") as bookie:
        assert bookie.bookie_id.startswith("bookie-")
    async with cluster.bookie("y", bookie_id="why") as bookie:
        assert bookie.bookie_id == "why"


async def test_an_emptied_directory_is_refused(cluster):
    """R-I1: it would deny what it acknowledged."""
    async with cluster.bookie("b1", bookie_id="one"):
        pass
    with alone(IdentityError):
        async with cluster.bookie("empty", bookie_id="one"):
            pass


async def test_another_cluster_is_refused(cluster):
    async with cluster.bookie():
        pass
    cluster.service.nodes[layout.INSTANCE_ID].data = b"formatted-again"
    with alone(IdentityError):
        async with cluster.bookie():
            pass


async def test_a_directory_serves_one_process(cluster):
    async with cluster.bookie():
        with alone(DiskLockedError):
            async with cluster.bookie():
                pass


async def test_lost_segments_are_refused(cluster):
    """9.5, R-B9."""
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        await add(link, 1, 0, [b"a"])
    for path in (cluster.directory / "b1" / "segments").iterdir():
        path.unlink()
    with alone(StoreDamagedError):
        async with cluster.bookie():
            pass


async def test_a_half_made_tree_is_refused(cluster):
    """A second id generator would give ids away again."""
    async with cluster.bookie():
        pass
    del cluster.service.nodes[layout.INSTANCE_ID]
    with alone(IdentityError):
        async with cluster.bookie():
            pass
    assert layout.INSTANCE_ID not in cluster.service.nodes


async def test_the_session_of_the_previous_life_is_closed_first(cluster):
    """DESIGN 5: a restart does not wait for its own old ephemeral."""
    async with cluster.bookie() as bookie:
        pass
    old = cluster.service.connect()
    zk = await old.__aenter__()
    path = layout.available_path(bookie.bookie_id)
    await zk.create(path, b"old life", ephemeral=True)
    saved = RealDisk()
    from coord.disk import SavedSession, SessionFile

    SessionFile(saved, str(cluster.directory / "b1")).save(SavedSession(zk.session_id, zk.session_password))
    async with cluster.bookie():
        assert cluster.service.nodes[path].data != b"old life"
        assert zk.expired.is_set()
    await old.__aexit__(None, None, None)


async def test_an_expired_session_is_followed_by_a_new_registration(cluster, monkeypatch):
    """11.4: connections are served meanwhile."""
    monkeypatch.setattr("bookie.server.registration.RETRY_S", 0.01)
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        path = layout.available_path(bookie.bookie_id)
        owner = cluster.service.nodes[path].ephemeral_owner
        cluster.service.end(owner)
        assert path not in cluster.service.nodes
        assert (await add(link, 1, 0, [b"a"])).runs == ((0, 0, 0),)
        await wait_until(lambda: path in cluster.service.nodes)
        assert cluster.service.nodes[path].ephemeral_owner != owner


async def test_a_bookie_on_a_full_disk_is_in_the_read_only_list(cluster):
    """11.3, R-B11: never in neither list."""
    async with (
        cluster.bookie(disk_free_bytes_min=1 << 62, disk_reserve_bytes=0) as bookie,
        link_to(bookie) as link,
    ):
        nodes = cluster.service.nodes
        assert layout.readonly_path(bookie.bookie_id) in nodes
        assert layout.available_path(bookie.bookie_id) not in nodes
        with pytest.raises(rpc.RemoteError) as error:
            await add(link, 1, 0, [b"a"])
        assert error.value.code == Code.READ_ONLY
        await link.call(Fence(1, KEY, -1))
        assert (await add(link, 1, 0, [b"a"], flags=1)).runs == ((0, 0, 0),)


async def test_checkpoints_come_by_time_and_free_segments(cluster):
    """9.4, 11.1: what is deleted goes with the next checkpoints, and its segments after it."""
    settings = {"checkpoint_interval_ms": 20, "segment_bytes_max": 20_000, "gc_interval_ms": 50}
    nodes = cluster.service.nodes
    async with cluster.bookie(**settings) as bookie, link_to(bookie) as link:
        for path in (*layout.parent_paths(1), layout.ledger_path(1)):
            nodes[path] = Node(b"")
        for entry_id in range(20):
            await add(link, 1, entry_id, [b"x" * 5000])
        begun = bookie.store.checkpoints
        await add(link, 1, 20, [b"x" * 5000])
        await wait_until(lambda: bookie.store.checkpoints > begun)
        assert (await read(link, 1, 0, 20))[1] == [b"x" * 5000] * 21
        before = len(bookie.store.log.segments())
        del nodes[layout.ledger_path(1)]
        await wait_until(lambda: len(bookie.store.log.segments()) < before)
        with pytest.raises(rpc.RemoteError) as error:
            await link.call(ReadLac(1))
        assert error.value.code == Code.NO_LEDGER


async def test_an_index_that_cannot_be_written_stops_the_bookie(cluster, monkeypatch):
    """R-J1: what a failed commit left behind cannot be told."""
    monkeypatch.setattr("bookie.storage.index.Index.commit", fail_to_commit)
    with alone(DiskFailedError):
        async with cluster.bookie(checkpoint_interval_ms=20) as bookie, link_to(bookie) as link:
            await add(link, 1, 0, [b"a"])
            await trio.sleep_forever()


def fail_to_commit(index, changes, **options):
    if changes.mark.offset > 1024:  # not the checkpoint of the start
        raise lmdb.DiskError("injected")
    return COMMIT(index, changes, **options)


async def test_an_index_that_cannot_forget_segments_stops_the_bookie(cluster, monkeypatch):
    """R-J1, as for a checkpoint."""

    def fail(index, numbers):
        raise lmdb.DiskError("injected")

    monkeypatch.setattr("bookie.storage.index.Index.forget_segments", fail)
    with alone(DiskFailedError):
        settings = {"checkpoint_interval_ms": 20, "segment_bytes_max": 2048}
        async with cluster.bookie(**settings) as bookie, link_to(bookie) as link:
            for entry_id in range(3):
                await add(link, 1, entry_id, [b"a" * 1500])
            bookie.store.delete(1)
            bookie.store.flush()
            await trio.sleep_forever()


class TestGarbage:
    async def make(self, cluster, link, count=3):
        for ledger_id in range(count):
            await add(link, ledger_id, 0, [b"x"])
        async with cluster.service.connect() as zk:
            for ledger_id in range(count):
                for path in layout.parent_paths(ledger_id):
                    if path not in cluster.service.nodes:
                        await zk.create(path, b"")
                await zk.create(layout.ledger_path(ledger_id), b"record")

    async def collect(self, cluster, bookie):
        instance = cluster.service.nodes[layout.INSTANCE_ID].data.decode()
        async with cluster.service.connect() as zk:
            report = await collect_garbage(bookie.store, zk, instance, reads_per_s=1_000_000)
        bookie.store.flush()
        return report

    async def test_only_ledgers_gone_from_the_metadata_are_dropped(self, cluster):
        """11.1, R-G1, R-G2: after a sync."""
        async with cluster.bookie() as bookie, link_to(bookie) as link:
            await self.make(cluster, link)
            del cluster.service.nodes[layout.ledger_path(1)]
            report = await self.collect(cluster, bookie)
            assert report.deleted == (1,)
            assert cluster.service.syncs > 0
            assert (await link.call(ListLedgers())).message.ledger_ids == (0, 2)
            with pytest.raises(rpc.RemoteError) as error:
                await add(link, 1, 1, [b"late"])
            assert error.value.code == Code.FENCED

    async def test_another_cluster_deletes_nothing(self, cluster):
        """R-G4."""
        async with cluster.bookie() as bookie, link_to(bookie) as link:
            await self.make(cluster, link)
            async with cluster.service.connect() as zk:
                report = await collect_garbage(bookie.store, zk, "another", reads_per_s=1_000_000)
            assert (report.deleted, bool(report.refused)) == ((), True)

    async def test_an_empty_listing_with_many_local_ledgers_deletes_nothing(self, cluster, monkeypatch):
        """R-G4."""
        monkeypatch.setattr("bookie.server.garbage.SUSPICIOUS_LEDGERS", 3)
        async with cluster.bookie() as bookie, link_to(bookie) as link:
            for ledger_id in range(3):
                await add(link, ledger_id, 0, [b"x"])
            report = await self.collect(cluster, bookie)
            assert (report.deleted, bool(report.refused)) == ((), True)
            assert (await link.call(ListLedgers())).message.ledger_ids == (0, 1, 2)


class FailingFile:
    """A file whose durable writes fail."""

    def __init__(self, file) -> None:
        self._file = file

    def __getattr__(self, name):
        return getattr(self._file, name)

    def pwrite_durable(self, parts, offset):
        raise OSError(errno.EIO, "injected")


class FailingDisk(RealDisk):
    """Segments opened after `failing` was set cannot be written."""

    failing = False

    def open(self, path, *, writable=True, create=False):
        file = super().open(path, writable=writable, create=create)
        return FailingOnDemand(self, file) if "segment." in path else file


class FailingOnDemand(FailingFile):
    def __init__(self, disk, file) -> None:
        super().__init__(file)
        self._disk = disk

    def pwrite_durable(self, parts, offset):
        if self._disk.failing:
            super().pwrite_durable(parts, offset)
        self._file.pwrite_durable(parts, offset)


class StoppedError(Exception):
    """Stands for the end of the process."""


def stop(error: BaseException):
    raise StoppedError(str(error))


async def test_a_failed_write_stops_the_bookie_without_an_answer(cluster):
    """R-J1, R-J3."""
    disk = FailingDisk()
    answers = []
    with alone(StoppedError):
        async with trio.open_nursery() as nursery:

            async def run(task_status) -> None:
                await serve(
                    cluster.config(),
                    connect=cluster.service.connect,
                    disk=disk,
                    on_disk_failure=stop,
                    task_status=task_status,
                )

            bookie = await nursery.start(run)
            async with link_to(bookie) as link:
                await add(link, 1, 0, [b"a"])
                disk.failing = True
                try:
                    answers.append(await add(link, 1, 1, [b"b"]))
                except rpc.LinkClosedError:
                    await trio.sleep_forever()
    assert answers == []
