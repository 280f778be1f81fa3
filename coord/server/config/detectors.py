"""Keys of failure detection: when a peer that says nothing is taken for dead."""

from dataclasses import dataclass

from coord.server.config.keys import between, count, key
from coord.zab import Detection
from coord.zab.detection import THRESHOLD_MAX, Kind


def kind(text: str) -> Kind:
    match text:
        case "fixed":
            return "fixed"
        case "phi":
            return "phi"
    raise ValueError("must be fixed or phi")


@dataclass(frozen=True, slots=True)
class DetectorsConfig:
    """When a silent peer is taken for dead."""

    peers: Kind = key(
        "detector.peers",
        kind,
        "fixed",
        "how leader and followers watch each other: `fixed`, by `syncLimit` ticks of silence; `phi`, by how "
        "regularly the other was heard until now",
    )
    peers_threshold: int = key(
        "detector.peers.threshold",
        between(1, THRESHOLD_MAX),
        8,
        "phi: how sure it must be; at N one in 10^N silences is a mistake",
    )
    peers_minimum_ms: int = key(
        "detector.peers.minimumMs",
        count,
        0,
        "phi: milliseconds of silence before which nobody is suspected",
        shown="2 × tickTime",
    )
    observers: Kind = key(
        "detector.observers", kind, "fixed", "the same between the leader and its observers"
    )
    observers_threshold: int = key("detector.observers.threshold", between(1, THRESHOLD_MAX), 8, "the same")
    observers_minimum_ms: int = key(
        "detector.observers.minimumMs", count, 0, "the same", shown="2 × tickTime"
    )

    def of_peers(self) -> Detection:
        return Detection(self.peers, self.peers_threshold, self.peers_minimum_ms)

    def of_observers(self) -> Detection:
        return Detection(self.observers, self.observers_threshold, self.observers_minimum_ms)
