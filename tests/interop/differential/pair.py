"""The two servers that scripts are played against, started together."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.coord_servers import CoordServers
from tests.interop.apache import SUPER_DIGEST, ApacheServers
from tests.interop.differential.deviations import Difference, compare
from tests.interop.differential.play import Player
from tests.interop.differential.script import Step

OURS = f"extendedTypesEnabled=true\nDigestAuthenticationProvider.superDigest={SUPER_DIGEST}\n"


class Pair:
    """A standalone Apache ZooKeeper, and ours: standalone, or three servers that share the sessions.

    `replies` counts pairs of operation and error code that were compared.
    """

    root = "/t"

    def __init__(self, directory: Path, ensemble: bool = False) -> None:
        # Without the jars there is nothing to start.
        self.theirs = ApacheServers(directory / "apache", tick_ms=1000)
        self.ours = CoordServers(directory / "zoolog", 3 if ensemble else 1, tick_ms=1000, extra=OURS)
        self.replies: Counter[tuple[int, int]] = Counter()
        self.deviations: set[str] = set()

    def __enter__(self) -> "Pair":
        self.theirs.__enter__()
        try:
            self.ours.__enter__()
        except BaseException:
            self.theirs.kill()
            raise
        self.players = [
            Player([("127.0.0.1", server.port) for server in servers.servers])
            for servers in (self.theirs, self.ours)
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.ours.__exit__(kind, error, trace)
        finally:
            self.theirs.__exit__(kind, error, trace)

    def difference(self, script: Sequence[Step]) -> Difference | None:
        """Plays a script on both; the first difference that is not on purpose."""
        theirs, ours = (player.play(script, self.root).normal() for player in self.players)
        found, met = compare(theirs, ours)
        self.deviations |= met
        for entry in ours:
            if entry.what[0] == "reply" and entry.step > 0:
                self.replies[entry.what[1], entry.what[3]] += 1
        return found

    def summary(self) -> str:
        operations = {op for op, _ in self.replies}
        return f"{self.replies.total()} replies of {len(operations)} operations compared"
