"""The two servers that scripts are played against, started together."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.coord_servers import CoordServers
from tests.interop.apache import SUPER_DIGEST, ApacheServers
from tests.interop.differential.deviations import Difference, compare
from tests.interop.differential.play import Player
from tests.interop.differential.script import CONFIG, Step, make_script

BOTH = "enforceQuota=true\n"
OURS = f"{BOTH}extendedTypesEnabled=true\nDigestAuthenticationProvider.superDigest={SUPER_DIGEST}\n"


class Pair:
    """A standalone Apache ZooKeeper, and ours: standalone, or three servers that share the sessions.

    `replies` counts pairs of operation and error code that were compared.
    """

    root = "/t"

    def __init__(self, directory: Path, ensemble: bool = False) -> None:
        # Without the jars there is nothing to start.
        self.theirs = ApacheServers(directory / "apache", tick_ms=1000, extra=BOTH)
        self.ours = CoordServers(directory / "zoolog", 3 if ensemble else 1, tick_ms=1000, extra=OURS)
        self.is_ensemble = ensemble
        self.replies: Counter[tuple[int, int]] = Counter()
        self.deviations: set[str] = set()

    def __enter__(self) -> "Pair":
        self.theirs.__enter__()
        try:
            self.ours.__enter__()
        except BaseException:
            self.theirs.kill()
            raise
        self.players = [Player(servers) for servers in (self.theirs, self.ours)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.ours.__exit__(kind, error, trace)
        finally:
            self.theirs.__exit__(kind, error, trace)

    def script(self, rng: random.Random, steps: int, *, quotas: bool = False) -> list[Step]:
        """A random script that both can play."""
        return make_script(rng, self.root, steps, quotas=quotas, with_config=not self.is_ensemble)

    def difference(self, script: Sequence[Step]) -> Difference | None:
        """Plays a script on both; the first difference that is not on purpose."""
        theirs, ours = (player.play(script, self.root).normal() for player in self.players)
        if self.is_ensemble:
            theirs, ours = ([one for one in side if one.who != CONFIG.decode()] for side in (theirs, ours))
        found, met = compare(theirs, ours)
        self.deviations |= met
        for entry in ours:
            if entry.what[0] == "reply" and entry.step > 0:
                self.replies[entry.what[1], entry.what[3]] += 1
        return found

    def summary(self) -> str:
        operations = {op for op, _ in self.replies}
        return f"{self.replies.total()} replies of {len(operations)} operations compared"
