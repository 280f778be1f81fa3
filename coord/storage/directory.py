"""A coordination server's data directory: one owner at a time, one generation of state, and what was promised
to peers.

    <dataDir>/zoolog/lock                            flock'd for as long as the server runs
    <dataDir>/zoolog/current                         zoolog-generation 1 <generation>
                                                         [<of its log> [<feature level>]] <crc>
    <dataDir>/zoolog/epochs                          zoolog-epochs 1 <accepted> <current> <crc>
    <dataDir>/zoolog/owner                           whose promises they are (`coord.storage.owner`)
    <dataDir>/zoolog/history-lost                    zoolog-history-lost 1 <of the log> <current epoch>
                                                         <generation> <end-of-log: zxid> <exact|passed>
                                                         <crc>
    <dataDir>/zoolog/diverged                        its state is wrong (`coord.storage.divergence`)
    <dataDir>/zoolog/end-of-log                      zoolog-end-of-log 1 <of the log> <zxid> [passed] <crc>
    <dataDir>/zoolog/generation-<generation>/        checkpoint environment
    <dataLogDir>/zoolog/lock                         if dataLogDir is another directory
    <dataLogDir>/zoolog/log-<of the log>/txn.<n>     transaction log
    <dataLogDir>/zoolog/set-aside-log-<of the log>   a log that could not be trusted, kept as evidence

A *generation* is one unbroken history of the state on this disk, named by random bits. A snapshot from the
leader is received into a new generation, and replacing the one line of `current` is the moment at which the
server has the new state; the log segments of another generation, which lead to another state, are in another
directory and carry another tag, so they are never replayed onto this one.

A log that is damaged is replaced on its own: its checkpoint stays, and the line of `current` names beside the
generation that of the log in use. What was lost with it is written down in `history-lost` (`Loss`), until a
leader has made it good or the log was repaired from those of the peers (`coord.storage.salvage`).

The feature level says which releases can read the directory. One that knows no such thing does not start on a
directory that has one: it would take what it does not know for damage, and set it aside.

The epochs are promises to peers (a server that forgets them may vote twice). They do not belong to a
generation and are never rebuilt: if they cannot be read, the server does not start.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from coord.disk import DamagedFileError, Disk, DiskLock, SessionFile, read_checked, replace_checked

__all__ = [
    "DataDirectory",
    "DataDirectoryError",
    "Epochs",
    "ForeignDataError",
    "Loss",
    "open_data_directory",
]

FIRST_LEVEL = 1
"""Of an ensemble that has not raised its feature level."""
_ROOT = "zoolog"
_GENERATION_KIND = "zoolog-generation"
_EPOCHS_KIND = "zoolog-epochs"
_LOST_KIND = "zoolog-history-lost"
_END_KIND = "zoolog-end-of-log"
_SET_ASIDE = "set-aside-"
_EXACT, _PASSED = "exact", "passed"
_HEX_DIGITS = set("0123456789abcdef")


class DataDirectoryError(Exception):
    """The data directory cannot be used; the text is one line for the operator. Nothing was changed."""


class ForeignDataError(DataDirectoryError):
    """The directory holds Apache ZooKeeper's data and none of ours: starting would silently begin with
    nothing.
    """


@dataclass(frozen=True, slots=True)
class Epochs:
    """What this server promised (20.2): it accepts no leader below `accepted`; its history is that of
    `current`.
    """

    accepted: int = 0
    current: int = 0


@dataclass(frozen=True, slots=True)
class LogEnd:
    """What a log must reach; 0 if nothing is known. It ends exactly there if the server stopped in order and
    has not been started since.
    """

    zxid: int = 0
    is_exact: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """A history that this server has lost and has not got back yet.

    Attributes:
        log_generation: of the log that was set aside.
        current_epoch: what the server had when it could still prove it.
        generation: of the checkpoint that the log belongs to; when another has become current, a leader has
            sent a snapshot, and what was set aside leads nowhere.
        end: as far as is known.
    """

    log_generation: str
    current_epoch: int = 0
    generation: str = ""
    end: LogEnd = LogEnd()


class DataDirectory:
    """An open, locked data directory; made by `open_data_directory`.

    Attributes:
        generation: the current one, 16 hex digits.
        log_generation: of its log, mostly the same.
        level: releases that know a lower feature level only must not start on it.
        epochs: as last saved.
        loss: what this server has lost and not got back; None normally.
    """

    def __init__(
        self,
        disk: Disk,
        root: str,
        log_root: str,
        generation: str,
        log_generation: str,
        level: int,
        epochs: Epochs,
        locks: list[DiskLock],
        new_id: Callable[[], bytes],
        loss: Loss | None,
    ) -> None:
        self._locks = locks
        self._new_id = new_id
        self.disk = disk
        self.root = root
        self.log_root = log_root
        self.generation = generation
        self.log_generation = log_generation
        self.level = level
        self.epochs = epochs
        self.loss = loss

    def save_epochs(self, epochs: Epochs) -> None:
        """Durable when this returns.

        Raises:
            ValueError: lower than what was saved before, or current above accepted (20.2).
            OSError: the process must stop.
        """
        saved = self.epochs
        if (
            epochs.accepted < saved.accepted
            or epochs.current < saved.current
            or epochs.current > epochs.accepted
        ):
            raise ValueError(f"expected epochs from {saved} upwards, got {epochs}")
        _write_epochs(self.disk, self.root, epochs)
        self.epochs = epochs
        if epochs.current > 0 and self.loss is not None:
            _forget_loss(self.disk, self.root)
            self.loss = None

    def lose_history(self, *, keep_checkpoint: bool) -> None:
        """Begin an empty log, with the old one set aside: nothing of it is claimed any more. Of a history
        that is lost already nothing more is known afterwards than before.

        In this order, so that no crash leaves a server that counts without its history: the file
        `history-lost`, the current epoch (0), the switch, the renames.

        Args:
            keep_checkpoint: it is good, and the empty log begins behind it; else the whole generation is new.

        Raises:
            OSError: the server must not start.
        """
        log_generation = self.new_log() if keep_checkpoint else self.new_generation()
        generation = self.generation if keep_checkpoint else log_generation
        loss = self.loss
        if loss is None:
            loss = Loss(self.log_generation, self.epochs.current, generation, self.read_log_end())
        elif loss.log_generation == self.log_generation or loss.generation == self.generation:
            loss = replace(loss, generation=generation)
        _write_loss(self.disk, self.root, loss)
        self.loss = loss
        self.epochs = Epochs(self.epochs.accepted, 0)
        _write_epochs(self.disk, self.root, self.epochs)
        self._point_to(generation, log_generation)
        self.remove_other_generations()

    def restore_history(self, log_generation: str) -> None:
        """Claim what was lost again: the log of this generation, made by `new_log` and durable, holds all of
        it, behind the checkpoint that is current.

        First the log, then the epoch, which ends the loss; after a crash in between the repair begins anew.

        Raises:
            OSError: the server must not start.
        """
        assert self.loss is not None
        assert self.loss.generation == self.generation
        self._point_to(self.generation, log_generation)
        self.save_epochs(Epochs(self.epochs.accepted, self.loss.current_epoch))
        self.remove_other_generations()

    def save_log_end(self, zxid: int) -> None:
        """The log is durable up to here and ends, and the next start shall not believe less."""
        replace_checked(
            self.disk, os.path.join(self.root, "end-of-log"), _END_KIND, (self.log_generation, str(zxid))
        )

    def read_log_end(self) -> LogEnd:
        """Of the log in use."""
        try:
            words = read_checked(self.disk, os.path.join(self.root, "end-of-log"), _END_KIND)
        except DamagedFileError:
            return LogEnd()
        if words is None or words[0] != self.log_generation:
            return LogEnd()
        return LogEnd(int(words[1]), is_exact=len(words) == 2)

    def pass_log_end(self) -> None:
        """To be called before the log is appended to.

        Raises:
            OSError: the server must not start.
        """
        end = self.read_log_end()
        if not end.is_exact:
            return
        words = (self.log_generation, str(end.zxid), _PASSED)
        try:
            replace_checked(self.disk, os.path.join(self.root, "end-of-log"), _END_KIND, words)
        except OSError:
            self.forget_log_end()

    def forget_log_end(self) -> None:
        """To be called before the log is truncated."""
        path = os.path.join(self.root, "end-of-log")
        if self.disk.exists(path):
            self.disk.unlink(path)
            self.disk.fsync_directory(self.root)

    def checkpoint_path(self, generation: str | None = None) -> str:
        """Directory of the checkpoint's environment (not made here)."""
        return os.path.join(self.root, f"generation-{generation or self.generation}", "checkpoint")

    def log_path(self, log_generation: str | None = None) -> str:
        return os.path.join(self.log_root, f"log-{log_generation or self.log_generation}")

    def lost_log_path(self) -> str | None:
        """Where the log is that was lost, if it is still of use."""
        loss = self.loss
        if loss is None or loss.current_epoch == 0 or loss.generation != self.generation:
            return None
        path = os.path.join(self.log_root, f"{_SET_ASIDE}log-{loss.log_generation}")
        return path if self.disk.exists(path) else None

    def set_aside_log(self) -> tuple[str, str] | None:
        """Where the log is that was set aside last, of use to this server or not, and its generation."""
        prefix = f"{_SET_ASIDE}log-"
        for name in self.disk.list(self.log_root):
            if name.startswith(prefix):
                return os.path.join(self.log_root, name), name.removeprefix(prefix)
        return None

    def session_file(self) -> SessionFile:
        return SessionFile(self.disk, self.root)

    def new_generation(self) -> str:
        """Make the empty directories of a new generation; it is not current yet."""
        generation = self._new_id().hex()
        _make_generation(self.disk, self.root, self.log_root, generation)
        return generation

    def new_log(self) -> str:
        """As `new_generation`, for a log alone."""
        log_generation = self._new_id().hex()
        self.disk.make_directory(os.path.join(self.log_root, f"log-{log_generation}"))
        return log_generation

    def switch(self, generation: str) -> None:
        """Make a completely written and fsynced generation the current one: the one atomic step of installing
        a snapshot.
        """
        self._point_to(generation, generation)

    def raise_level(self, level: int) -> None:
        """To be called before anything is written that releases of a lower feature level cannot read; for
        good. Durable when this returns.

        Raises:
            OSError: the process must stop.
        """
        self.level = max(self.level, level)
        self._point_to(self.generation, self.log_generation)

    def _point_to(self, generation: str, log_generation: str) -> None:
        words: tuple[str, ...] = (generation, log_generation, str(self.level))
        if self.level == FIRST_LEVEL:
            words = (generation,) if log_generation == generation else (generation, log_generation)
        replace_checked(self.disk, os.path.join(self.root, "current"), _GENERATION_KIND, words)
        self.generation, self.log_generation = generation, log_generation

    def remove_other_generations(self) -> None:
        """Remove everything that does not belong to the current generation (left by a switch, or a crash
        before one); a log that was lost is set aside, in place of an older one.
        """
        lost = f"log-{self.loss.log_generation}" if self.loss is not None else ""
        for directory, prefix, current in (
            (self.root, "generation-", self.generation),
            (self.log_root, "log-", self.log_generation),
        ):
            for name in self.disk.list(directory):
                if not name.startswith(prefix) or name == prefix + current:
                    continue
                if name == lost:
                    self._set_aside(directory, name)
                else:
                    self.disk.remove_tree(os.path.join(directory, name))
            self.disk.fsync_directory(directory)

    def _set_aside(self, directory: str, name: str) -> None:
        for older in self.disk.list(directory):
            if older.startswith(_SET_ASIDE):
                self.disk.remove_tree(os.path.join(directory, older))
        self.disk.rename(os.path.join(directory, name), os.path.join(directory, _SET_ASIDE + name))

    def close(self) -> None:
        """Release the locks."""
        for lock in self._locks:
            lock.release()
        self._locks.clear()


