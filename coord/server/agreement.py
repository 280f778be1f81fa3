"""Whether a checkpoint may take the place of the last one: a state that no majority has must not (DESIGN 4).

A checkpoint is written while execution goes on, and waits with its last step until the servers have
compared their states as of its zxid or later. Where they cannot, because too many are away or of a release
that does not compare, it does not wait for ever.
"""

from typing import Final

from coord.zab import Peer

HOLD_MS_MAX: Final = 10_000
"""How long a checkpoint waits for a comparison that does not come; a quorum agrees within a second or two."""


class Agreement:
    """What Zab's comparison says of this server's state."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    @property
    def is_denied(self) -> bool:
        """This state is known to be wrong: it is no state to keep."""
        return self._peer.has_diverged

    def note(self, zxid: int, digest: int) -> None:
        """The state that is going to be kept. A server that is alone agrees with itself at once."""
        self._peer.note_digest(zxid, digest)

    def allows(self, zxid: int, waited_ms: int) -> bool:
        """May the state as of `zxid` be kept, after having waited so long for an answer?"""
        peer = self._peer
        if peer.has_diverged:
            return False
        return peer.agreed_zxid >= zxid or (waited_ms >= HOLD_MS_MAX and not peer.is_disputed)
