"""How a learner gets the leader's history (20.5): nothing but what is missing, or a cut first, or the
whole state.

The decision rests on one property of all histories: any two that contain batches of an epoch agree on
everything before that epoch, and within it one is a prefix of the other. (An epoch's leader started from
a history that every later leader has, and sent its batches in one order over links that keep it.) So the
learner has the latest batch of the leader's that is not beyond the learner's own last, and whatever it
has above that is to be cut.
"""

from collections.abc import Iterator

from coord.zab.history import History
from coord.zab.messages import Diff, NewLeader, Propose, Truncate


def begin(history: History, epoch: int, last_zxid: int, end_zxid: int) -> tuple[Diff | Truncate, int] | None:
    """The first message for a learner whose history ends at `last_zxid` and shall end at `end_zxid` at least,
    and the last batch it then has in common with `history`; None if the window does not reach back that far
    and only a snapshot helps.
    """
    if last_zxid < history.floor:
        return None
    common = history.boundary_at_or_below(min(last_zxid, end_zxid))
    if common == last_zxid:
        return Diff(epoch), common
    return Truncate(epoch, common), common


def rest(
    history: History, epoch: int, initial_last: int, common: int, end_zxid: int
) -> Iterator[Propose | NewLeader]:
    """Every batch after `common` up to `end_zxid`, and NewLeader where the initial history ends. Whoever gets
    these gets every later batch from the broadcast. So for who votes the end is that of the history,
    outstanding batches included (chapter 21, lesson 1); for observers it is what is committed.
    """
    previous, told = common, False
    for batch in history.batches_after(common):
        if batch.last_zxid > end_zxid:
            break
        if not told and batch.last_zxid > initial_last:
            yield NewLeader(epoch, initial_last)
            told = True
        yield Propose(epoch, previous, history.committed, batch)
        previous = batch.last_zxid
    if not told:
        yield NewLeader(epoch, initial_last)
