"""Files as the logs and stores see them: one interface, the real disk, and a faulty one that lives in memory.

Everything that must survive a crash goes through `Disk`, so that the same code runs in production, in tests
with chosen faults and in the simulator. `coord.disk.small_files` holds what every server keeps beside its
data: a lock, small files replaced atomically, a session to close.
"""

from coord.disk.api import Disk, DiskFile, DiskLock, DiskLockedError
from coord.disk.faulty import DiskFault, FaultyDisk, PowerLossError
from coord.disk.real import RealDisk
from coord.disk.small_files import DamagedFileError, SavedSession, SessionFile, read_checked, replace_checked

__all__ = [
    "DamagedFileError",
    "Disk",
    "DiskFault",
    "DiskFile",
    "DiskLock",
    "DiskLockedError",
    "FaultyDisk",
    "PowerLossError",
    "RealDisk",
    "SavedSession",
    "SessionFile",
    "read_checked",
    "replace_checked",
]
