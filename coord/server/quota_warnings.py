"""Tells operators of writes beyond a quota: a line in the log now and then, and counts by namespace."""

from typing import Final

from coord import eventlog
from coord.tree.context import QuotaExcess

INTERVAL_MS: Final = 10_000
"""Between two lines about one quota."""
QUOTAS_MAX: Final = 1000
"""Quotas whose last line is remembered, and namespaces that are counted apart; the rest count as `*`."""

log = eventlog.get("coord.server")


class QuotaWarnings:
    """What this server has seen of quotas.

    Attributes:
        exceeded: writes beyond a quota, refused or not, by the first name of the path.
    """

    def __init__(self) -> None:
        self.exceeded: dict[str, int] = {}
        self._told_ms: dict[bytes, int] = {}

    def note(self, excesses: dict[bytes, QuotaExcess], now_ms: int) -> None:
        """Takes the excesses of a batch; `now_ms` is the batch's own time."""
        for path, excess in excesses.items():
            self._count(path, excess.times)
            if now_ms - self._told_ms.get(path, -INTERVAL_MS) < INTERVAL_MS:
                continue
            if len(self._told_ms) >= QUOTAS_MAX:
                self._told_ms.clear()
            self._told_ms[path] = now_ms
            log.warning(
                "quota exceeded",
                do="delete nodes, or raise the limits in /zookeeper/quota",
                path=path.decode("utf-8", "replace"),
                what=excess.what,
                value=excess.value,
                limit=excess.limit,
                refused=excess.refused,
            )
        excesses.clear()

    def _count(self, path: bytes, times: int) -> None:
        namespace = path.split(b"/", 2)[1].decode("utf-8", "replace")
        if namespace not in self.exceeded and len(self.exceeded) >= QUOTAS_MAX:
            namespace = "*"
        self.exceeded[namespace] = self.exceeded.get(namespace, 0) + times
