"""How a server whose log is damaged gets back what was in it, entry by entry, from logs that may be damaged
too (protocol-aware recovery: Alagappan et al., FAST 2018).

A damaged server claims nothing (its current epoch is 0, `coord.zab.quorum.countable`). If the others are a
quorum, their leader brings it up to date. If they are not, because several are damaged, nobody leads, and
what one lacks another may have. A server whose log is whole again, each batch that it has ever logged in
its place, is exactly who it was: all its promises were kept, so it may claim its epoch as if nothing had
happened.

Why what peers give can be believed. *A zxid names one batch*: it was proposed once, by the one leader of its
epoch, behind one other batch. So the batch that ends in a zxid is the same on every server that has it,
whatever else that server went through, and so is the one before it. The history is therefore put together
backwards, from the last batch that the log is known to have had, each batch naming the one before it; what
peers give that is not on this chain (a tail that was cut here) is never looked at.

                checkpoint     good       hole        good      the end
                    | . . . . . ###########      ############## ?
                    <---------- chain, backwards --------------->

What follows the last good batch is harder, for nothing names it. `tail_bytes` may say how many bytes of
batches there were; then peers give what follows, until as much is there. They may give what this server never
had: within its own epoch that is no harm, it is as if its leader had reached it. Batches of an older epoch
count only from a server of the same current epoch, whose history is the same up to that epoch. Batches of a
later epoch were never acknowledged here, and are not needed.

What nobody has. It may be cut off, with all behind it, if it certainly was not committed and never will be:

*  a server with a whole history of a *later* epoch lacks it: such a history has all that was committed
   before;
*  or every other participant, each with a whole history and without a leader when it answered, lacks it. The
   leader of the batch's epoch is one of them, or this server itself, and leads no more.

Who has something behind the end that this server may not take lacks nothing: it might be just that. And
nothing is cut up to what this server knows as committed, nor if no other has a vote. Anything less is no
proof, and the server waits: for peers that are away, or for an operator.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from coord.zab.messages import Proposal, Sid, epoch_of

ZXID_MAX = 0x7FFFFFFFFFFFFFFF
SPANS_MAX = 256
"""Asked for at once; more holes are asked for in further rounds."""


class RepairConflictError(Exception):
    """What is left of this server's log contradicts what its peers have. Nothing can be claimed."""


class Span(NamedTuple):
    """Batches that end above a zxid and up to another. Up to `ZXID_MAX`: all that follow."""

    above: int
    upto: int


