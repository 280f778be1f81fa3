"""Liveness of sessions, judged by the leader or the standalone server (specification 4.3): pure, time is an
argument.

A session's deadline is `now + timeout` rounded *up* to the next multiple of the tick, so that touching costs
a dict look-up in the common case and expiry takes whole buckets. Nothing here closes a session:
`take_expired` names those whose time is over, and each stays named in a bucket of its own until the owner
`remove`s it (a close that was lost with a leadership is thus asked for again) or touches it.

Sessions' time stands still while the judge cannot hear: `stand_still` takes it out of every session's time.
"""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush


class SessionTracker:
    """Deadlines of all global sessions in buckets of one tick."""

    def __init__(self, tick_ms: int) -> None:
        self._tick_ms = tick_ms
        self._deadlines: dict[int, int] = {}  # session -> bucket number, a multiple of the tick
        self._timeouts: dict[int, int] = {}
        self._buckets: dict[int, set[int]] = {}  # no bucket is empty
        self._heap: list[int] = []  # bucket numbers; may name buckets that are gone
        self._stood_still_ms = 0

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, session_id: int) -> bool:
        return session_id in self._deadlines

    def restart(self, sessions: Iterable[tuple[int, int]], now_ms: int) -> None:
        """Takes over leadership: every known (session id, timeout) starts with its full timeout."""
        for table in (self._deadlines, self._timeouts, self._buckets, self._heap):
            table.clear()
        for session_id, timeout_ms in sessions:
            self.add(session_id, timeout_ms, now_ms)

    def stand_still(self, duration_ms: int) -> None:
        """For this long nobody could be heard; it is nobody's silence."""
        self._stood_still_ms += duration_ms

    def add(self, session_id: int, timeout_ms: int, now_ms: int) -> None:
        self._timeouts[session_id] = timeout_ms
        self._move(session_id, self._bucket(now_ms + timeout_ms))

    def touch(self, session_id: int, now_ms: int) -> bool:
        """Postpones the deadline by the session's timeout; False when the session is not known."""
        timeout_ms = self._timeouts.get(session_id)
        if timeout_ms is None:
            return False
        bucket = self._bucket(now_ms + timeout_ms)
        if bucket != self._deadlines[session_id]:
            self._move(session_id, bucket)
        return True

    def retime(self, session_id: int, timeout_ms: int, now_ms: int) -> bool:
        """A reattachment negotiated another timeout, used for touches from then on; False when not known."""
        if session_id not in self._timeouts:
            return False
        self.add(session_id, timeout_ms, now_ms)
        return True

    def remove(self, session_id: int) -> None:
        bucket = self._deadlines.pop(session_id, None)
        if bucket is None:
            return
        del self._timeouts[session_id]
        members = self._buckets[bucket]
        members.discard(session_id)
        if not members:
            del self._buckets[bucket]

    def take_expired(
        self, now_ms: int, weight_max: int, weigh: Callable[[int], int] = lambda session_id: 1
    ) -> list[int]:
        """Sessions whose deadline has passed, until they weigh `weight_max` together, oldest bucket first.

        Each one is named again one timeout later unless it was removed meanwhile.

        Args:
            weigh: what the end of a session costs; at least 1.
        """
        expired: list[int] = []
        weight = 0
        current = self._bucket(now_ms) - 1
        while self._heap and self._heap[0] <= current and weight < weight_max:
            members = self._buckets.get(self._heap[0])
            if members is None:
                heappop(self._heap)
                continue
            for session_id in sorted(members)[: weight_max - weight]:
                if weight >= weight_max:
                    break
                weight += weigh(session_id)
                expired.append(session_id)
                self._move(session_id, self._bucket(now_ms + self._timeouts[session_id]))
        return expired

    def buckets(self) -> list[tuple[int, set[int]]]:
        """When each bucket is over, in order, and its sessions (not to be changed)."""
        return [(self._end_of(number), self._buckets[number]) for number in sorted(self._buckets)]

    def next_deadline_ms(self) -> int | None:
        """When `take_expired` may next name a session; None without sessions."""
        while self._heap and self._heap[0] not in self._buckets:
            heappop(self._heap)
        return self._end_of(self._heap[0]) if self._heap else None

    def _bucket(self, deadline_ms: int) -> int:
        """The bucket that is over at the first tick after `deadline_ms`, by the sessions' time."""
        return (deadline_ms - self._stood_still_ms) // self._tick_ms + 1

    def _end_of(self, bucket: int) -> int:
        return bucket * self._tick_ms + self._stood_still_ms

    def _move(self, session_id: int, bucket: int) -> None:
        old = self._deadlines.get(session_id)
        if old == bucket:
            return
        if old is not None:
            members = self._buckets[old]
            members.discard(session_id)
            if not members:
                del self._buckets[old]
        self._deadlines[session_id] = bucket
        members_new = self._buckets.get(bucket)
        if members_new is None:
            self._buckets[bucket] = {session_id}
            heappush(self._heap, bucket)
        else:
            members_new.add(session_id)


def first_session_id(sid: int, wall_ms: int) -> int:
    """The id a server starts counting at (specification 4.2): its number, then 40 bits of wall clock."""
    value = ((sid & 0xFF) << 56) | ((wall_ms << 16) & 0x00FF_FFFF_FFFF_FFFF)
    return value - (1 << 64) if value >= 1 << 63 else value


class SessionIds:
    """Hands out session ids, unique across servers and restarts, never 0 or the smallest 64-bit integer."""

    def __init__(self, sid: int, wall_ms: int, taken: Iterable[int] = ()) -> None:
        """`taken` are the sessions that exist, so that a clock set back cannot repeat a living id."""
        top = sid & 0xFF
        newest = max((used for used in taken if (used >> 56) & 0xFF == top), default=None)
        first = first_session_id(sid, wall_ms)
        self._next = first if newest is None else max(first, newest + 1)

    def take(self) -> int:
        session_id = self._next
        if session_id in (0, -(1 << 63)):
            session_id += 1
        self._next = session_id + 1
        return session_id
