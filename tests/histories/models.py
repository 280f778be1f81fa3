"""The sequential objects that clients build of znodes, for the checker."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import assert_never

from tests.histories.checker import Read, Refusal

ANY_VERSION = -1


@dataclass(frozen=True, slots=True)
class Write:
    """A setData; of a pair: of both nodes by one multi, which checks the version of the first."""

    value: bytes
    version: int = ANY_VERSION


@dataclass(frozen=True, slots=True)
class Add:
    """One more, by compare-and-set until it succeeds."""


@dataclass(frozen=True, slots=True)
class Acquire:
    """A lock granted with this fencing token."""

    token: int


@dataclass(frozen=True, slots=True)
class FencedWrite:
    """To a resource that refuses tokens lower than one that it has seen."""

    token: int
    value: bytes


DONE = "done"
BAD_VERSION, REFUSED = Refusal("bad version"), Refusal("the token is too low")


@dataclass(frozen=True, slots=True)
class Register:
    """A znode: data and version. A write answers with the new version."""

    value: bytes

    def start(self) -> tuple[bytes, int]:
        return self.value, 0

    def execute(self, state: tuple[bytes, int], call: Read | Write) -> tuple[tuple[bytes, int], Hashable]:
        match call:
            case Read():
                return state, state
            case Write(value, expected):
                _, version = state
                if expected not in (ANY_VERSION, version):
                    return state, BAD_VERSION
                return (value, version + 1), version + 1
            case _:
                assert_never(call)


PairState = tuple[tuple[bytes, int], tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two znodes that are written by one multi, and read by one multiRead."""

    value: bytes

    def start(self) -> PairState:
        return (self.value, 0), (self.value, 0)

    def execute(self, state: PairState, call: Read | Write) -> tuple[PairState, Hashable]:
        match call:
            case Read():
                return state, state
            case Write(value, expected):
                (_, version), (_, other) = state
                if expected not in (ANY_VERSION, version):
                    return state, BAD_VERSION
                return ((value, version + 1), (value, other + 1)), (version + 1, other + 1)
            case _:
                assert_never(call)


@dataclass(frozen=True, slots=True)
class Counter:
    """A number; an addition answers with the sum."""

    def start(self) -> int:
        return 0

    def execute(self, state: int, call: Read | Add) -> tuple[int, Hashable]:
        match call:
            case Read():
                return state, state
            case Add():
                return state + 1, state + 1
            case _:
                assert_never(call)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A lock as its fencing tokens show it: each is higher than every one granted before."""

    def start(self) -> int:
        return -1

    def execute(self, state: int, call: Acquire) -> tuple[int, Hashable]:
        return (call.token, DONE) if call.token > state else (state, REFUSED)


@dataclass(frozen=True, slots=True)
class FencedRegister:
    """What a lock protects: the highest token seen and the value written last."""

    def start(self) -> tuple[int, bytes]:
        return -1, b""

    def execute(
        self, state: tuple[int, bytes], call: Read | FencedWrite
    ) -> tuple[tuple[int, bytes], Hashable]:
        match call:
            case Read():
                return state, state
            case FencedWrite(token, value):
                return (state, REFUSED) if token < state[0] else ((token, value), DONE)
            case _:
                assert_never(call)
