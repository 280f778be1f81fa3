"""The shell as a loop: from a pipe, from a terminal, and its completion."""

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import coord
from pubsub.command.shell.console import Console, Target
from pubsub.command.shell.ensemble import format_client_config
from pubsub.command.shell.prompt import LOOP_COMMANDS, Loop
from pubsub.command.shell.quota import format_limits, parse_limits
from pubsub.command.shell.table import COMMANDS
from pubsub.command.shell.text import format_event, format_stat
from tests.coord_servers import ROOT, CoordServers

COMMAND = [sys.executable, "-m", "pubsub.command", "zk", "--coord"]
END_SECONDS_MAX = 60.0


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with CoordServers(Path(tmp_path_factory.mktemp("shell"))) as servers:
        yield servers.hosts


def shell(hosts: str, *lines: str) -> tuple[int, list[str], list[str]]:
    """Runs commands from a pipe: exit status, what it printed, what it complained of."""
    done = subprocess.run(
        [*COMMAND, hosts],
        input="\n".join(lines).encode(),
        capture_output=True,
        cwd=ROOT,
        timeout=END_SECONDS_MAX,
    )
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode().splitlines()


def test_commands_from_a_pipe_share_one_session(hosts: str) -> None:
    status, out, err = shell(
        hosts,
        "# a comment, and an empty line",
        "",
        "create -e /mine 'two words'",
        "get /mine",
        "getEphemerals",
        "ls /",
        "create /mine/x",
        "create /null",
        "get /null",
        "delete /null",
    )
    assert status == 1
    assert out == ["Created /mine", "two words", "[/mine]", "[mine, zookeeper]", "Created /null", "null"]
    assert err == ["Ephemerals cannot have children: /mine/x"]
    assert shell(hosts, "ls /", "quit", "ls /never") == (0, ["[zookeeper]"], [])


def test_data_of_any_bytes_comes_through_a_pipe(hosts: str) -> None:
    commands = b"create /b '\xff \xc3\xbc'\nget -b /b\nget /b\ndelete /b\nget /\xff\n"
    done = subprocess.run(
        [*COMMAND, hosts], input=commands, capture_output=True, cwd=ROOT, timeout=END_SECONDS_MAX
    )
    assert done.stdout == b"Created /b\n/yDDvA==\n\xff \xc3\xbc\n"
    assert len(done.stderr.splitlines()) == 1
    assert b"Traceback" not in done.stderr
    assert done.returncode == 1


def test_events_are_printed_as_zkcli_does(hosts: str) -> None:
    status, out, err = shell(
        hosts,
        "create /w 1",
        "get -w /w",
        "ls -w /w",
        "stat -w /w/none",
        "set /w 2",
        "create /w/none",
        "sync /",
        "printwatches",
        "printwatches off",
        "get -w /w",
        "set /w 3",
        "sync /",
        "printwatches on",
        "addWatch /w",
        "delete /w/none",
        "sync /",
        "removewatches /w",
        "delete /w",
        "sync /",
    )
    assert err == ["Node does not exist: /w/none"]
    assert status == 1
    events = [re.sub(r"\d+$", "N", line) for line in out if line.startswith("WatchedEvent")]
    assert sorted(events[:3]) == [
        f"WatchedEvent state:SyncConnected type:{kind} path:{path} zxid: N"
        for kind, path in (
            ("NodeChildrenChanged", "/w"),
            ("NodeCreated", "/w/none"),
            ("NodeDataChanged", "/w"),
        )
    ]
    assert events[3:] == [
        "WatchedEvent state:SyncConnected type:NodeDeleted path:/w/none zxid: N",
        "WatchedEvent state:SyncConnected type:PersistentWatchRemoved path:/w zxid: -N",
    ]
    assert "printwatches is on" in out


def test_the_session_is_closed_and_opened_by_command(hosts: str) -> None:
    status, out, err = shell(
        hosts,
        "create -e /mine",
        "close",
        "ls /",
        "version",
        "connect",
        "ls /",
        f"connect {hosts}/zookeeper",
        "ls /",
        "connect a:x",
    )
    assert out[0] == "Created /mine"
    assert out[1].startswith("ZooKeeper CLI version")
    assert out[2:] == ["[zookeeper]", "[config, quota]"]
    assert err[0] == "Not connected"
    assert "expected a port from 1 to 65535" in err[1]
    assert status == 1


