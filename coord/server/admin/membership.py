"""What the admin server tells of an ensemble's members (specification 17.3: voting_view, zabstate)."""

from collections.abc import Iterable
from typing import Any

from coord.server.config import PeerAddress, ServerConfig
from coord.server.view import Viewer
from coord.zab import Role

WILDCARD = "0.0.0.0"


def voting_view(config: ServerConfig, servers: Iterable[PeerAddress]) -> dict[str, dict[str, Any]]:
    """The members that vote, by their numbers."""
    return {
        str(peer.sid): {
            "server_addresses": [f"{one.host}:{one.quorum_port}" for one in peer.addresses],
            "election_addresses": [f"{one.host}:{one.election_port}" for one in peer.addresses],
            "client_address": _client_address(config, peer),
            "learner_type": "PARTICIPANT",
        }
        for peer in servers
        if not peer.is_observer
    }


def zab_state(config: ServerConfig, viewer: Viewer) -> dict[str, Any]:
    """Where this server stands; out of service, or alone, it says only that it does not vote."""
    status = viewer.status
    mine = viewer.own_line()
    if mine is None or not status.serving:
        return {"voting": False, "zabstate": ""}
    zxid = viewer.view().zxid
    return {
        "myid": config.sid,
        "is_leader": status.role == Role.LEADING,
        "quorum_address": _addresses([(one.host, one.quorum_port) for one in mine.addresses]),
        "election_address": _addresses([(one.host, one.election_port) for one in mine.addresses]),
        "client_address": _client_address(config, mine),
        "voting": not mine.is_observer,
        "last_zxid": f"0x{zxid:x}",
        "zab_epoch": zxid >> 32,
        "zab_counter": zxid & 0xFFFFFFFF,
        "zabstate": "broadcast",
    }


def _client_address(config: ServerConfig, peer: PeerAddress) -> str:
    if peer.client_port is not None:
        return f"{peer.client_host or WILDCARD}:{peer.client_port}"
    if peer.sid == config.sid and config.client_port is not None:
        return f"{config.client_address}:{config.client_port}"
    return ""


def _addresses(pairs: list[tuple[str, int]]) -> dict[str, Any]:
    """As ZooKeeper prints a set of addresses; which of them can be reached it does not try out here."""
    texts = [f"{host}:{port}" for host, port in pairs]
    return {
        "empty": False,
        "all_addresses": texts,
        "wildcard_addresses": [f"{WILDCARD}:{port}" for _, port in pairs],
        "all_ports": [port for _, port in pairs],
        "all_host_strings": "|".join(host for host, _ in pairs),
        "reachable_address": texts[0],
        "all_reachable_addresses": texts,
        "all_reachable_addresses_or_all": texts,
        "reachable_or_one": texts[0],
        "one": texts[0],
    }