@dataclass(frozen=True, slots=True)
class Given:
    """A batch and the last zxid before it in its sender's history."""

    previous_zxid: int
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class PeerStanding:
    """What a peer says of itself when it answers.

    Attributes:
        current_epoch: that of its history, damaged or not.
        is_whole: it can prove its history: nothing of it is missing.
        is_led: it follows or leads, agreed upon or not: what it lacks may be on its way, and proves nothing.
    """

    current_epoch: int
    is_whole: bool
    is_led: bool = False


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of the log.

    Attributes:
        base_zxid: what is before it is in the checkpoint.
        previous: of each batch that is good, by its last zxid, the last zxid before it.
        end_zxid: the last batch that was certainly there, good or not; at least `base_zxid`.
        tail_bytes: payload bytes of the batches that were there behind it; None: not known.
        end_zxid_min: without proof of the end, it is not below this.
        committed_zxid: the highest known committed.
        current_epoch: what the server claimed.
    """

    base_zxid: int
    previous: Mapping[int, int]
    end_zxid: int
    tail_bytes: int | None
    end_zxid_min: int
    committed_zxid: int
    current_epoch: int


class Repair:
    """One damaged log on its way back. Memory: the payloads of what is missing.

    Args:
        others: the participants of the ensemble without this server.
    """

    def __init__(self, remains: Remains, others: frozenset[Sid]) -> None:
        self._remains = remains
        self._others = others
        self._end = remains.end_zxid
        self._tail_bytes = remains.tail_bytes
        self._end_min = remains.end_zxid_min
        self._ordered = sorted(remains.previous)
        self._given: dict[int, Given] = {}
        self._following: dict[int, Given] = {}
        """By the zxid before it: what the end may be extended by."""
        self._going_on: dict[int, set[Sid]] = {}
        """By a zxid: who has a batch behind it that this server may have acknowledged."""
        self._lacking: dict[Span, set[Sid]] = {}
        self._lacking_later: set[Span] = set()
        self.received_bytes = 0
        self.is_cut = False
        """What was behind the end is given up, because nobody has it."""
        self._advance()

    # What a shell asks.

    @property
    def is_done(self) -> bool:
        """Nothing is missing: `history` is what this server had."""
        return self._tail_bytes == 0 and not self._missing()

    def spans(self) -> list[Span]:
        """What is missing, the oldest first; empty once all is there."""
        spans = [Span(above, at) for at, above in reversed(self._missing())]
        if self._tail_bytes != 0:
            spans.append(Span(self._end, ZXID_MAX))
        return spans[:SPANS_MAX]

    def history(self) -> list[int]:
        """The last zxids of all batches behind the checkpoint, in order; when done."""
        assert self.is_done
        chain = []
        at = self._end
        while at > self._remains.base_zxid:
            chain.append(at)
            at = self._previous_of(at)
        return chain[::-1]

    def given(self, zxid: int) -> Given | None:
        """The peers' batch that ends here; None where this server's own is good."""
        return None if zxid in self._remains.previous else self._given[zxid]

    @property
    def repaired(self) -> int:
        """How many batches of the history are the peers', when done."""
        return sum(zxid not in self._remains.previous for zxid in self.history())

    @property
    def end_zxid(self) -> int:
        """Where the history ends, as far as is known by now."""
        return self._end

    # What a shell tells.

    def receive(self, sid: Sid, standing: PeerStanding, given: Given) -> None:
        """One batch of an answer. What is here already is ignored.

        Raises:
            RepairConflictError
        """
        zxid, payload = given.proposal.last_zxid, given.proposal.payload
        if zxid in self._remains.previous or zxid <= self._remains.base_zxid:
            return
        if zxid not in self._given:
            self._given[zxid] = given
            self.received_bytes += len(payload)
        known = self._given[zxid]
        if known != given:
            raise RepairConflictError(f"two different batches end at {zxid:#x}")
        current_epoch, epoch = self._remains.current_epoch, epoch_of(zxid)
        if epoch <= current_epoch:
            self._going_on.setdefault(given.previous_zxid, set()).add(sid)
            if epoch == current_epoch or standing.current_epoch == current_epoch:
                self._following[given.previous_zxid] = known

    def answered(self, sid: Sid, standing: PeerStanding, lacked: list[Span]) -> None:
        """`sid` has sent all that it has of what it was asked for; `lacked` are the spans of which it would
        know every batch, given or not.

        Raises:
            RepairConflictError
        """
        if standing.is_whole and not standing.is_led:
            later = standing.current_epoch > self._remains.current_epoch
            for span in lacked:
                if span.upto == ZXID_MAX and sid in self._going_on.get(span.above, ()):
                    continue
                what = span if span.upto == ZXID_MAX else _batch(span.upto)
                if later:
                    self._lacking_later.add(what)
                self._lacking.setdefault(what, set()).add(sid)
        self._advance()

    # How it comes to its end.

    def _advance(self) -> None:
        while self._extend() or self._cut():
            pass

    def _extend(self) -> bool:
        """Moves the end by what follows it; or finds it where it is."""
        if self._tail_bytes == 0:
            return False
        following = self._following.get(self._end)
        if following is not None:
            self._end = following.proposal.last_zxid
            if self._tail_bytes is not None:
                self._tail_bytes -= len(following.proposal.payload)
                if self._tail_bytes < 0:  # something else was there, of a later epoch
                    self._tail_bytes = None
            return True
        if self._nobody_has(Span(self._end, ZXID_MAX)) and self._end >= self._end_min:
            self._tail_bytes = 0
            self.is_cut = True
            return True
        return False

    def _cut(self) -> bool:
        """Takes the end back before a batch that nobody has, to the last good one. What was between the two,
        if there was something, follows that one in somebody's history.
        """
        for at, above in self._missing():
            if self._nobody_has(_batch(at)) and above >= self._remains.committed_zxid:
                self._end, self._tail_bytes = above, None
                self._end_min = self._remains.committed_zxid
                self.is_cut = True
                return True
        return False

    def _nobody_has(self, what: Span) -> bool:
        """Is it proved that no committed history has it?"""
        lacking = self._lacking.get(what, set())
        return what in self._lacking_later or bool(self._others and self._others <= lacking)

    def _missing(self) -> list[tuple[int, int]]:
        """Of each hole, the newest first: the batch that is missing, and a zxid that is before it. The chain
        breaks there, and goes on, as far as one can tell, with the next good batch below.
        """
        base = self._remains.base_zxid
        missing = []
        at = self._end
        while at > base:
            previous = self._remains.previous.get(at)
            if previous is None:
                given = self._given.get(at)
                previous = None if given is None else given.previous_zxid
            if previous is None:
                index = bisect_left(self._ordered, at)
                previous = max(self._ordered[index - 1], base) if index else base
                missing.append((at, previous))
            at = previous
        if at < base:
            raise RepairConflictError(
                f"the batch behind {at:#x} is behind the checkpoint too, which is of {base:#x}"
            )
        return missing

    def _previous_of(self, zxid: int) -> int:
        previous = self._remains.previous.get(zxid)
        return self._given[zxid].previous_zxid if previous is None else previous


def _batch(zxid: int) -> Span:
    """The one batch that ends here, as something that can be lacked."""
    return Span(0, zxid)
