"""Is a history of concurrent operations linearizable?

A history is linearizable when every operation can be given one moment between its call and its answer such
that a sequential object, executing them in the order of these moments, gives the same answers (Herlihy and
Wing 1990). The search is Lowe's just-in-time linearization ("Testing for linearizability", 2017), breadth
first: events are taken in the order of time, and a set of configurations is kept, each a state of the object
and the operations under way that have taken effect already. Nothing takes effect before it must: only when
an operation's answer arrives each configuration is extended, in every possible order of what is under way,
until that operation has taken effect. No configuration left means: not linearizable. Equal configurations
are one, which is the memoization of Wing and Gong's search.

An operation whose answer never came (connection lost) has taken effect once or never. It may do so at any
later time, or until `returned` where something is known to have ended it (the session was taken up again, or
has expired).

    assert violation(Register(b"0"), history) is None
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

CONFIGURATIONS_MAX = 200_000
"""At one answer: the search is exponential in the operations under way that change something."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What one client asked for and was told. Times are of one clock, in any unit."""

    client: str
    call: Hashable
    invoked: int
    returned: int | None
    """When the answer came; without an answer: until when it may have taken effect; None: for ever."""
    answer: Hashable | None
    """None: not known."""

    def __str__(self) -> str:
        end = "…" if self.returned is None else self.returned
        return f"[{self.invoked}, {end}] {self.client}: {self.call} -> {self.answer}"


@dataclass(frozen=True, slots=True)
class Read:
    """The call that answers with the whole state, and changes nothing."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that says that nothing was changed."""

    reason: str


class Model(Protocol):
    """A sequential object."""

    def start(self) -> Any:
        """The first state; hashable, as all."""

    def execute(self, state: Any, call: Any) -> tuple[Any, Hashable]:
        """The next state and the answer, which is never None."""


class UndecidedError(Exception):
    """The search became too large: nothing is known about the history."""


Configuration = tuple[Any, int]
"""A state, and which of the operations under way have taken effect: one bit each."""


def violation(model: Model, history: Iterable[Operation]) -> str | None:
    """None when the history is linearizable, else the answer that fits no order, and what was possible.

    Raises:
        UndecidedError: more than CONFIGURATIONS_MAX configurations.
    """
    search = Search(model)
    for _, is_return, operation in sorted(events(history), key=lambda event: event[:2]):
        if not is_return:
            search.begin(operation)
            continue
        before = search.configurations
        search.end(operation)
        if not search.configurations:
            states = "; ".join(sorted({str(state) for state, _ in before})[:5])
            under_way = "\n  ".join(str(other) for other in search.under_way.values())
            return f"no order explains\n  {operation}\npossible before: {states}\nunder way:\n  {under_way}"
    return None


def violations(models: Mapping[str, Model], histories: Mapping[str, Iterable[Operation]]) -> list[str]:
    """Of several objects: a history is linearizable when those of its objects are (locality)."""
    found = []
    for key, history in histories.items():
        if (wrong := violation(models[key], history)) is not None:
            found.append(f"{key}: {wrong}")
    return found


def events(history: Iterable[Operation]) -> list[tuple[int, bool, Operation]]:
    """Calls (False) and returns (True); at equal times calls come first, so that doubt counts as overlap."""
    found = []
    for operation in history:
        found.append((operation.invoked, False, operation))
        if operation.returned is not None:
            assert operation.returned >= operation.invoked, operation
            found.append((operation.returned, True, operation))
        else:
            assert operation.answer is None, operation
    return found


class Search:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.configurations: set[Configuration] = {(model.start(), 0)}
        self.under_way: dict[int, Operation] = {}
        """By bit; a bit is used again when its operation has ended."""
        self.bits: dict[int, int] = {}
        """By id() of the operation."""
        self.unanswered = 0
        """The bits of operations without an answer."""

    def begin(self, operation: Operation) -> None:
        bit = 1
        while bit in self.under_way:
            bit <<= 1
        self.under_way[bit] = operation
        self.bits[id(operation)] = bit
        if operation.answer is None:
            self.unanswered |= bit

    def end(self, operation: Operation) -> None:
        bit = self.bits[id(operation)]
        after = self.extended(bit)
        if operation.answer is None:
            after |= {(state, done & ~bit) for state, done in self.configurations}
        self.unanswered &= ~bit
        self.configurations = self.freest(after)
        if self.configurations:
            del self.under_way[bit], self.bits[id(operation)]

    def extended(self, wanted: int) -> set[Configuration]:
        """All configurations in which `wanted` has just taken effect, or had before; without its bit."""
        found: set[Configuration] = set()
        waiting = list(self.configurations)
        seen = set(waiting)
        while waiting:
            state, done = waiting.pop()
            if done & wanted:
                found.add((state, done & ~wanted))
                continue
            changing: list[Configuration] = []
            for bit, operation in self.under_way.items():
                if done & bit:
                    continue
                after, answer = self.model.execute(state, operation.call)
                if operation.answer is None:
                    # Without effect is the same as not at all, which is allowed anyway.
                    if after != state:
                        changing.append((after, bit))
                elif answer == operation.answer:
                    if isinstance(operation.call, Read) or isinstance(answer, Refusal):
                        # It fits, and changes nothing at any moment: let it come first, no choice is lost.
                        # (A write of what is there already may change something later.)
                        done |= bit
                    else:
                        changing.append((after, bit))
            if done & wanted:
                found.add((state, done & ~wanted))
                continue
            for after, bit in changing:
                configuration = (after, done | bit)
                if configuration not in seen:
                    seen.add(configuration)
                    waiting.append(configuration)
            if len(seen) > CONFIGURATIONS_MAX:
                raise UndecidedError(f"more than {CONFIGURATIONS_MAX} configurations at bit {wanted}")
        return found

    def freest(self, configurations: set[Configuration]) -> set[Configuration]:
        """Without those that differ from another one only in having used up more unanswered operations."""
        if not self.unanswered or len(configurations) < 2:
            return configurations
        alike: dict[Configuration, list[int]] = {}
        for state, done in configurations:
            alike.setdefault((state, done & ~self.unanswered), []).append(done & self.unanswered)
        kept: set[Configuration] = set()
        for (state, done), used in alike.items():
            least: list[int] = []
            for bits in sorted(used, key=int.bit_count):
                if not any(other & bits == other for other in least):
                    least.append(bits)
                    kept.add((state, done | bits))
        return kept