def open_data_directory(
    disk: Disk,
    data_dir: str,
    data_log_dir: str | None = None,
    *,
    new_id: Callable[[], bytes] = lambda: secrets.token_bytes(8),
) -> DataDirectory:
    """Lock the directory and find, or in an empty one make, this server's state.

    Args:
        data_log_dir: where the transaction log goes, None: to `data_dir`.
        new_id: 8 random bytes; from the seed in simulation.

    Raises:
        ForeignDataError: Apache's data without ours.
        DataDirectoryError: ours is damaged or incomplete.
        DiskLockedError: another server runs on it.
        OSError: the disk failed.
    """
    log_dir = data_log_dir or data_dir
    for directory in dict.fromkeys((data_dir, log_dir)):
        _refuse_foreign(disk, directory)
    root, log_root = os.path.join(data_dir, _ROOT), os.path.join(log_dir, _ROOT)
    locks: list[DiskLock] = []
    try:
        for directory in dict.fromkeys((root, log_root)):
            disk.make_directory(directory)
            locks.append(disk.lock(os.path.join(directory, "lock")))
        try:
            current = _read_current(disk, root, log_root)
            epochs = _read_epochs(disk, root)
            loss = _read_loss(disk, root, epochs)
        except DamagedFileError as damage:
            raise DataDirectoryError(
                f"{damage}; restore the file, or empty the directory to rejoin as new"
            ) from damage
        if current is None:
            if epochs is None:
                _write_epochs(disk, root, Epochs())
            generation = new_id().hex()
            _make_generation(disk, root, log_root, generation)
            replace_checked(disk, os.path.join(root, "current"), _GENERATION_KIND, (generation,))
            current = (generation, generation, FIRST_LEVEL)
        elif epochs is None:
            raise DataDirectoryError(
                f"{root} has state but no epochs file: what was promised to peers is lost"
            )
        opened = DataDirectory(disk, root, log_root, *current, epochs or Epochs(), locks, new_id, loss)
        if not disk.exists(opened.log_path()):
            what = f"the transaction log of generation {opened.log_generation} is not in {log_root}"
            raise DataDirectoryError(f"{what}: was dataLogDir changed?")
        opened.remove_other_generations()
        return opened
    except BaseException:
        for lock in locks:
            lock.release()
        raise


