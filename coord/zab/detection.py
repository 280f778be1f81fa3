"""When is a peer that says nothing taken for dead? Two ways to tell, and a clock that is fair to peers.

    Detector        hears of every message; suspects from its deadline on; says how sure it is
      FixedTimeout  after so many milliseconds of silence: syncLimit ticks (20.6)
      PhiAccrual    by how regularly the peer was heard until now (Hayashibara, Defago, Yared, Katayama: The
                    phi accrual failure detector, SRDS 2004)
    AwakeClock      leaves out the time in which this server could not have heard anybody

Phi is -log10 of the probability that a message comes later than now, if the times between heartbeats are
normally distributed with the mean and standard deviation of the last ones: at threshold 8 one in 10^8
silences is a mistake, as far as the network stays as it was. Three things differ from the paper. Messages
come in bursts under load, and a burst says nothing of how long silence may be: only times that are as long as
the heartbeat's are remembered. A deviation below a tenth of the heartbeat is not believed. And the verdict is
bounded on both sides: never before `minimum_ms`, whatever was seen, and never after the fixed timeout, so
that the time within which a silent leader is left stays the operator's word.
"""

from collections import deque
from dataclasses import dataclass
from math import erfc, log10, sqrt
from typing import Final, Literal, Protocol

WINDOW: Final = 200
"""Times between heartbeats that are remembered."""
DEVIATION_SHARE_MIN: Final = 10
"""The least standard deviation is the heartbeat's time through this."""
FIRST_DEVIATION_SHARE: Final = 4
"""Before anything is known: the heartbeat's time, give or take a quarter."""
THRESHOLD_MAX: Final = 100
LEVEL_MAX: Final = 100.0
DEVIATIONS_MAX: Final = 30.0
"""Beyond so many standard deviations the probability is below what `THRESHOLD_MAX` asks for."""

NEVER: Final = 1 << 62
"""Later than any time."""

Kind = Literal["fixed", "phi"]


class Detector(Protocol):
    """Watches one peer. Times are milliseconds and never go back."""

    heard_ms: int
    """When the peer was last heard."""

    def heard(self, now_ms: int) -> None: ...

    @property
    def deadline_ms(self) -> int:
        """From then on the peer is suspected, unless it is heard before."""

    def level(self, now_ms: int) -> float:
        """How far the suspicion has come, from 0; from 1 on the peer is suspected. Never falls in silence."""


@dataclass(frozen=True, slots=True)
class Detection:
    """How the peers of one class of links are watched."""

    kind: Kind = "fixed"
    threshold: int = 8
    """Of phi: 1 to `THRESHOLD_MAX`."""
    minimum_ms: int = 0
    """What phi waits at least; 0: two ticks."""


FIXED: Final = Detection()


