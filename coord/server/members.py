"""The members of an ensemble with their addresses, as the state keeps them: canonical text and back
(specification 19.2).

The state is what counts: it goes through the log, and all replicas agree on it. The lines of zoo.cfg are what
a server starts with before it has any state, and what an ensemble without reconfiguration is brought to.
"""

from dataclasses import dataclass, replace

from coord.protocol.batch import change_in
from coord.server.config import ConfigError, PeerAddress, ServerConfig
from coord.server.config.members import parse_members
from coord.server.config.quorums import QuorumGroups, parse_quorum_groups
from coord.tree import DataTree
from coord.tree.membership import configuration_of, decode_change
from coord.zab import Membership, Sid

KINDS = ("server", "group", "weight")


@dataclass(frozen=True, slots=True)
class Members:
    """One configuration: servers in the order of their numbers."""

    servers: tuple[PeerAddress, ...]
    groups: QuorumGroups | None = None
    version: int = 0

    @classmethod
    def of_config(cls, config: ServerConfig) -> "Members":
        """As zoo.cfg says."""
        return cls(config.servers, config.quorum_groups)

    @classmethod
    def of_state(cls, tree: DataTree) -> "Members | None":
        """As the state says; None before the ensemble's first leader has written it down."""
        found = configuration_of(tree)
        return None if found is None else cls.parse(found[1], found[0])

    @classmethod
    def parse(cls, text: str, version: int = 0) -> "Members":
        """Reads lines, or parts between commas; a `version` line is passed over.

        Raises:
            ConfigError: they are no configuration.
        """
        found: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
        for line in text.replace(",", "\n").split("\n"):
            name, equals, value = line.strip().partition("=")
            kind, _, number = name.strip().partition(".")
            if not name or name == "version":
                continue
            if not equals or kind not in found:
                raise ConfigError(f"expected a server, group or weight line, got {line[:100]!r}")
            found[kind].append((number, value.strip()))
        servers = parse_members(found["server"])
        voters = [peer.sid for peer in servers if not peer.is_observer]
        return cls(servers, parse_quorum_groups(found["group"], found["weight"], voters), version)

    @property
    def voters(self) -> tuple[PeerAddress, ...]:
        return tuple(peer for peer in self.servers if not peer.is_observer)

    def find(self, sid: int) -> PeerAddress | None:
        return next((peer for peer in self.servers if peer.sid == sid), None)

    def lines(self) -> str:
        """Without the version: what a dynamic file holds."""
        lines = [f"server.{peer.sid}={peer.text()}" for peer in self.servers]
        return "\n".join(lines + (self.groups.lines() if self.groups else []))

    def text(self) -> str:
        """The canonical text."""
        return f"{self.lines()}\nversion={self.version:x}"

    def is_same_as(self, other: "Members") -> bool:
        """But for the version."""
        return self.lines() == other.lines()

    def membership(self) -> Membership:
        """What the protocol cares about."""
        groups = self.groups
        return Membership(
            frozenset(Sid(peer.sid) for peer in self.voters),
            frozenset(Sid(peer.sid) for peer in self.servers if peer.is_observer),
            tuple(frozenset(map(Sid, sids)) for _, sids in groups.groups) if groups else (),
            tuple((Sid(sid), weight) for sid, weight in groups.weights if weight != 1) if groups else (),
            self.version,
        )


def members_in(payload: bytes) -> Members | None:
    """The members that a batch brings; their version is the zxid.

    Raises:
        DecodeError, ConfigError: damage; whoever proposed it had checked it.
    """
    change = change_in(payload)
    if change is None:
        return None
    zxid, body = change
    return replace(Members.parse(decode_change(body)[1]), version=zxid)


def membership_in(payload: bytes) -> Membership | None:
    """As `members_in`, for the protocol."""
    members = members_in(payload)
    return None if members is None else members.membership()
