"""Where a client stands, as a value that can be awaited and followed.

CONNECTING until the first server has granted a session; then CONNECTED (or READ_ONLY, at a server without a
quorum), SUSPENDED between two servers, and in the end one of the states that do not end.
"""

import enum
from collections import deque
from types import TracebackType
from typing import Self

import trio

#: Changes a follower of states may be behind; the oldest are dropped, the present one never.
STATES_BEHIND_MAX = 64


class State(enum.Enum):
    """Where a client stands.

    SUSPENDED: no server answers; the session, its ephemerals and locks may be over without our knowing.
    EXPIRED: the servers have ended the session. AUTH_FAILED: a server rejected our credentials.
    """

    CONNECTING = "connecting"
    CONNECTED = "connected"
    READ_ONLY = "read-only"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    AUTH_FAILED = "auth failed"
    CLOSED = "closed"


#: States in which requests are answered.
SERVED = (State.CONNECTED, State.READ_ONLY)
#: States that do not end.
OVER = (State.EXPIRED, State.AUTH_FAILED, State.CLOSED)


class States:
    """Every change of a client's state in order, beginning with the present one; made by `Client.states`.

    Iteration ends behind a state that does not end.
    """

    def __init__(self, standing: "Standing") -> None:
        self._standing = standing
        self._behind: deque[State] = deque([standing.state], STATES_BEHIND_MAX)
        self._changed = trio.Event()

    def __enter__(self) -> Self:
        self._standing.followers.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._standing.followers.discard(self)

    def put(self, state: State) -> None:
        self._behind.append(state)
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> State:
        """Waits for the next change. Cancelled, it loses none."""
        if not self._behind and self._standing.state in OVER:
            raise StopAsyncIteration
        while not self._behind:
            self._changed = trio.Event()
            await self._changed.wait()
        state = self._behind.popleft()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return state


class Standing:
    """The present state, and who is to be told of changes."""

    def __init__(self) -> None:
        self.state = State.CONNECTING
        self.followers: set[States] = set()

    def become(self, state: State) -> None:
        """Changes the state, except one that does not end."""
        if state is self.state or self.state in OVER:
            return
        self.state = state
        for follower in self.followers:
            follower.put(state)

    async def wait(self, *states: State) -> State:
        """Returns the first state from now on that is one of `states`, or one that does not end; also one
        that is over again by the time the waiting task runs."""
        with States(self) as following:
            async for state in following:
                if state in states or state in OVER:
                    return state
        return self.state
