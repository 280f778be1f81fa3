"""Clients that stay for the whole soak: each keeps its session and an ephemeral node, and looks for it."""

import random

from tests.histories.recording import History, LiveSession
from tests.histories.workers import EPHEMERAL, Worker
from tests.soak.servers import SoakServers

HOME = "/residents"
LOOKS = 10
"""Heartbeats from one look to the next."""


class Residents:
    """`history.errors` gets what is wrong: a session over too early, a node gone while its session lives."""

    def __init__(self, servers: SoakServers, count: int, timeout_ms: int, seed: int) -> None:
        self.history = History()
        ports = [server.port for server in servers.servers]
        self._homes: dict[str, str] = {}
        self._threads = [
            Worker(
                LiveSession(
                    f"resident{number}", ports, self.history, timeout_ms, random.Random(seed + number),
                    via=servers.via,
                ),
                self._beat,
                timeout_ms / 6000,
            )
            for number in range(count)
        ]  # fmt: skip

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self.history.stopping.set()
        for thread in self._threads:
            thread.join(20)

    def _beat(self, session: LiveSession) -> None:
        session.ping()
        home = f"{session.name}-{session.sessions}"
        if self._homes.get(session.name) != home:
            session.create(f"{HOME}/{home}", b"", EPHEMERAL)
            self._homes[session.name] = home
        elif session.xid % LOOKS == 0:
            session.sync()
            if home not in session.children(HOME) and f"{session.name}-{session.sessions}" == home:
                self.history.errors.append(f"{home}: the session lives, and its node is gone")
