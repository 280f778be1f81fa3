"""The command by itself: help, usage, and that every failure is one line and an exit status."""

import json
from pathlib import Path

import pytest

from pubsub.command import zk as zk_module
from pubsub.command.main import COMMANDS, run
from pubsub.command.shell.table import COMMANDS as SHELL_COMMANDS

Captured = pytest.CaptureFixture[str]


def fails(captured: Captured, arguments: list[str], status: int) -> str:
    """Runs a command that must fail in one line; returns the line."""
    assert run(arguments) == status
    output = captured.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    (line,) = output.err.splitlines()
    assert line.startswith("zoolog")
    return line


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help(capsys: Captured, name: str) -> None:
    assert run([name, "--help"]) == 0
    assert f"Usage: zoolog {name}" in capsys.readouterr().out


def test_the_root_names_every_command_and_where_clients_connect(capsys: Captured) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert "$ZOOLOG_COORD" in text


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("zk", list(SHELL_COMMANDS)),
        ("ledger", ["write", "read", "create", "list", "info", "recover", "delete"]),
        ("topic", ["create", "list", "info", "delete"]),
        ("bench", ["coord", "ledger", "pubsub"]),
        ("coord", ["serve"]),
        ("bookie", ["serve"]),
        ("hub", ["serve"]),
    ],
)
def test_groups_have_their_subcommands_and_each_its_help(
    capsys: Captured, group: str, names: list[str]
) -> None:
    for name in names:
        assert run([group, name, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"Usage: zoolog {group} {name}" in text
        if (group, name) != ("coord", "serve"):
            assert "--coord HOSTS" in text


def test_the_version_is_told(capsys: Captured) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("zoolog, version ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nope"], "No such command 'nope'"),
        (["zk", "nope"], "No such command 'nope'"),
        (["zk", "get"], "Missing argument 'PATH'"),
        (["zk", "--coord", "a:x", "ls"], "expected a port from 1 to 65535, got 'x'"),
        (["zk", "ls", "--coord", "a:x"], "expected a port from 1 to 65535, got 'x'"),
        (["zk", "ls", "--coord", ""], "expected host:port, got ''"),
        (["ledger", "list", "--coord", "a b"], "expected host:port, got 'a b'"),
        (["ledger", "read", "-1"], "-1"),
        (["topic", "create", "a//b"], "topic name 'a//b'"),
        (["topic", "info", "ä"], "topic name 'ä'"),
        (["publish", ""], "topic name ''"),
        (["publish", "t", "/no/such/file"], "/no/such/file"),
        (["subscribe", "t"], "Missing option '--id'"),
        (["subscribe", "t", "--id", "a b"], "subscription name 'a b'"),
        (["up", "--coord", "0"], "'--coord'"),
        (["bench", "pubsub", "--size", "7"], "'--size'"),
        (["bench", "coord", "--read-ratio", "2"], "'--read-ratio'"),
        (["bench", "coord", "--coord", "a:0"], "expected a port"),
        (["inspect", "nope", "/"], "'nope'"),
        (["inspect", "txnlog", "/no/such/file"], "/no/such/file"),
        (["inspect", "segment", "/", "--transactions"], "--transactions is for a txnlog"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys: Captured, arguments: list[str], text: str) -> None:
    assert text in fails(capsys, arguments, 2)


@pytest.mark.parametrize(
    ("arguments", "status", "out", "err"),
    [
        (["help"], 0, "\tredo number\n", ""),
        (["help", "setquota"], 0, "Usage: setquota [OPTIONS] PATH", ""),
        (["quit"], 0, "", ""),
        (["exit"], 0, "", ""),
        (["history"], 0, "", ""),
        (["redo", "1"], 1, "", "zoolog: redo: there is no history outside the interactive shell\n"),
    ],
)
def test_commands_of_the_shells_loop_can_be_given_alone(
    capsys: Captured, arguments: list[str], status: int, out: str, err: str
) -> None:
    """As with zkCli, and without a server."""
    assert run(["zk", "--coord", "127.0.0.1:1", *arguments]) == status
    told = capsys.readouterr()
    assert out in told.out
    assert told.err == err


@pytest.mark.parametrize("kind", ["txnlog", "segment", "checkpoint", "index"])
def test_inspect_refuses_what_is_not_of_its_kind(capsys: Captured, tmp_path: Path, kind: str) -> None:
    """And leaves it as it is: an index or a checkpoint would be created by being opened."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    empty = tmp_path / "empty"
    empty.mkdir()
    wrong = file if kind in ("checkpoint", "index") else empty
    assert "expected the" in fails(capsys, ["inspect", kind, str(wrong)], 2)
    if kind in ("checkpoint", "index"):
        assert f"there is no {kind}" in fails(capsys, ["inspect", kind, str(empty)], 2)
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("kind", ["txnlog", "segment"])
def test_a_damaged_file_is_told_as_a_row_and_status_1(capsys: Captured, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(b"no log of ours" * 100)
    assert run(["inspect", kind, str(path)]) == 1
    assert "kind=damage" in capsys.readouterr().out
    assert run(["inspect", kind, str(path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["kind"] == "damage"


@pytest.mark.parametrize(
    "text",
    [
        "dataDir=\n",
        "clientPort=1\n",
        "dataDir=/x\nclientPort=abc\n",
        "dataDir=/x\ntickTime=-1\nclientPort=1\n",
    ],
)
def test_a_malformed_zoo_cfg_is_one_line_and_status_2(capsys: Captured, tmp_path: Path, text: str) -> None:
    path = tmp_path / "zoo.cfg"
    path.write_text(text)
    assert str(path) in fails(capsys, ["coord", "serve", str(path)], 2)


def test_a_missing_zoo_cfg_is_told(capsys: Captured, tmp_path: Path) -> None:
    assert "No such file" in fails(capsys, ["coord", "serve", str(tmp_path / "none.cfg")], 2)


@pytest.mark.parametrize("hosts", ["127.0.0.1:1", "no-such-host.invalid:2181"])
def test_servers_that_cannot_be_reached_are_named_with_the_reason(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    monkeypatch.setattr(zk_module, "CONNECT_TIMEOUT_MS", 300)
    line = fails(capsys, ["zk", "ls", "--coord", hosts], 1)
    assert f"cannot connect to {hosts}" in line
    assert "sub-exception" not in line


def test_the_environment_names_the_servers(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zk_module, "CONNECT_TIMEOUT_MS", 300)
    monkeypatch.setenv("ZOOLOG_COORD", "127.0.0.1:2")
    assert "127.0.0.1:2" in fails(capsys, ["zk", "ls"], 1)


def test_a_cluster_where_it_cannot_be_is_one_line(capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert "cannot create" in fails(capsys, ["up", "--dir", str(file / "below")], 1)
    assert "'--port-base'" in fails(capsys, ["up", "--dir", str(tmp_path), "--port-base", "65001"], 2)
