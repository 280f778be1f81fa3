"""Three servers' production storage and Zab peers on disks in memory, for damage that befalls several.

What a server's shell does, here in a few lines: start from the disk, repair while there is no leader
(`repair_all`), let the peers find one and bring the others up to date (`elect`).
"""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from coord.disk import FaultyDisk
from coord.log import SegmentedLog
from coord.log.format import FRAME_HEADER_BYTES, frame_bytes
from coord.server.repairing import begin_repair, history_of
from coord.storage import Epochs, LoggedBatch, LogsToGive, LostLog, inspect_txnlog, restore, salvage
from coord.storage.txnlog import KIND_BATCH, decode_record
from coord.zab import Config, Membership, Message, Peer, Proposal, Recovered, Sid, Status, make_zxid
from coord.zab.repair import Given, PeerStanding, Repair, Span
from tests.coord.storage.conftest import Server, SmallKind, batch
from tests.coord.storage.damage import checkpoint as make_checkpoint

EPOCH = 1
BASE = make_zxid(EPOCH, 0)
SIDS = (1, 2, 3)
TICK_MS = 100


@dataclass
class Frame:
    """Where a group of a log is."""

    path: str
    offset: int
    end: int


@dataclass
class Replica:
    """One server through its lives."""

    sid: int
    disk: FaultyDisk = field(default_factory=FaultyDisk)
    lives: int = 0
    server: Server | None = None
    lost: LostLog | None = None
    repair: Repair | None = None
    peer: Peer | None = None
    status: Status | None = None

    def open(self) -> Server:
        self.lives += 1
        server = self.server = Server(
            self.disk, self.sid * 1000 + self.lives, standalone=False, segment_bytes_max=4096
        )
        self.lost = self.repair = self.peer = None
        loss = server.directory.loss
        if loss is not None:
            self.lost = salvage(server.directory, server.found.store.zxid)
        if loss is not None and self.lost is not None:
            others = frozenset(Sid(sid) for sid in SIDS if sid != self.sid)
            self.repair = begin_repair(self.lost, loss.current_epoch, others)
        return server

    def close(self) -> None:
        assert self.server is not None
        self.server.close()
        self.server = None

    @property
    def is_serving(self) -> bool:
        return self.status is not None and self.status.serving

    @property
    def standing(self) -> PeerStanding:
        assert self.server is not None
        directory = self.server.directory
        if directory.loss is not None:
            return PeerStanding(directory.loss.current_epoch, is_whole=False)
        return PeerStanding(directory.epochs.current, is_whole=directory.epochs.current > 0)

    def batches_above(self, zxid: int) -> Iterator[LoggedBatch]:
        assert self.server is not None
        return LogsToGive(self.server.directory, self.lost).batches_above(self.server.log, zxid)

    def reaches(self, zxid: int) -> bool:
        assert self.server is not None
        return self.lost is not None or self.server.log.oldest_zxid <= zxid

    def claim(self) -> None:
        """Writes the whole log and begins again with it."""
        assert self.server is not None
        assert self.lost is not None
        assert self.repair is not None
        history = history_of(self.repair, self.lost)
        self.server.log.close()
        restore(self.server.directory, self.lost, history, self.server.options)
        self.server.directory.close()
        self.open()

    def logged(self) -> list[tuple[int, int, bytes]]:
        """All batches of the log in use."""
        assert self.server is not None
        log = self.server.log
        return [(one.first, one.last, one.payload) for one in log.batches_above(log.oldest_zxid)]


