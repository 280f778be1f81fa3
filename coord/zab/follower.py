"""What a leader knows of one learner: how far it has come, and from when on it counts."""

from enum import IntEnum, auto

from coord.zab.detection import Detector
from coord.zab.messages import FollowerInfo, Sid
from coord.zab.quorum import Standing


class Progress(IntEnum):
    """How far a learner has come."""

    INFORMED = auto()
    """Its FollowerInfo is here."""
    ACCEPTED = auto()
    """It acked the epoch."""
    SNAPSHOT = auto()
    """It is being sent the state; it gets no batches."""
    JOINED = auto()
    """It is sent every batch; it has not acked NewLeader."""
    SYNCED = auto()
    """It acked NewLeader; its log counts if its voice does."""


class Follower:
    """What the leader knows of one learner."""

    __slots__ = (
        "accepted_epoch",
        "attempt",
        "counts",
        "counts_from_serial",
        "detector",
        "disk_ms",
        "echoed_serial",
        "feature_level",
        "logged",
        "observes",
        "progress",
        "promised",
        "reports",
        "sid",
        "standing",
        "voice",
        "wants_snapshot",
    )

    def __init__(self, sid: Sid, info: FollowerInfo, detector: Detector) -> None:
        self.sid = sid
        self.attempt = info.attempt
        self.accepted_epoch = info.accepted_epoch
        self.standing = Standing(info.current_epoch, info.last_zxid)
        self.observes = info.observes
        self.feature_level = info.feature_level
        self.progress = Progress.INFORMED
        self.promised = False
        """Its AckEpoch is a vote for the epoch."""
        self.voice = False
        """It had history when it acked the epoch."""
        self.counts = False
        """It is SYNCED and its log counts."""
        self.counts_from_serial = 0
        """The confirmation round after which a learner without voice counts; 0: none asked for."""
        self.wants_snapshot = False
        self.reports = False
        """It sends digests of its state, and understands what is said of them."""
        self.echoed_serial = 0
        self.disk_ms = 0
        self.logged = 0
        self.detector = detector
