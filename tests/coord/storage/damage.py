"""The one-fault matrix: one kind of damage to one file of a coordination server at rest, and what the next
start makes of it; from it the tables of `docs/damage.md`.

`python -m tests.coord.storage.damage docs/damage.md` brings the page up to date; a test holds it there.
"""

import copy
import errno
import functools
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from coord.disk import DiskFault, DiskFile, FaultyDisk
from coord.log import LogDamagedError
from coord.storage import Checkpointer, DataDirectoryError, EnvironmentFailedError, Epochs, RecoveryError
from tests.coord.storage.conftest import Server, batch, state_at

LAST = 14
SECTOR = 512
BEGIN = "<!-- outcomes: made by `python -m tests.coord.storage.damage docs/damage.md` -->\n"
END = "<!-- end of outcomes -->\n"
FILES = {
    "transaction log, older segment": "/txn.0000000000000001",
    "transaction log, newest segment": "/txn.0000000000000002",
    "checkpoint, all of the log there": "/checkpoint/tables",
    "checkpoint, old log removed": "/checkpoint/tables",
    "`current`": "/zoolog/current",
    "`epochs`": "/zoolog/epochs",
    "`end-of-log`": "/zoolog/end-of-log",
}
AT_REST = ("bit flip", "truncated", "zeroed", "misdirected write", "lost")
FETCHES = "fetches the state from its peers"
FETCHES_THE_REST = "keeps its checkpoint, fetches the rest"
IN_USE = ("short read", "EIO on read", "EIO on write", "EIO on fsync", "ENOSPC")


class WrongOutcomeError(AssertionError):
    """Wrong data, or a loss that nobody was told of."""


class StillClock:
    def monotonic_ms(self) -> int:
        return 0

    def wall_ms(self) -> int:
        return 0


