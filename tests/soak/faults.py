"""What is done to the servers of a soak. Each fault ends with all of them in service again.

A fault is chosen by the run's seed among those that are possible at the moment; how far the clients have come
by then is not in the seed.
"""

import random
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence

from coord.protocol.batch import FEATURE_LEVEL
from tests.coord_raw import ACL, Client, buffer
from tests.coord_servers import CoordServer, wait_for
from tests.histories.recording import CREATE, SET_DATA, History
from tests.histories.running import wait_progress
from tests.soak.servers import OBSERVER, SMALL_DISK_SID, SoakServer, SoakServers

SERVE_SECONDS_MAX = 60.0
STATUS_FAILED_DISK = 70
NOTHING_MB = 40
"""Free space with which the log takes nothing more; it looks how much there is every 16 MB."""
LARGE_PATH, LARGE = b"/large", 500_000
CLOCK_JUMPS_SECONDS = (3600, -3600, 86_400, 30, -30)


class Faults:
    """Does one fault after the other, and counts them.

    Args:
        stop_seconds: how long a server is stopped: longer than sessions live.
        without: faults that are not wanted.
    """

    def __init__(
        self, servers: SoakServers, chance: random.Random, stop_seconds: float, without: frozenset[str]
    ) -> None:
        self.servers = servers
        self.chance = chance
        self.stop_seconds = stop_seconds
        self.done: Counter[str] = Counter()
        self.faults: dict[str, Callable[[History], None]] = {
            "kill-leader": lambda history: self.kill([servers.leader()], history),
            "kill-follower": lambda history: self.kill([self.follower()], history),
            "kill-observer": lambda history: self.kill([servers.by_sid[OBSERVER]], history),
            "kill-two": lambda history: self.kill([servers.leader(), self.follower()], history),
            "kill-all": lambda history: self.kill(servers.servers, history),
            "stop-leader": lambda history: self.stop(servers.leader(), history),
            "stop-follower": lambda history: self.stop(self.follower(), history),
            "stop-observer": lambda history: self.stop(servers.by_sid[OBSERVER], history),
            "rolling-restart": self.restart,
            "wipe": self.wipe,
            "level": self.raise_level,
            "calm": wait_progress,
        }
        if servers.net is not None:
            self.faults["partition"] = self.partition
        if servers.library is not None:
            self.faults["clock"] = self.jump
        if servers.by_sid[SMALL_DISK_SID].has_small_disk:
            self.faults["full-disk"] = self.fill
        for name in without:
            self.faults.pop(name, None)

    def one(self, history: History) -> str:
        """Does one, and waits until all serve; returns which."""
        name = self.chance.choice(sorted(self.faults))
        if name == "full-disk" and self.servers.leader().sid == SMALL_DISK_SID:
            name = "stop-leader"  # a leader refuses writes instead, which the clients here would not expect
        self.faults[name](history)
        self.servers.wait_serving(SERVE_SECONDS_MAX)
        self.done[name] += 1
        return name

    def follower(self) -> CoordServer:
        return self.chance.choice(self.servers.followers())

    def goes_on(self, history: History, down: Sequence[CoordServer] = ()) -> None:
        """Waits for progress where there can be some."""
        voters = [server for server in self.servers.servers if server.sid != OBSERVER]
        if 2 * sum(server not in down for server in voters) > len(voters):
            wait_progress(history)

    def kill(self, victims: Sequence[CoordServer], history: History) -> None:
        for victim in victims:
            victim.kill()
        self.goes_on(history, victims)
        for victim in victims:
            victim.start()

    def stop(self, victim: CoordServer, history: History) -> None:
        process = victim.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(self.stop_seconds)
            self.goes_on(history, [victim])
        finally:
            process.send_signal(signal.SIGCONT)

    def restart(self, history: History) -> None:
        for server in self.servers.servers:
            status = server.stop()
            assert status == 0, f"server {server.sid} ended with {status}\n{server.log_end()}"
            wait_progress(history)
            server.start()
            self.servers.wait_serving(SERVE_SECONDS_MAX)
            wait_progress(history)

    def wipe(self, history: History) -> None:
        victim = self.follower()
        assert isinstance(victim, SoakServer)
        victim.kill()
        victim.wipe()
        wait_progress(history)
        victim.start()

    def raise_level(self, history: History) -> None:
        """To this release's feature level; at that level already, the leader makes a checkpoint again."""
        server = self.chance.choice(self.servers.servers)
        assert isinstance(server, SoakServer)

        def is_raised() -> bool:
            # Refused while a server that was stopped has not found its leader again.
            return server.operate("feature-level", str(FEATURE_LEVEL)).returncode == 0

        wait_for(is_raised, "the feature level is raised", SERVE_SECONDS_MAX)
        wait_progress(history)

    def partition(self, history: History) -> None:
        net = self.servers.net
        assert net is not None
        victim = self.chance.choice(self.servers.servers)
        others = [server for server in self.servers.servers if server is not victim]
        net.cut(victim.sid)
        try:
            wait_for(lambda: not victim.mode(), "who is alone serves nobody", SERVE_SECONDS_MAX)
            wait_for(lambda: all(one.mode() for one in others), "the others serve", SERVE_SECONDS_MAX)
            wait_progress(history)
        finally:
            net.mend(victim.sid)

    def jump(self, history: History) -> None:
        victim = self.servers.by_sid[self.chance.choice(sorted(self.servers.by_sid))]
        victim.shift(self.chance.choice(CLOCK_JUMPS_SECONDS))
        wait_progress(history)
        victim.shift(0)
        wait_progress(history)

    def fill(self, history: History) -> None:
        """A follower that cannot log leaves, and comes back when there is room."""
        victim, leader = self.servers.by_sid[SMALL_DISK_SID], self.servers.leader()
        process = victim.process
        assert process is not None
        path = buffer(LARGE_PATH)
        client: Client | None = None

        def connected() -> Client:
            with self.servers.via(leader.port):
                made = Client("127.0.0.1", leader.port)
            made.call(1, CREATE, path + buffer(b"") + ACL + struct.pack(">i", 0))
            return made

        def has_ended() -> bool:
            nonlocal client
            try:
                client = client or connected()
                client.call(1, SET_DATA, path + buffer(bytes(LARGE)) + struct.pack(">i", -1))
            except OSError:  # the next look has another connection
                if client is not None:
                    client.socket.close()
                    client = None
            return process.poll() is not None

        victim.fill_disk(NOTHING_MB)
        try:
            wait_for(has_ended, "the server with a full disk ends", SERVE_SECONDS_MAX)
        finally:
            victim.make_room()
            if client is not None:
                client.socket.close()
        assert process.returncode == STATUS_FAILED_DISK, victim.log_end()
        victim.kill()
        wait_progress(history)
        victim.start()
