"""Rounds of heartbeats by which a leader makes sure that it still leads.

A round is a serial that travels in heartbeats and comes back in their acknowledgements. It begins after
it was asked for, so an echo of it was sent by a server that followed this leader *after* the question: no
other leader can have been established with it before. A round that a quorum has echoed confirms itself
and all before it. Serials are never reused in one life of the process, so an echo from an earlier
leadership is below every later round.
"""

from coord.zab.messages import Sid
from coord.zab.replica import Replica


class Confirmation:
    """The rounds of one leadership."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._wanted = False
        self.confirmed_serial = 0

    @property
    def begun_serial(self) -> int:
        """The latest round that was sent out; this server echoes it to itself."""
        return self._replica.confirm_serial - self._wanted

    def ask(self) -> int:
        """The next round to begin; all who ask before it begins share it."""
        if not self._wanted:
            self._wanted = True
            self._replica.confirm_serial += 1
        return self._replica.confirm_serial

    def begin(self) -> bool:
        """Whether a round was asked for; it is to be sent now."""
        wanted, self._wanted = self._wanted, False
        return wanted

    def check(self, echoed: dict[Sid, int]) -> bool:
        """Takes the rounds echoed by the servers that count, this one excluded; is a later round
        confirmed?
        """
        echoed[self._replica.sid] = self.begun_serial
        serial = self._replica.quorum.logged_by_quorum(echoed)
        if serial <= self.confirmed_serial:
            return False
        self.confirmed_serial = serial
        return True
