"""What a bookie needs of a coordination client; `coord.connect` gives one, tests give their own."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import trio

from bookie.client.store import Coord
from coord import Operation


class Session(Coord, Protocol):
    """A client with one session."""

    @property
    def session_id(self) -> int: ...
    @property
    def session_password(self) -> bytes: ...
    @property
    def expired(self) -> trio.Event: ...
    async def multi(self, operations: Sequence[Operation]) -> list[Any]: ...
    async def exists(self, path: str) -> Any: ...
    async def end_session(self, session_id: int, password: bytes) -> None: ...


Connect = Callable[[], AbstractAsyncContextManager[Session]]
