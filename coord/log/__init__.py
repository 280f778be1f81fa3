"""A segmented append-only log with group commit: the coordination servers' transaction log and the bookies'
store stand on it.

    log = open_log(disk, "/data/log", "txn", tag=generation)     # repairs a torn tail, refuses damage
    for record in log.scan(): ...                              # everything durable, in order
    writer = LogWriter(log, notify=wakeup.set)                 # a thread; threaded=False: writer.step()
    writer.append([header, payload], token)                    # on the loop
    for appended in writer.take_durable(): ...                 # on the loop, after notify
    log.read(appended.segment, appended.offset, appended.length)   # exactly the joined parts

What is on disk: `coord.log.format`. Who may call what from where: `coord.log.writer`.
"""

from coord.log.failure import fail_stop
from coord.log.format import LogDamagedError, LogTailDamagedError
from coord.log.inspect import SegmentRow, inspect_segment
from coord.log.opening import open_log
from coord.log.salvage import Hole, salvage_log
from coord.log.segments import LogConfig, Position, Record, SegmentedLog, TornTail
from coord.log.writer import Appended, DiskFullError, Finished, LogFailedError, LogQueueFullError, LogWriter

__all__ = [
    "Appended",
    "DiskFullError",
    "Finished",
    "Hole",
    "LogConfig",
    "LogDamagedError",
    "LogFailedError",
    "LogQueueFullError",
    "LogTailDamagedError",
    "LogWriter",
    "Position",
    "Record",
    "SegmentRow",
    "SegmentedLog",
    "TornTail",
    "fail_stop",
    "inspect_segment",
    "open_log",
    "salvage_log",
]
