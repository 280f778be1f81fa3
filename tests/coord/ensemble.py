"""An ensemble of servers in one trio loop, over real sockets and files: fast to start, easy to look into.

async with trio.open_nursery() as nursery:
    ensemble = Ensemble(tmp_path, nursery, member_lines(3, observers=1))
    await ensemble.start()
    leader = await ensemble.leader()
    await ensemble.stop(leader)
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

import coord
from coord.server import serve
from coord.server.config import parse_config
from tests.coord_servers import free_ports

WAIT_SECONDS_MAX = 60


def member_lines(count: int, observers: int = 0, first: int = 1) -> dict[int, str]:
    """Member lines with ports of their own, client ports included, from number `first` on."""
    total = count + observers
    ports = free_ports(3 * total)
    return {
        first + place: f"127.0.0.1:{ports[3 * place]}:{ports[3 * place + 1]}"
        f"{':observer' if place >= count else ':participant'};127.0.0.1:{ports[3 * place + 2]}"
        for place in range(total)
    }


async def create_surely(client: coord.Client, path: str, data: bytes = b"") -> None:
    """Again where the connection was lost: the client's server may still have to find out that its leader has
    gone.
    """
    with trio.fail_after(WAIT_SECONDS_MAX):
        while True:
            try:
                await client.create(path, data)
            except coord.ConnectionLossError:
                continue
            except coord.NodeExistsError:
                pass
            return


class Ensemble:
    """Servers of one ensemble, each with a directory below `directory`; `lines` may change between starts."""

    def __init__(
        self, directory: Path, nursery: trio.Nursery, lines: Mapping[int, str], **keys: object
    ) -> None:
        self.directory = directory
        self.lines = dict(lines)
        self.keys = keys
        self.failures: dict[int, BaseException] = {}
        self._nursery = nursery
        self._scopes: dict[int, trio.CancelScope] = {}
        self._ended: dict[int, trio.Event] = {}
        self.modes: dict[int, str] = {}
        """What each running server said last, while somebody waited; empty out of service."""

    def port(self, sid: int) -> int:
        return int(self.lines[sid].rpartition(":")[2])

    @property
    def running(self) -> list[int]:
        return sorted(sid for sid, ended in self._ended.items() if not ended.is_set())

    def pairs(self, sid: int, lines: Mapping[int, str]) -> dict[str, str]:
        """The keys of this server's zoo.cfg."""
        home = self.directory / str(sid)
        home.mkdir(parents=True, exist_ok=True)
        (home / "myid").write_text(f"{sid}\n")
        (home / "ensemble.secret").write_text("a secret of the tests only\n")
        return {
            "dataDir": str(home),
            "tickTime": "200",
            # A loop of four servers on a busy machine may stand still for a second; nobody is dead for that.
            "initLimit": "100",
            "syncLimit": "25",
            "maxSessionTimeout": "20000",
            "4lw.commands.whitelist": "*",
            **{key.replace("__", "."): str(value) for key, value in self.keys.items()},
            **{f"server.{member}": line for member, line in lines.items()},
        }

    async def start(self, *sids: int, lines: Mapping[int, str] | None = None, wait: bool = True) -> None:
        """Starts these servers, all by default, and waits until they serve."""
        for sid in sids or tuple(self.lines):
            self._ended[sid] = trio.Event()
            await self._nursery.start(self._run, sid, dict(lines or self.lines))
        for sid in (sids or tuple(self.lines)) if wait else ():
            await self.until(lambda sid=sid: bool(self.modes.get(sid)), f"server {sid} serves")

    async def _run(
        self, sid: int, lines: Mapping[int, str], *, task_status: trio.TaskStatus[tuple[str, int] | None]
    ) -> None:
        config = parse_config(self.pairs(sid, lines))
        with trio.CancelScope() as self._scopes[sid]:
            try:
                await serve(config, task_status=task_status)
            except Exception as error:
                self.failures[sid] = error
        self._ended[sid].set()

    async def stop(self, *sids: int) -> None:
        for sid in sids or tuple(self.running):
            self._scopes[sid].cancel()
            await self._ended[sid].wait()

    async def ask(self, sid: int, word: str) -> str:
        """The answer to a four-letter word; empty when nobody answers."""
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port(sid))
            async with stream:
                await stream.send_all(word.encode())
                answer = b""
                async for part in stream:
                    answer += part
                return answer.decode()
        except (OSError, trio.BrokenResourceError):
            return ""

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits; the servers' modes are asked anew before each look."""
        with trio.move_on_after(WAIT_SECONDS_MAX):
            while True:
                self.modes = {sid: await self._mode(sid) for sid in self.running}
                if condition():
                    return
                await trio.sleep(0.005)
        raise AssertionError(f"waited in vain: {what}; modes {self.modes}, failures {self.failures}")

    async def until_even(self) -> None:
        """Waits until all that run have executed, and so logged, what was acknowledged by now: a quorum
        had it before, the others need not.
        """
        zxids: list[str] = []
        with trio.move_on_after(WAIT_SECONDS_MAX):
            while True:
                zxids = [await self._fact(sid, "Zxid") for sid in self.running]
                if all(zxids) and len(set(zxids)) == 1:
                    return
                await trio.sleep(0.005)
        raise AssertionError(f"waited in vain: all have executed the same; zxids {zxids}")

    async def _mode(self, sid: int) -> str:
        return await self._fact(sid, "Mode")

    async def _fact(self, sid: int, name: str) -> str:
        """A line of `srvr`; empty out of service."""
        found = re.search(rf"^{name}: (.*)$", await self.ask(sid, "srvr"), re.MULTILINE)
        return found[1] if found else ""

    async def leader(self) -> int:
        """The server that leads, once there is one."""
        await self.until(lambda: "leader" in self.modes.values(), "a leader")
        return next(sid for sid, mode in self.modes.items() if mode == "leader")
