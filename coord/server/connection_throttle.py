"""How many handshakes a server takes in a time: a bucket of tokens, and BLUE before it (specification 15;
Feng et al., "The BLUE Active Queue Management Algorithms", 2002). Pure: time and chance are arguments.

Each handshake takes tokens; the bucket fills with time, up to its size. With a freeze time, a handshake is
also refused by chance: the chance grows while the bucket is empty and shrinks while it is full enough, so
that a crowd that comes back at once is thinned out rather than served in bursts.
"""

from collections.abc import Callable

from coord.server.config.limits import LimitsConfig


class ConnectionThrottle:
    """The state of the bucket.

    Attributes:
        drop_probability: the chance that a handshake is refused although there are tokens.
    """

    def __init__(
        self, limits: LimitsConfig, *, local_sessions: bool, now_ms: int, chance: Callable[[], float]
    ) -> None:
        scale = limits.global_session_weight if limits.connection_weights else 1
        self._limits = limits
        self._size = limits.connection_tokens * scale
        self._fill_count = limits.connection_fill_count * scale
        self._new_weight = self._renew_weight = 1
        if limits.connection_weights:
            self._renew_weight = limits.renew_session_weight
            self._new_weight = limits.local_session_weight if local_sessions else limits.global_session_weight
        self._tokens = self._size
        self._filled_ms = now_ms
        self._frozen_ms = now_ms
        self._chance = chance
        self.drop_probability = 0.0

    @property
    def deficit(self) -> int:
        """Tokens that are missing."""
        return self._size - self._tokens

    def admits(self, *, renews: bool, now_ms: int) -> bool:
        """Whether a handshake may go on; if so it has taken its tokens."""
        passed_ms = now_ms - self._filled_ms
        if passed_ms > self._limits.connection_fill_ms:
            refill = passed_ms * self._fill_count // self._limits.connection_fill_ms
            self._tokens = min(self._tokens + refill, self._size)
            self._filled_ms = now_ms
        if self._limits.connection_freeze_ms != -1 and not self._passes_by_chance(now_ms):
            return False
        needed = self._renew_weight if renews else self._new_weight
        if self._tokens < needed:
            self._frozen_ms = now_ms
            return False
        self._tokens -= needed
        return True

    def _passes_by_chance(self, now_ms: int) -> bool:
        limits = self._limits
        if now_ms - self._frozen_ms > limits.connection_freeze_ms:
            if self._tokens == 0:
                self.drop_probability = min(self.drop_probability + limits.connection_drop_increase, 1.0)
            elif self.deficit <= self._size * limits.connection_decrease_ratio:
                self.drop_probability = max(self.drop_probability - limits.connection_drop_decrease, 0.0)
            self._frozen_ms = now_ms
        return self._chance() >= self.drop_probability
