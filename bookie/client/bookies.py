"""Which bookies there are: registrations followed in the coordination service, and the choice among them.

The last known registration of a bookie is kept when its node goes: a bookie that lost its session still
serves (11.4), and whether it can be reached is found out by its link. Choice is random among the writable
ones; those that failed lately come last for a new ensemble and are no replacement at all, since keeping a
failed bookie in place costs less than trying another that fails.
"""

import random
from collections.abc import Callable, Set

import trio

from bookie.client.links import BookieLinks
from bookie.client.store import Coord
from bookie.ledger import layout
from bookie.ledger.errors import MetadataError, NotEnoughBookiesError
from bookie.ledger.layout import Registration
from bookie.ledger.metadata import Ensemble, Member
from coord import eventlog
from coord.errors import ConnectionLossError, CoordError, NoNodeError, NotConnectedError

RETRY_S = 0.2
"""Pause after the coordination service could not be read."""

log = eventlog.get("bookie.client")


class Bookies:
    """The bookies known to one client; also the `Placement` of its writers and recoveries.

    Attributes:
        writable: bookie id -> member, of those registered for writing.
        links: set by the owner right after construction; tells who failed lately.
    """

    links: BookieLinks

    def __init__(self, zk: Coord, rng: random.Random) -> None:
        self.writable: dict[str, Member] = {}
        self.read_only: dict[str, Member] = {}
        self._zk = zk
        self._rng = rng
        self._registrations: dict[str, Registration] = {}
        self._listeners: list[Callable[[], None]] = []
        self._known = trio.Event()

    def resolve(self, member: Member) -> tuple[str, int] | None:
        """Where the member listens, as far as known; None also when another incarnation is registered."""
        registration = self._registrations.get(member.bookie_id)
        if registration is None or registration.incarnation != member.incarnation:
            return None
        return registration.host, registration.port

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change of the sets."""
        self._listeners.append(listener)

    def replace(self, ensemble: Ensemble, index: int, excluded: Set[Member]) -> Member | None:
        taken = {other.bookie_id for place, other in enumerate(ensemble) if place != index}
        suspects = self.links.suspects()
        candidates = [
            member
            for bookie_id, member in sorted(self.writable.items())
            if bookie_id not in taken and member not in excluded and member not in suspects
        ]
        return self._rng.choice(candidates) if candidates else None

    def choose(self, size: int) -> Ensemble:
        """A new ensemble.

        Raises:
            NotEnoughBookiesError: fewer writable bookies are registered; nothing was written.
        """
        suspects = self.links.suspects()
        candidates = sorted(self.writable.values())
        if len(candidates) < size:
            raise NotEnoughBookiesError(
                f"an ensemble of {size} wanted, {len(candidates)} bookies are writable"
            )
        self._rng.shuffle(candidates)
        candidates.sort(key=suspects.__contains__)
        chosen = candidates[:size]
        self._rng.shuffle(chosen)
        return tuple(chosen)

    def give_up(self) -> None:
        """Nobody follows the registrations any more: what is known is all there will be."""
        self._known.set()

    async def wait_known(self) -> None:
        """Wait until the registrations were read once."""
        await self._known.wait()

    async def wait_writable(self, size: int, timeout_s: float) -> None:
        """Wait until so many bookies are writable, or the time is over."""
        with trio.move_on_after(timeout_s):
            while len(self.writable) < size:
                changed = trio.Event()
                self.listen(changed.set)
                try:
                    await changed.wait()
                finally:
                    self._listeners.remove(changed.set)

    async def follow(self) -> None:
        """Keep the sets as registered until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_directory, layout.AVAILABLE)
            nursery.start_soon(self._follow_directory, layout.READONLY)

    async def _follow_directory(self, path: str) -> None:
        while True:
            try:
                async with self._zk.watch(path, children=True) as events:
                    async for _ in events:
                        await self._refresh(path)
            except (NoNodeError, ConnectionLossError, NotConnectedError):
                await trio.sleep(RETRY_S)  # not laid out yet, or the service is away for now

    async def _refresh(self, path: str) -> None:
        found: dict[str, Member] = {}
        try:
            names = await self._zk.get_children(path)
        except NoNodeError:
            names = []
        for bookie_id in names:
            if path == layout.AVAILABLE and bookie_id == "readonly":
                continue
            registration = await self._read(f"{path}/{bookie_id}")
            if registration is None:
                continue
            found[bookie_id] = Member(bookie_id, registration.incarnation)
            if self._registrations.get(bookie_id) != registration or bookie_id not in self._present(path):
                self._registrations[bookie_id] = registration
                self.links.retry_soon(bookie_id)
        if path == layout.AVAILABLE:
            self.writable = found
            self._known.set()
        else:
            self.read_only = found
        for listener in list(self._listeners):
            listener()

    def _present(self, path: str) -> dict[str, Member]:
        return self.writable if path == layout.AVAILABLE else self.read_only

    async def _read(self, path: str) -> Registration | None:
        try:
            data, _ = await self._zk.get(path)
            return Registration.decode(data or b"")
        except NoNodeError:
            return None
        except MetadataError as error:
            log.warning("ignoring a bookie with a bad registration", path=path, error=error)
            return None


async def follow_or_report(bookies: Bookies) -> None:
    """`Bookies.follow` until the session is over, which the owner of the session hears of by itself."""
    try:
        await bookies.follow()
    except* CoordError as group:
        log.info("no longer following the bookies", reason=str(group.exceptions[0]))
    finally:
        bookies.give_up()
