"""The two ways a Zab peer says no to its own server."""


class NotLeadingError(Exception):
    """This server cannot propose now: it does not lead, its epoch is not established, too much is
    outstanding, or it has used up its epoch's zxids. Nothing was proposed.
    """


class FeatureLevelError(Exception):
    """The ensemble is at a feature level that this release does not know. The server must stop; nothing was
    changed.
    """


class HistoryConflictError(Exception):
    """The ensemble's history contradicts what this server knows as committed: someone lost or replaced
    disks. The server must stop; an operator decides which history is right. Nothing was changed on disk.
    """
