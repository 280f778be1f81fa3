"""When a checkpoint is due: by how much the log has grown, and by time."""

from dataclasses import dataclass

__all__ = ["CheckpointSchedule"]


@dataclass(slots=True)
class CheckpointSchedule:
    """When the next checkpoint is due (all of it on the loop, no clock of its own).

    Attributes:
        transactions_min: ZooKeeper's snapCount, a lower bound only.
        log_bytes_min: and the log has grown by more than this and by more than the state's size...
        interval_ms: ...or so much time has passed since the last one began.
    """

    transactions_min: int = 1
    log_bytes_min: int = 256 << 20
    interval_ms: int = 300_000
    began_ms: int = 0
    began_zxid: int = 0
    began_log_bytes: int = 0

    def due(self, now_ms: int, zxid: int, log_bytes: int, state_bytes: int) -> bool:
        """Whether to begin one now.

        Args:
            zxid: last executed.
            log_bytes: `TxnLog.appended_bytes`.
            state_bytes: about what the whole state takes.
        """
        if zxid == self.began_zxid or abs(zxid - self.began_zxid) < self.transactions_min:
            return False
        grown = log_bytes - self.began_log_bytes
        return grown > max(self.log_bytes_min, state_bytes) or now_ms - self.began_ms >= self.interval_ms

    def begun(self, now_ms: int, zxid: int, log_bytes: int) -> None:
        self.began_ms, self.began_zxid, self.began_log_bytes = now_ms, zxid, log_bytes
