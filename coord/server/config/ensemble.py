"""Keys of the ensemble: members, quorums, the links between the servers."""

from dataclasses import dataclass
from typing import Literal

from coord.server.config.keys import boolean, count, family, integer, key, string
from coord.server.config.tls import pem_file

PeerType = Literal["participant", "observer"]


def peer_type(text: str) -> PeerType:
    match text.lower():
        case "participant":
            return "participant"
        case "observer":
            return "observer"
    raise ValueError("must be participant or observer")


@dataclass(frozen=True, slots=True)
class EnsembleConfig:
    """How the servers of an ensemble find and trust each other."""

    members: tuple[tuple[str, str], ...] = family(
        "server.",
        string,
        "one member: `host:quorumPort:electionPort[:role][;[clientHost:]clientPort]`, the role `participant` "
        "or `observer`; the election port is not used",
    )
    groups: tuple[tuple[str, str], ...] = family(
        "group.", string, "a group of a hierarchical quorum: `id:id…`"
    )
    weights: tuple[tuple[str, str], ...] = family(
        "weight.", string, "what a member weighs in its group; 1 unless said"
    )
    peer_type: PeerType = key(
        "peerType",
        peer_type,
        "participant",
        "role of this server; where it differs from the role in its `server.N` line, the line holds",
    )
    dynamic_file: str = key(
        "dynamicConfigFile",
        string,
        "",
        "file that has the `server.`, `group.` and `weight.` lines instead of zoo.cfg",
    )
    standalone_enabled: bool = key(
        "standaloneEnabled",
        boolean,
        True,
        "a single `server.N` line is ignored and the server runs standalone; false: it is an ensemble of one",
    )
    reconfig_enabled: bool = key(
        "reconfigEnabled", boolean, False, "clients with the right to may change the ensemble's members"
    )
    slow_disk_ms: int = key(
        "ensemble.slowDiskMs",
        count,
        100,
        "a leader whose log takes this long for a write, and four times as long as a follower's, for five "
        "seconds, hands leadership over; 0: never",
    )
    listen_everywhere: bool = key(
        "quorumListenOnAllIPs",
        boolean,
        False,
        "listen for peers on every address instead of the one in the `server.N` line",
    )
    several_addresses: bool = key(
        "multiAddress.enabled",
        boolean,
        False,
        "members may have several addresses, with `|` between them, which are tried in order",
    )
    peer_tls: bool = key("sslQuorum", boolean, False, "the servers speak TLS with each other")
    peer_key_store: str = key(
        "ssl.quorum.keyStore.location",
        pem_file,
        "",
        "PEM file with this server's key, certificate and chain, for the other servers",
    )
    peer_trust_store: str = key(
        "ssl.quorum.trustStore.location",
        pem_file,
        "",
        "PEM file with the authorities that sign the servers' certificates",
    )
    peer_hostname_verification: bool = key(
        "ssl.quorum.hostnameVerification",
        boolean,
        True,
        "a server's certificate must name the host of its `server.N` line",
    )
    election_algorithm: int = key("electionAlg", integer, 3, "only 3 exists")
    secret_file: str = key(
        "ensemble.secretFile",
        string,
        "",
        "file with the secret that the servers share (at least 16 bytes, the same on each; "
        "`zoolog coord secret FILE` writes one)",
        shown="dataDir/ensemble.secret",
    )