def test_the_history_is_numbered_and_commands_are_done_again(hosts: str) -> None:
    status, out, err = shell(hosts, "create -s /h-", "history", "redo 0", "redo 77", "redo x")
    first, second = (int(line.rpartition("-")[2]) for line in (out[0], out[4]))
    assert second == first + 1
    assert out[1:4] == ["0 - create -s /h-", "1 - history", "create -s /h-"]
    assert err == ["redo: expected the number of a command in the history"] * 2
    assert status == 1
    shell(hosts, f"delete /h-{first:010d}", f"delete /h-{second:010d}")


def test_help_names_every_command_and_explains_each(hosts: str) -> None:
    status, out, err = shell(hosts, "help", "help create", "ls --help", "bogus", "get", "get 'x")
    text = "\n".join(out)
    assert all(f"\t{command.usage}" in text for command in COMMANDS.values())
    assert "create [-s] [-e] [-c] [-t ttl] [-p] path [data] [acl]" in text
    assert "ACL is a list scheme:id:perms" in text
    assert "Everything below, a path a line" in text
    assert err == [
        "Command not found: bogus (help lists the commands)",
        "get: Missing argument 'PATH'.",
        "No closing quotation",
    ]
    assert status == 1


def _take_terminal() -> None:
    """Only a controlling terminal turns Ctrl-C into a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """The shell on a pseudo-terminal."""

    def __init__(self, hosts: str, history: Path) -> None:
        self._master, slave = pty.openpty()
        environment = os.environ | {"TERM": "dumb", "ZOOLOG_HISTORY": str(history), "INPUTRC": "/dev/null"}
        self.process = subprocess.Popen(
            [*COMMAND, hosts], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=environment,
            start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, pattern: str) -> str:
        """Reads until the pattern is there; what was read goes."""
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self._master], [], [], END_SECONDS_MAX)
            assert ready, f"expected {pattern!r}, got {self.seen!r}"
            self.seen += os.read(self._master, 65536).decode()
        self.seen = self.seen[found.end() :]
        return found[0]

    def end(self) -> int:
        status = self.process.wait(END_SECONDS_MAX)
        os.close(self._master)
        return status


@pytest.fixture
def terminal(hosts: str, tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(hosts, tmp_path / "history")
    yield made
    made.process.kill()
    made.process.wait()


def test_a_terminal_has_a_prompt_completion_and_a_history(
    terminal: Terminal, hosts: str, tmp_path: Path
) -> None:
    terminal.expect(rf"\[zk: {hosts}\(CONNECTED\) 0\] ")
    terminal.type("getAllCh\t/zoo\t\n")
    terminal.expect(r"getAllChildrenNumber /zookeeper")
    terminal.expect(r"\n2\r\n")
    terminal.expect(r"CONNECTED\) 1\] ")
    terminal.type("addauth digest bob:secret\n")
    terminal.expect(r"CONNECTED\) 2\] ")
    terminal.type("nonsense\n")
    terminal.expect(r"Command not found: nonsense")
    terminal.type("quit\n")
    assert terminal.end() == 0
    history = tmp_path / "history"
    assert history.read_text() == "getAllChildrenNumber /zookeeper\nnonsense\nquit\n"
    assert history.stat().st_mode & 0o777 == 0o600


def test_an_interrupt_ends_what_runs_and_then_the_shell(terminal: Terminal) -> None:
    terminal.expect(r"CONNECTED\) 0\] ")
    terminal.type("watch /\n")
    terminal.expect(r"current\t/\t|current +/ +")
    terminal.type("\x03")
    terminal.expect(r"interrupted")
    terminal.expect(r"CONNECTED\) 1\] ")
    terminal.type("\x03")
    assert terminal.end() == 0


names = sorted({*COMMANDS, *LOOP_COMMANDS} - {"connect"})
words = st.sampled_from([*names, "/", "/x", "-s", "-v", "--help", "'", '"', "\\", "#", "-1"])


@given(st.one_of(st.text(min_size=1), st.lists(words, min_size=1, max_size=4).map(" ".join)))
async def test_any_line_is_a_command_or_a_failure_that_is_told(line: str) -> None:
    """Without a connection, so that nothing is done."""
    async with trio.open_nursery() as nursery:
        loop = Loop(Console(Target("127.0.0.1:1", connect_timeout_ms=1), nursery, interactive=True),
                    nursery.cancel_scope, typed=False)  # fmt: skip
        lines = iter([line, "version"])

        async def read_line(prompt: str) -> str | None:
            return next(lines, None)

        await loop.run(read_line)


async def test_what_may_come_next_is_known(hosts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pubsub.command.shell.prompt.COMPLETE_SECONDS_MAX", 60)
    async with trio.open_nursery() as nursery:
        console = Console(Target(hosts), nursery, interactive=True)
        loop = Loop(console, nursery.cancel_scope, typed=True)
        assert await loop.complete("", "get") == [
            "get ",
            "getAcl ",
            "getAllChildrenNumber ",
            "getEphemerals ",
        ]
        assert await loop.complete("", "q") == ["quit "]
        assert await loop.complete("ls ", "-") == ["--coord ", "--json ", "-R ", "-s ", "-w "]
        assert await loop.complete("ls ", "/zoo") == []
        await console.connect(console.target)
        assert await loop.complete("ls ", "/zoo") == ["/zookeeper"]
        assert await loop.complete("ls -R ", "/zookeeper/") == ["/zookeeper/config", "/zookeeper/quota"]
        assert await loop.complete("ls ", "/none/x") == []
        assert await loop.complete("set /x ", "data") == []
        await console.close()


async def test_a_connection_that_goes_and_comes_back_is_told(
    hosts: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with trio.open_nursery() as nursery:
        console = Console(Target(hosts), nursery, interactive=True)
        await console.connect(console.target)
        with console.zk.states() as states:
            assert console.zk._session._serving is not None
            console.zk._session._serving[1].cancel()
            seen = [await anext(states) for _ in range(3)]
        assert seen[1:] == [coord.State.SUSPENDED, coord.State.CONNECTED]
        await trio.testing.wait_all_tasks_blocked(0.01)
        await console.close()
    events = [line for line in capfd.readouterr().out.splitlines() if line.startswith("WatchedEvent")]
    assert events == [
        f"WatchedEvent state:{state} type:None path:null zxid: -1"
        for state in ("Disconnected", "SyncConnected")
    ]


# Texts


def test_a_stat_is_printed_as_zkcli_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    stat = coord.Stat(0x24, 0x2F, 1_795_651_626_123, 0, 2, 7, 0, -(1 << 63), 2, 7, 0x2C)
    assert format_stat(stat) == (
        "cZxid = 0x24\nctime = Thu Nov 26 00:07:06 UTC 2026\nmZxid = 0x2f\n"
        "mtime = Thu Jan 01 00:00:00 UTC 1970\npZxid = 0x2c\ncversion = 7\ndataVersion = 2\naclVersion = 0\n"
        "ephemeralOwner = 0x8000000000000000\ndataLength = 2\nnumChildren = 7"
    )
    event = format_event("NodeDataChanged", "/x", 46)
    assert event == "\nWATCHER::\n\nWatchedEvent state:SyncConnected type:NodeDataChanged path:/x zxid: 46"


limit = st.integers(-1, 1 << 62)


@given(
    st.fixed_dictionaries({"count": limit, "bytes": limit}, optional={"countHardLimit": limit, "x": limit})
)
def test_limits_are_read_as_they_were_written(limits: dict[str, int]) -> None:
    assert parse_limits(format_limits(limits)) == limits


def test_limits_have_zookeeper_s_form() -> None:
    """Spec 12.2."""
    assert format_limits({"count": 5, "bytes": 10}) == "count=5,bytes=10"
    assert format_limits({"countHardLimit": 3, "byteHardLimit": 4}) == (
        "count=-1,bytes=-1=;byteHardLimit=4;countHardLimit=3"
    )
    with pytest.raises(ValueError, match="expected a quota"):
        parse_limits("nonsense")


def test_the_configuration_of_clients_is_made_of_the_servers_lines() -> None:
    text = "server.1=a:2888:3888:participant;h:2181\nserver.2=b:1:2;2182\nserver.3=c:1:2\nversion=100000000"
    assert format_client_config(text) == "100000000 h:2181,0.0.0.0:2182,"
    assert format_client_config("") == " "