def _refuse_foreign(disk: Disk, directory: str) -> None:
    foreign = os.path.join(directory, "version-2")
    if disk.exists(foreign) and not disk.exists(os.path.join(directory, _ROOT)):
        what = (
            "holds Apache ZooKeeper's data and there is no state of ours beside it: the tree would be empty"
        )
        do = "take it over with 'zoolog coord import', or choose another dataDir and dataLogDir"
        raise ForeignDataError(f"{foreign} {what}; {do}")


def _read_current(disk: Disk, root: str, log_root: str) -> tuple[str, str, int] | None:
    """Generation, that of its log, and the feature level."""
    words = read_checked(disk, os.path.join(root, "current"), _GENERATION_KIND)
    if words is None:
        # A first start that was interrupted leaves empty directories. Anything in them had a pointer once.
        for directory, prefix in ((root, "generation-"), (log_root, "log-")):
            for name in disk.list(directory):
                path = os.path.join(directory, name)
                if name.startswith(prefix) and disk.list(path):
                    raise DataDirectoryError(
                        f"{path} holds state, but {root}/current, which names the valid one, is missing"
                    )
        return None
    level = words[2] if len(words) == 3 else str(FIRST_LEVEL)
    if (
        len(words) > 3
        or any(len(word) != 16 or not set(word) <= _HEX_DIGITS for word in words[:2])
        or not (level.isascii() and level.isdigit() and len(level) <= 6)
    ):
        what = f"expected 16 hex digits, once or twice, and perhaps a feature level, got {words!r}"
        raise DamagedFileError(f"{root}/current: {what}")
    return words[0], words[1] if len(words) > 1 else words[0], int(level)