class FixedTimeout:
    """Suspects after `timeout_ms` of silence."""

    __slots__ = ("_timeout_ms", "heard_ms")

    def __init__(self, timeout_ms: int, now_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self.heard_ms = now_ms

    def heard(self, now_ms: int) -> None:
        self.heard_ms = now_ms

    @property
    def deadline_ms(self) -> int:
        return self.heard_ms + self._timeout_ms

    def level(self, now_ms: int) -> float:
        return min(LEVEL_MAX, (now_ms - self.heard_ms) / self._timeout_ms)


class PhiAccrual:
    """Suspects once a silence is longer than all that was seen makes likely.

    Args:
        heartbeat_ms: how often the peer says something at least.
        minimum_ms, maximum_ms: bounds of the silence that is suspected; the second holds if they contradict.
    """

    __slots__ = (
        "_deviation_min",
        "_deviations",
        "_heartbeat_ms",
        "_maximum_ms",
        "_minimum_ms",
        "_squares",
        "_sum",
        "_threshold",
        "_timeout_ms",
        "_times_ms",
        "heard_ms",
    )

    def __init__(
        self, *, threshold: int, heartbeat_ms: int, minimum_ms: int, maximum_ms: int, now_ms: int
    ) -> None:
        self._threshold = threshold
        self._deviations = deviations_at(threshold)
        self._heartbeat_ms = heartbeat_ms
        self._deviation_min = heartbeat_ms / DEVIATION_SHARE_MIN
        self._minimum_ms = min(minimum_ms, maximum_ms)
        self._maximum_ms = maximum_ms
        self.heard_ms = now_ms
        spread_ms = heartbeat_ms // FIRST_DEVIATION_SHARE
        self._times_ms = deque((heartbeat_ms - spread_ms, heartbeat_ms + spread_ms))
        self._sum = sum(self._times_ms)
        self._squares = sum(time_ms * time_ms for time_ms in self._times_ms)
        self._timeout_ms = self._silence_ms()

    def heard(self, now_ms: int) -> None:
        time_ms = now_ms - self.heard_ms
        self.heard_ms = now_ms
        if time_ms >= self._heartbeat_ms:
            self._remember(time_ms)

    def _remember(self, time_ms: int) -> None:
        times = self._times_ms
        times.append(time_ms)
        self._sum += time_ms
        self._squares += time_ms * time_ms
        if len(times) > WINDOW:
            oldest = times.popleft()
            self._sum -= oldest
            self._squares -= oldest * oldest
        self._timeout_ms = self._silence_ms()

    @property
    def deadline_ms(self) -> int:
        return self.heard_ms + self._timeout_ms

    def phi(self, silence_ms: int) -> float:
        """-log10 of the probability that the peer is heard later than after this silence."""
        mean, deviation = self._distribution()
        deviations = min(DEVIATIONS_MAX, (silence_ms - mean) / deviation)
        return max(0.0, -log10(_tail(deviations)))

    def level(self, now_ms: int) -> float:
        silence_ms = now_ms - self.heard_ms
        level = self.phi(silence_ms) / self._threshold
        return max(1.0, level) if silence_ms >= self._timeout_ms else min(0.99, level)

    def _distribution(self) -> tuple[float, float]:
        """Mean and standard deviation; the sums are whole numbers, so nothing is lost on the way."""
        count = len(self._times_ms)
        mean = self._sum / count
        variance = (self._squares * count - self._sum * self._sum) / (count * count)
        return mean, max(sqrt(variance), self._deviation_min)

    def _silence_ms(self) -> int:
        mean, deviation = self._distribution()
        likely_ms = int(mean + self._deviations * deviation) + 1
        return max(self._minimum_ms, min(likely_ms, self._maximum_ms))


def _tail(deviations: float) -> float:
    """How much of the normal distribution lies beyond so many standard deviations."""
    return erfc(deviations / sqrt(2)) / 2


def deviations_at(threshold: int) -> float:
    """Beyond how many standard deviations phi is above `threshold`, by halving."""
    low, high = 0.0, DEVIATIONS_MAX
    for _ in range(50):
        middle = (low + high) / 2
        if -log10(_tail(middle)) < threshold:
            low = middle
        else:
            high = middle
    return high


class AwakeClock:
    """The time that passed while this server was awake.

    A server that stood still (a stopped process, a paused machine, a loop without processor time) hears
    nobody, and the first thing it sees afterwards may be a deadline. It asks to be woken at least every
    `wake_ms`; what passes beyond that counts for nothing. So nobody is convicted for our own absence, and a
    loop that is always late gives everybody that much more time; yet each wake brings the time on, so that
    who is dead is found out in the end.
    """

    __slots__ = ("_wake_ms", "now_ms", "stood_still_ms")

    def __init__(self, wake_ms: int, real_ms: int) -> None:
        self._wake_ms = wake_ms
        self.now_ms = real_ms
        self.stood_still_ms = 0
        """The sum of what was left out."""

    def advance(self, real_ms: int) -> int:
        """What time it is when it really is `real_ms`; called with everything that happens."""
        now_ms = real_ms - self.stood_still_ms
        late_ms = now_ms - self.now_ms - self._wake_ms
        if late_ms > 0:
            self.stood_still_ms += late_ms
            now_ms -= late_ms
        self.now_ms = now_ms
        return now_ms

    def wake_at_ms(self, deadline_ms: int) -> int:
        """When to wake, really, for a deadline of this clock, and so that no time is left out."""
        return min(deadline_ms, self.now_ms + self._wake_ms) + self.stood_still_ms