class Replicas:
    """An ensemble at rest: each has logged the batches 1 to `count` of epoch 1, each in a group of its own,
    and knows those up to `committed` as such.

    Args:
        checkpoint: each has one as of this batch, or by sid; 0: none.
        marked: all but a crash: the log ends with a mark.
        counts: by sid, how many of the batches it has; all without.
    """

    def __init__(
        self,
        count: int,
        *,
        committed: int | None = None,
        marked: bool = True,
        checkpoint: int | dict[int, int] = 0,
        counts: dict[int, int] | None = None,
    ) -> None:
        self.count = count
        self.replicas = [Replica(sid) for sid in SIDS]
        self.frames: dict[tuple[int, int], Frame] = {}
        known = count if committed is None else committed
        for replica in self.replicas:
            server = replica.open()
            server.directory.save_epochs(Epochs(EPOCH, EPOCH))
            taken = checkpoint if isinstance(checkpoint, int) else checkpoint.get(replica.sid, 0)
            for number in range(1, (counts or {}).get(replica.sid, count) + 1):
                server.append(BASE + number, committed=BASE + min(known, number - 1))
                server.step()
                if number <= taken:
                    SmallKind().apply(server.state, batch(BASE + number))
                if number == taken:
                    make_checkpoint(server)
            if marked:
                server.log.append_mark(BASE + known, None)
                server.step()
            server.log.take_durable()
            self._note_frames(replica, server.log._log)
            replica.close()

    def _note_frames(self, replica: Replica, log: SegmentedLog) -> None:
        for record in log.scan():
            logged = decode_record(record.payload, "", 0)
            if logged.kind == KIND_BATCH:
                path = log.path(record.segment)
                start, end = record.frame_start.offset, record.frame_end.offset
                self.frames[replica.sid, logged.last - BASE] = Frame(path, start, end)

    def __getitem__(self, sid: int) -> Replica:
        return self.replicas[sid - 1]

    def damage(self, sid: int, number: int, source: random.Random) -> None:
        """Bad bytes in the batch `number` of one server: its header and seal, its payload, or all of it."""
        frame = self.frames[sid, number]
        content = bytearray(self[sid].disk.content(frame.path))
        length = int.from_bytes(content[frame.offset + 4 : frame.offset + 8], "little")
        assert frame.offset + frame_bytes(length) == frame.end
        match source.randrange(3):
            case 0:
                for start in (frame.offset, frame.end - FRAME_HEADER_BYTES):
                    content[start + source.randrange(FRAME_HEADER_BYTES)] ^= 1 << source.randrange(8)
            case 1:
                at = frame.offset + FRAME_HEADER_BYTES + source.randrange(length)
                content[at] ^= 1 << source.randrange(8)
            case _:
                content[frame.offset : frame.end] = source.randbytes(frame.end - frame.offset)
        self[sid].disk.replace_content(frame.path, bytes(content))

    def destroy_begin(self, sid: int, number: int, length: int) -> None:
        """Other bytes in the place of the first `length` of the batch's frame."""
        frame = self.frames[sid, number]
        content = bytearray(self[sid].disk.content(frame.path))
        content[frame.offset : frame.offset + length] = b"\xa5" * length
        self[sid].disk.replace_content(frame.path, bytes(content))

    def damage_again(self, sid: int, number: int) -> None:
        """A bit of the batch `number`, wherever it is in the log that the server has by now."""
        replica = self[sid]
        assert replica.server is not None
        path = replica.server.directory.log_path()
        rows = [
            (f"{path}/{name}", row.offset)
            for name in replica.disk.list(path)
            if name.startswith("txn.")
            for row in inspect_txnlog(replica.disk, f"{path}/{name}")
            if row.kind == "batch"
        ]
        found, offset = rows[number - 1]
        replica.disk.flip_bit(found, 8 * offset)

    def open(self) -> None:
        for replica in self.replicas:
            replica.open()

    def reopen(self) -> None:
        """All stop in the middle of whatever they do, and start again."""
        for replica in self.replicas:
            replica.close()
            replica.status = None
        self.open()

    # Repair.

    def repair_all(self) -> None:
        """Everybody asks everybody, until nothing moves any more."""
        moves = True
        while moves:
            moves = False
            for replica in self.replicas:
                repair = replica.repair
                if repair is None:
                    continue
                before = repair.spans(), repair.received_bytes
                for other in self.replicas:
                    if other is not replica and not repair.is_done:
                        ask(repair, other)
                if repair.is_done:
                    replica.claim()
                    moves = True
                else:
                    moves = moves or before != (repair.spans(), repair.received_bytes)

    # Zab.

    def elect(self, ms: int = 5_000) -> None:
        """Lets the peers talk; each has its disk answer at once."""
        queue: deque[tuple[Replica, int, Message]] = deque()
        now_ms = 0
        for replica in self.replicas:
            replica.peer = _make_peer(replica)
        for replica in self.replicas:
            assert replica.peer is not None
            for other in SIDS:
                if other != replica.sid:
                    replica.peer.peer_connected(Sid(other), now_ms)
        while now_ms < ms:
            for replica in self.replicas:
                self._carry_out(replica, queue, now_ms)
            while queue:
                receiver, sender, message = queue.popleft()
                assert receiver.peer is not None
                receiver.peer.receive(Sid(sender), message, now_ms)
                self._carry_out(receiver, queue, now_ms)
            if all(replica.is_serving for replica in self.replicas):
                return
            now_ms += TICK_MS // 2
            for replica in self.replicas:
                assert replica.peer is not None
                replica.peer.tick(now_ms)

    def _carry_out(self, replica: Replica, queue: deque[tuple[Replica, int, Message]], now_ms: int) -> None:
        peer, server = replica.peer, replica.server
        assert peer is not None
        assert server is not None
        while True:
            ready = peer.take_ready()
            for sids, message in ready.messages:
                queue.extend((self[sid], replica.sid, message) for sid in sids)
            if ready.persist_epochs is not None:
                accepted, current = ready.persist_epochs.accepted, ready.persist_epochs.current
                server.directory.save_epochs(Epochs(accepted, current))
                peer.epochs_persisted(accepted, current, now_ms)
            assert ready.install_snapshot_from is None
            if ready.truncate_above is not None:
                server.directory.forget_log_end()
                server.log.truncate_above(ready.truncate_above, None)
                server.step()
                server.log.take_durable()
                peer.truncated(ready.truncate_above)
            for one in ready.append:
                server.log.append(one.first_zxid, one.last_zxid, (one.payload,), ready.committed_zxid, None)
                server.step()
                server.log.take_durable()
                peer.logged(one.last_zxid)
            for one in ready.committed:
                SmallKind().apply(server.state, one.payload)
            assert not ready.incidents
            if ready.status is not None:
                replica.status = ready.status
            if not (ready.persist_epochs or ready.append or ready.truncate_above or ready.messages):
                return