def _make_generation(disk: Disk, root: str, log_root: str, generation: str) -> None:
    disk.make_directory(os.path.join(log_root, f"log-{generation}"))
    disk.make_directory(os.path.join(root, f"generation-{generation}"))


def _read_loss(disk: Disk, root: str, epochs: Epochs | None) -> Loss | None:
    """What was lost and not made good; with a current epoch the loss had not begun, or is over."""
    words = read_checked(disk, os.path.join(root, "history-lost"), _LOST_KIND)
    if words is None:
        return None
    if epochs is not None and epochs.current > 0:
        _forget_loss(disk, root)
        return None
    if len(words) != 5 or not (words[1] + words[3]).isdigit():
        return Loss(words[0])  # nothing to repair it by
    return Loss(words[0], int(words[1]), words[2], LogEnd(int(words[3]), words[4] == _EXACT))


def _write_loss(disk: Disk, root: str, loss: Loss) -> None:
    end = str(loss.end.zxid), _EXACT if loss.end.is_exact else _PASSED
    words = (loss.log_generation, str(loss.current_epoch), loss.generation, *end)
    replace_checked(disk, os.path.join(root, "history-lost"), _LOST_KIND, words)


def _forget_loss(disk: Disk, root: str) -> None:
    disk.unlink(os.path.join(root, "history-lost"))
    disk.fsync_directory(root)


def _read_epochs(disk: Disk, root: str) -> Epochs | None:
    path = os.path.join(root, "epochs")
    words = read_checked(disk, path, _EPOCHS_KIND)
    if words is None:
        return None
    if len(words) != 2 or not all(word.isascii() and word.isdigit() and len(word) <= 10 for word in words):
        raise DamagedFileError(f"{path}: expected two numbers, got {words!r}")
    epochs = Epochs(int(words[0]), int(words[1]))
    if epochs.current > epochs.accepted:
        raise DamagedFileError(
            f"{path}: the current epoch {epochs.current} is above the accepted {epochs.accepted}"
        )
    return epochs


def _write_epochs(disk: Disk, root: str, epochs: Epochs) -> None:
    replace_checked(
        disk, os.path.join(root, "epochs"), _EPOCHS_KIND, (str(epochs.accepted), str(epochs.current))
    )
