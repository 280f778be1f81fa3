"""`zoolog zk` against a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pubsub.command.main import run
from tests.coord_servers import CoordServers

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with CoordServers(Path(tmp_path_factory.mktemp("zk"))) as servers:
        yield servers.hosts


@pytest.fixture
def zk(hosts: str, capfd: Captured, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ZOOLOG_COORD", hosts)
    yield
    run(["zk", "delete", "-r", "/t"])


def output(capfd: Captured, *arguments: str, status: int = 0) -> str:
    capfd.readouterr()
    assert run(list(arguments)) == status
    return capfd.readouterr().out


@pytest.mark.usefixtures("zk")
def test_a_node_from_its_creation_to_its_end(capfd: Captured) -> None:
    assert output(capfd, "zk", "create", "/t", "one") == "/t\n"
    assert output(capfd, "zk", "get", "/t") == "one"
    assert output(capfd, "zk", "set", "/t", "two", "--version", "0") == ""
    assert output(capfd, "zk", "get", "/t") == "two"
    assert output(capfd, "zk", "create", "-s", "/t/n-") == "/t/n-0000000000\n"
    assert output(capfd, "zk", "create", "-p", "/t/a/b/c") == "/t/a/b/c\n"
    assert output(capfd, "zk", "ls", "/t") == "a\nn-0000000000\n"
    assert json.loads(output(capfd, "zk", "ls", "/t", "--json")) == ["a", "n-0000000000"]
    assert "numChildren = 2" in output(capfd, "zk", "stat", "/t")
    assert output(capfd, "zk", "watch", "/t", "--count", "1") == "current\t/t\tversion=1\n"
    assert output(capfd, "zk", "sync") == ""
    assert output(capfd, "zk", "delete", "-r", "/t") == ""
    assert output(capfd, "zk", "ls", "/") == "zookeeper\n"


@pytest.mark.usefixtures("zk")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["get", "/none"], "No such node: /none"),
        (["delete", "/none"], "No such node: /none"),
        (["create", "/zookeeper"], "The node exists already: /zookeeper"),
        (["set", "/zookeeper", "x", "--version", "9"], "The version is another one: /zookeeper"),
        (["get", "none"], "expected a path that begins with /, got 'none'"),
        (["create", "/a/b/c"], "No such node: /a/b/c"),
    ],
)
def test_a_refusal_is_one_line_and_status_1(capfd: Captured, arguments: list[str], text: str) -> None:
    assert run(["zk", *arguments]) == 1
    captured = capfd.readouterr()
    assert captured.err == f"zoolog: {text}\n"
    assert captured.out == ""


def test_the_servers_may_be_named_before_and_behind_the_subcommand(
    hosts: str, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOOLOG_COORD", "127.0.0.1:1")
    assert output(capfd, "zk", "--coord", hosts, "ls", "/") == "zookeeper\n"
    assert output(capfd, "zk", "ls", "/", "--coord", hosts) == "zookeeper\n"
    assert output(capfd, "zk", "--coord", "127.0.0.1:1", "ls", "/", "--coord", hosts) == "zookeeper\n"


def test_a_chroot_in_the_hosts_holds(hosts: str, capfd: Captured) -> None:
    assert output(capfd, "zk", "ls", "/", "--coord", hosts + "/zookeeper") == "config\nquota\n"
