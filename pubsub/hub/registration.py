"""A hub's presence: its one ephemeral node, its session on disk, and who else is there (P11).

The registration id is the creation zxid of the ephemeral. A restarted hub first closes the session of its
predecessor, whose id and password are in the data directory, so that nobody takes the dead one for alive and
nobody waits for its session to expire.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Final

import cbor2
import trio

import coord
from coord import eventlog
from pubsub.core.errors import RecordError
from pubsub.core.names import HUB_NODE_PREFIX, HUBS_PATH
from pubsub.core.record import decode_map

SESSION_FILE: Final = "session.json"
LOCK_FILE: Final = "lock"

log = eventlog.get("pubsub.hub")


class DirectoryInUseError(Exception):
    """Another hub runs on this data directory."""


class HubDirectory:
    """The data directory of one hub, locked while it runs."""

    def __init__(self, path: Path) -> None:
        """Creates and locks the directory.

        Raises:
            DirectoryInUseError: another process holds it.
            OSError: it cannot be created or written.
        """
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise DirectoryInUseError(f"another hub runs on {path}") from error

    def close(self) -> None:
        """Gives the directory free."""
        os.close(self._lock)

    def read_session(self) -> tuple[int, bytes] | None:
        """Id and password of the last session; None when there is none, or it cannot be read (it will
        expire).
        """
        try:
            fields = json.loads((self.path / SESSION_FILE).read_text())
            return int(fields["id"]), bytes.fromhex(fields["password"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("session file is unreadable, the old session will expire by itself", error=str(error))
            return None

    def write_session(self, session_id: int, password: bytes) -> None:
        """Keeps the present session for the successor; whole or not at all."""
        draft = self.path / (SESSION_FILE + ".new")
        draft.write_text(json.dumps({"id": session_id, "password": password.hex()}))
        draft.replace(self.path / SESSION_FILE)


async def register(zk: coord.Client, address: str, hub_id: str) -> int:
    """Creates this hub's ephemeral node; returns the registration id."""
    data = cbor2.dumps({"version": 1, "address": address, "id": hub_id})
    while True:
        try:
            path = await zk.create(HUB_NODE_PREFIX, data, ephemeral=True, sequential=True)
        except (coord.ConnectionLossError, coord.NotConnectedError):
            # A node that was created nevertheless has our address too and goes with the session: harmless.
            continue
        stat = await zk.exists(path)
        if stat is not None:
            return stat.czxid


class Neighbours:
    """The hubs that are registered now: registration id -> address."""

    def __init__(self, zk: coord.Client) -> None:
        self._zk = zk
        self._known: dict[str, tuple[int, str]] = {}
        self.registered: dict[int, str] = {}

    async def refresh(self) -> None:
        """Reads the hubs' nodes; those already known are not read again, for a node never changes."""
        names = await self._zk.get_children(HUBS_PATH)
        known = {name: self._known[name] for name in names if name in self._known}
        for name in names:
            if name not in known and (found := await read_hub(self._zk, name)) is not None:
                known[name] = found
        self._known = known
        self.registered = dict(known.values())

    async def watch(self) -> None:
        """Keeps the list up to date until cancelled."""
        async with self._zk.watch(HUBS_PATH, children=True) as events:
            async for _ in events:
                try:
                    await self.refresh()
                except (coord.ConnectionLossError, coord.NotConnectedError):
                    await trio.sleep(0.05)


async def read_hub(zk: coord.Client, name: str) -> tuple[int, str] | None:
    """(registration id, address) of one hub's node; None when it is gone or not a hub's."""
    path = f"{HUBS_PATH}/{name}"
    try:
        data, stat = await zk.get(path)
        address = decode_map(data or b"", path).get("address")
    except (coord.NoNodeError, RecordError):
        return None
    return (stat.czxid, address) if isinstance(address, str) else None