def ask(repair: Repair, other: Replica) -> None:
    """A question and its answer, as `coord.server.giving` gives it."""
    standing, spans = other.standing, repair.spans()
    for span in spans:
        for one in other.batches_above(span.above):
            if one.last <= span.upto:
                batch = Proposal(one.first, one.last, one.payload)
                repair.receive(Sid(other.sid), standing, Given(one.previous, batch))
    repair.answered(Sid(other.sid), standing, [span for span in spans if other.reaches(span.above)])


def _make_peer(replica: Replica) -> Peer:
    server = replica.server
    assert server is not None
    found = server.found
    recovered = Recovered(
        accepted_epoch=server.directory.epochs.accepted,
        current_epoch=server.directory.epochs.current,
        executed_zxid=found.executed_zxid,
        after_zxid=found.after_zxid,
        batches=[
            Proposal(one.first, one.last, one.payload) for one in found.batches if one.kind == KIND_BATCH
        ],
        history_lost=found.history_lost,
    )
    return Peer(Config(Sid(replica.sid), Membership.of(SIDS), tick_ms=TICK_MS), recovered, 0)


def expected(count: int) -> list[tuple[int, int, bytes]]:
    """The batches 1 to `count`."""
    return [(zxid, zxid, batch(zxid)) for zxid in range(BASE + 1, BASE + count + 1)]


__all__ = ["BASE", "SIDS", "Replica", "Replicas", "Span", "ask", "expected"]
