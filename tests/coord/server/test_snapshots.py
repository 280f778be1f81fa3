"""Fetching a snapshot: whatever the other side does, one of the two calls back follows (spec 20.5)."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from coord.disk import RealDisk
from coord.server.greeting import LinkIdentity
from coord.server.links import PeerLinks
from coord.server.snapshots import SnapshotFetcher
from coord.server.tree_kind import TreeKind
from coord.storage import DataDirectory, Installed, LmdbEnvironments, open_data_directory
from coord.tree import DataTree


class Outcome:
    """What a fetcher has reported."""

    def __init__(self) -> None:
        self.aborted = trio.Event()
        self.installed: list[Installed[DataTree]] = []


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    return open_data_directory(RealDisk(), str(tmp_path))


def fetcher_from(port: int, directory: DataDirectory, outcome: Outcome) -> SnapshotFetcher:
    """A fetcher whose leader, server 1, listens on `port`."""
    identity = LinkIdentity("e", b"0123456789abcdef", 2, {1: (("127.0.0.1", port),)})
    links = PeerLinks(identity, [("127.0.0.1", 0)], None, None, None, None, bytes)  # type: ignore[arg-type]

    def run_soon(callback: Callable[[], None]) -> None:
        callback()

    return SnapshotFetcher(
        links=links,
        directory=directory,
        environments=LmdbEnvironments(),
        kind=TreeKind(),
        run_soon=run_soon,
        on_progress=lambda: None,
        on_installed=outcome.installed.append,
        on_aborted=outcome.aborted.set,
    )


@asynccontextmanager
async def leader_that_says(words: bytes) -> AsyncIterator[int]:
    """Something that listens, says the same to everybody, and then is silent."""

    async def talk(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(words)
            async for _ in stream:
                pass

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, talk, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("words", [b"\0\0\0\x05hello", b"\xff" * 64, b"\0\0\0\0"])
async def test_a_leader_that_introduces_itself_with_garbage_only_ends_the_fetch(
    nursery: trio.Nursery, directory: DataDirectory, words: bytes
) -> None:
    outcome = Outcome()
    async with leader_that_says(words) as port:
        fetcher_from(port, directory, outcome).start(nursery, 1)
        with trio.fail_after(60):
            await outcome.aborted.wait()
    assert outcome.installed == []
    directory.close()


async def test_a_fetch_that_is_given_up_before_it_began_ends_at_once(
    nursery: trio.Nursery, directory: DataDirectory
) -> None:
    """Order and cancellation can come out of one round of Zab; nobody votes before the end is reported."""
    outcome = Outcome()
    async with leader_that_says(b"") as port:
        fetcher = fetcher_from(port, directory, outcome)
        fetcher.start(nursery, 1)
        fetcher.cancel()
        with trio.fail_after(60):
            await outcome.aborted.wait()
    directory.close()
