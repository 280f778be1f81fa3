"""Who belongs to the ensemble: the member lines of zoo.cfg or of its dynamic file, checked as a whole."""

from dataclasses import dataclass

from coord.server.config.ensemble import EnsembleConfig
from coord.server.config.keys import ConfigError
from coord.server.config.members import PeerAddress, parse_members
from coord.server.config.quorums import QuorumGroups, parse_quorum_groups
from coord.server.properties import read_properties


@dataclass(frozen=True, slots=True)
class Membership:
    """The members, none where the server runs standalone, and what an operator should know about them."""

    servers: tuple[PeerAddress, ...]
    groups: QuorumGroups | None
    warnings: tuple[str, ...]


def read_membership(config: EnsembleConfig) -> Membership:
    """Raises: ConfigError, for lines that contradict each other or ask for what is not available."""
    members, groups, weights = config.members, config.groups, config.weights
    if config.dynamic_file:
        if members or groups or weights:
            raise ConfigError(
                f"dynamicConfigFile is {config.dynamic_file}: server., group. and weight. lines belong there"
            )
        members, groups, weights = _read_dynamic_file(config.dynamic_file)
    servers = parse_members(members)
    voters = [peer for peer in servers if not peer.is_observer]
    if servers and not voters:
        raise ConfigError("all servers are observers: an ensemble needs participants")
    quorum_groups = parse_quorum_groups(groups, weights, [peer.sid for peer in voters])
    if len(voters) <= 1 and config.standalone_enabled:
        if len(servers) > 1:
            raise ConfigError("observers need an ensemble of at least two participants")
        warning = f"server.{servers[0].sid} is ignored: one server runs standalone" if servers else ""
        return Membership((), None, (warning,) if warning else ())
    if not config.several_addresses:
        _refuse_several_addresses(servers)
    return Membership(servers, quorum_groups, tuple(_warnings(voters)))


def role_warnings(config: EnsembleConfig, mine: PeerAddress) -> tuple[str, ...]:
    """Where `peerType` contradicts this server's own line, the line holds (specification 19.9)."""
    if config.peer_type == mine.role:
        return ()
    return (f"peerType is {config.peer_type}, but server.{mine.sid} says {mine.role}, which holds",)


def _read_dynamic_file(path: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """The members, groups and weights of a dynamic file."""
    try:
        pairs = read_properties(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"dynamicConfigFile {path} cannot be read: {reason}") from error
    found: dict[str, list[tuple[str, str]]] = {"server": [], "group": [], "weight": []}
    for name, text in sorted(pairs.items()):
        kind, dot, rest = name.partition(".")
        if not dot or kind not in found:
            raise ConfigError(f"{path}: {name} does not belong into a dynamic file")
        found[kind].append((rest, text))
    return tuple(tuple(lines) for lines in found.values())


def _refuse_several_addresses(servers: tuple[PeerAddress, ...]) -> None:
    for peer in servers:
        if peer.more:
            raise ConfigError(f"server.{peer.sid} has several addresses, and multiAddress.enabled is false")


def _warnings(voters: list[PeerAddress]) -> list[str]:
    if len(voters) == 2:
        return ["two participants survive the loss of neither: run three"]
    if len(voters) % 2 == 0:
        return [f"{len(voters)} participants survive no more losses than {len(voters) - 1}"]
    return []
