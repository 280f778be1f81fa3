"""What a server stands on beside its disk and its clock: sockets, other servers, chance, threads.

A simulation puts its own in their places, and runs everything between them as it is.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from coord.clock import Clock
from coord.reactor import Reactor
from coord.server.config import ServerConfig
from coord.server.member import Network
from coord.server.peers import Peers
from coord.server.startup import connections_max, connections_wanted
from coord.storage import LogOptions


class OtherServers(Network, Protocol):
    """What `coord.server.server` needs of them: `Peers`, or a stand-in with its arguments."""

    async def start_in(self, nursery: trio.Nursery) -> None: ...

    def refresh(self) -> None: ...


def make_reactor(config: ServerConfig, clock: Clock) -> Reactor:
    tls = config.tls
    return Reactor(
        clock,
        connections_max=connections_max(connections_wanted(config)),
        handshakes_max=tls.handshake_count_max,
        handshakes_per_host_max=config.max_client_connections,
        handshake_ms_max=tls.handshake_ms_max,
    )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Those of a server.

    Attributes:
        make_reactor: whose ticks it works in.
        make_peers: the other servers of its ensemble; not asked by a standalone server.
        make_random: fresh random bytes.
        log_options: see `Persistence`.
    """

    make_reactor: Callable[[ServerConfig, Clock], Reactor] = make_reactor
    make_peers: Callable[..., OtherServers] = Peers
    make_random: Callable[[int], bytes] = os.urandom
    log_options: Callable[[Callable[[], None]], LogOptions] = LogOptions


REAL = Surroundings()
"""This machine's."""