class ShortReads(FaultyDisk):
    """Reads of one file give half of what is there."""

    short_path: str | None = None

    def open(self, path: str, *, writable: bool = True, create: bool = False) -> DiskFile:
        file: Any = super().open(path, writable=writable, create=create)
        if self.short_path is not None and self.short_path in path:
            pread = file.pread

            def short(length: int, offset: int) -> bytes:
                data: bytes = pread(length, offset)
                return data[: len(data) // 2]

            file.pread = short
        return file  # type: ignore[no-any-return]


def checkpoint(server: Server) -> EnvironmentFailedError | None:
    checkpointer = Checkpointer(server.found.store, StillClock(), lambda: None, threaded=False)
    checkpointer.begin(server.state)
    while (finished := checkpointer.take_finished()) is None:
        checkpointer.work()
    checkpointer.close()
    return finished.failure


def open_server(disk: FaultyDisk, *, standalone: bool, seed: int) -> Server:
    return Server(disk, seed, standalone=standalone, segment_bytes_max=5000, zero_ahead_bytes=1024)


def lived(*, standalone: bool, purged: bool) -> ShortReads:
    """The disk of a server that stopped in order, a copy of its own for each caller."""
    disk = ShortReads()
    stopped = _lived(standalone, purged)
    disk._names, disk._durable_names, disk._pending_names = copy.deepcopy(
        (stopped._names, stopped._durable_names, stopped._pending_names)
    )
    return disk


@functools.cache
def _lived(standalone: bool, purged: bool) -> FaultyDisk:
    disk = FaultyDisk()
    server = open_server(disk, standalone=standalone, seed=1)
    server.directory.save_epochs(Epochs(2, 2))
    for zxid in range(1, LAST - 2):
        server.write(zxid)
    if checkpoint(server) is not None:
        raise WrongOutcomeError
    if purged:
        server.log.remove_below(server.found.store.zxid, keep_bytes=0)
    for zxid in range(LAST - 2, LAST + 1):
        server.write(zxid)
    stop(server)
    return disk


def stop(server: Server) -> None:
    """As `coord.server.durable` does: a log ends with a mark."""
    server.log.append_mark(server.log.last_zxid, None)
    server.close()
    server.directory.save_log_end(server.log.last_zxid)


def damaged_contents(kind: str, content: bytes, other: bytes) -> Iterator[bytes]:
    """What the file may hold after damage of a kind; `other` is what belongs to another place."""
    source = random.Random(kind)
    sectors = range(0, len(content), SECTOR)
    match kind:
        case "bit flip":
            for at in {source.randrange(len(content)) for _ in range(40)} | {at + 20 for at in sectors}:
                if at < len(content):
                    flipped = content[at] ^ 1 << source.randrange(8)
                    yield content[:at] + bytes((flipped,)) + content[at + 1 :]
        case "truncated":
            for size in {0, 1, len(content) // 2, len(content) - 1, *sectors}:
                yield content[:size]
        case "zeroed":
            yield bytes(len(content))
            for at in sectors:
                piece = content[at : at + SECTOR]
                yield content[:at] + bytes(len(piece)) + content[at + SECTOR :]
        case "misdirected write":
            for at in sectors:
                yield content[:at] + other[:SECTOR] + content[at + SECTOR :]
                elsewhere = source.choice(sectors)
                yield content[:at] + content[elsewhere : elsewhere + SECTOR] + content[at + SECTOR :]
        case _:
            raise ValueError(kind)


def outcomes(file: str, kind: str, *, standalone: bool) -> list[str]:
    """What a start makes of every damage of a kind to a file.

    Raises:
        WrongOutcomeError: wrong data was found, or something acknowledged was gone without a word.
    """
    purged = file.endswith("removed")
    part = FILES[file]
    found: set[str] = set()
    disk = lived(standalone=standalone, purged=purged)
    (path,) = [name for name in disk._names if part in name]
    if kind in IN_USE:
        return sorted(start_in_use(disk, kind, part, standalone=standalone))
    if kind == "lost":
        disk.unlink(path)
        disk.fsync_directory(path.rpartition("/")[0])
        return [start(disk, path, standalone=standalone)]
    content = disk.content(path)
    (other,) = [name for name in disk._names if "/txn.0000000000000002" in name]
    for number, damaged in enumerate(damaged_contents(kind, content, disk.content(other)[SECTOR:])):
        if damaged == content:
            continue
        disk = lived(standalone=standalone, purged=purged)
        disk.replace_content(path, damaged)
        try:
            found.add(start(disk, path, standalone=standalone))
        except WrongOutcomeError as error:
            error.add_note(f"{kind} {number} of {path} ({len(content)} bytes), standalone: {standalone}")
            raise
    return sorted(found)


def start(disk: FaultyDisk, path: str, *, standalone: bool) -> str:
    try:
        server = open_server(disk, standalone=standalone, seed=2)
    except (DataDirectoryError, LogDamagedError, RecoveryError, OSError) as error:
        text = str(error)
        if path not in text and path.rpartition("/")[0] not in text and "/data/zoolog" not in text:
            raise WrongOutcomeError(f"a refusal that does not name {path}: {text}") from error
        return "refuses to start"
    outcome = judge(server)
    server.close()
    return outcome


def judge(server: Server, last: int = LAST) -> str:
    found: Any = server.found
    if found.history_lost:
        if server.directory.epochs != Epochs(2, 0) or found.log.last_zxid != found.executed_zxid:
            raise WrongOutcomeError("a history that is lost and still claimed")
        if found.state.nodes != state_at(found.executed_zxid):
            raise WrongOutcomeError(f"wrong data as of {found.executed_zxid}")
        return FETCHES_THE_REST if found.executed_zxid else FETCHES
    if server.directory.epochs != Epochs(2, 2):
        raise WrongOutcomeError(f"epochs {server.directory.epochs}")
    if found.state.nodes != state_at(found.executed_zxid):
        raise WrongOutcomeError(f"wrong data as of {found.executed_zxid}")
    if any(one.kind == 1 and one.payload != batch(one.last) for one in found.batches):
        raise WrongOutcomeError("wrong batches")
    if found.log.last_zxid < last:
        raise WrongOutcomeError(f"{last} was acknowledged; the history ends at {found.log.last_zxid}")
    return "rebuilt from the log" if found.set_aside else "harmless"


def faults(kind: str, part: str) -> list[DiskFault]:
    number = errno.ENOSPC if kind == "ENOSPC" else errno.EIO
    operation = {"EIO on read": "pread", "EIO on fsync": "fdatasync"}.get(kind, "pwrite")
    # What replaces a file is written under a name of its own; a new segment has a new number.
    part = "/txn." if "/txn." in part and operation != "pread" else part
    return [DiskFault(operation, number, part, times=1000)]


def start_in_use(disk: ShortReads, kind: str, part: str, *, standalone: bool) -> set[str]:
    """Start and go on with a disk that fails; then start once more with one that does not."""
    if kind == "short read":
        disk.short_path = part
    else:
        disk.faults += faults(kind, part)
    acknowledged, outcome = go_on(disk, standalone=standalone)
    disk.faults.clear()
    disk.short_path = None
    disk.restart(lambda _: True)
    try:
        server = open_server(disk, standalone=standalone, seed=3)
    except RecoveryError:
        if outcome == "refuses to start":  # a checkpoint was set aside, and nobody has what was in it
            return {outcome}
        raise
    if outcome not in (FETCHES, FETCHES_THE_REST):
        judge_again(server, acknowledged)
    server.close()
    return {outcome}


def judge_again(server: Server, acknowledged: int) -> None:
    if server.directory.epochs.current < 2:
        raise WrongOutcomeError(f"epochs {server.directory.epochs}")
    if server.log.last_zxid < acknowledged or server.state.nodes != state_at(server.found.executed_zxid):
        raise WrongOutcomeError(
            f"{acknowledged} was acknowledged; the history ends at {server.log.last_zxid}"
        )


def go_on(disk: ShortReads, *, standalone: bool) -> tuple[int, str]:
    """(the last zxid acknowledged, what happened) of a start, a write, a promise and a checkpoint."""
    try:
        server = open_server(disk, standalone=standalone, seed=2)
    except (DataDirectoryError, LogDamagedError, RecoveryError, OSError):
        return LAST, "refuses to start"
    if server.found.history_lost:
        outcome = judge(server)
        server.close()
        return 0, outcome
    outcome = judge(server)
    if server.found.executed_zxid == LAST:
        server.write(LAST + 1)
        if server.log.failure is not None:
            return LAST, "stops"
        failure = checkpoint(server)
        if failure is not None:
            return LAST + 1, "goes on, tries again" if failure.disk_full else "stops"
    acknowledged = server.log.durable_zxid
    try:
        server.directory.save_epochs(Epochs(3, 2))
    except OSError:
        return acknowledged, "stops"
    return acknowledged, outcome


def table(kinds: Sequence[str], *, standalone: bool, of: Callable[..., list[str]] = outcomes) -> str:
    rows = [f"| file | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for file in FILES:
        cells = ["; ".join(of(file, kind, standalone=standalone)) for kind in kinds]
        rows.append(f"| {file} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def page_with_tables(page: str) -> str:
    """The page with its tables made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = []
    for standalone, heading in ((False, "A member of an ensemble"), (True, "A standalone server")):
        parts += [f"### {heading}\n", table(AT_REST, standalone=standalone)]
        parts += [table(IN_USE, standalone=standalone)]
    return f"{before}{BEGIN}\n" + "\n".join(parts) + f"\n{END}{after}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(page_with_tables(target.read_text(encoding="utf-8")), encoding="utf-8")
