"""Coming from Apache ZooKeeper, and going back: its files, read and written.

    importing  exporting    the two commands
    directory               which files make the state           convert    its tree and ours
    snapshot   txnlog       the formats                          replay     what transactions do
    database                ZooKeeper's tree, as replay needs it

ZooKeeper's formats are those of 3.4 to 3.9 (`SerializeUtils`, `FileSnap`, `FileTxnLog` there).
"""

from coord.apache.errors import ApacheDataError, DamagedApacheFileError
from coord.apache.exporting import ExportReport, export_directory
from coord.apache.importing import ImportReport, import_directory

__all__ = [
    "ApacheDataError",
    "DamagedApacheFileError",
    "ExportReport",
    "ImportReport",
    "export_directory",
    "import_directory",
]
