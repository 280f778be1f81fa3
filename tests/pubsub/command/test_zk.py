"""`zoolog zk` with one command a call, against a real server."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pubsub.command.main import run
from tests.coord_servers import CoordServers

Captured = pytest.CaptureFixture[str]
EXTRA = "extendedTypesEnabled=true\nsasl.digest.user.wire=wirepw\n"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with CoordServers(Path(tmp_path_factory.mktemp("zk")), extra=EXTRA) as servers:
        yield servers.hosts


@pytest.fixture
def zk(hosts: str, capfd: Captured, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ZOOLOG_COORD", hosts)
    yield
    run(["zk", "delete", "-r", "/t"])


def output(capfd: Captured, *arguments: str, status: int = 0) -> str:
    capfd.readouterr()
    assert run(["zk", *arguments]) == status
    return capfd.readouterr().out


@pytest.mark.usefixtures("zk")
def test_a_node_from_its_creation_to_its_end(capfd: Captured) -> None:
    assert output(capfd, "create", "/t", "one") == "Created /t\n"
    assert output(capfd, "get", "/t") == "one"
    assert output(capfd, "set", "/t", "two", "--version", "0") == ""
    assert output(capfd, "get", "/t") == "two"
    assert output(capfd, "create", "-s", "/t/n-") == "Created /t/n-0000000000\n"
    assert output(capfd, "create", "-p", "/t/a/b/c") == "Created /t/a/b/c\n"
    assert output(capfd, "ls", "/t") == "[a, n-0000000000]\n"
    assert json.loads(output(capfd, "ls", "/t", "--json")) == ["a", "n-0000000000"]
    assert output(capfd, "ls", "-R", "/t") == "/t\n/t/a\n/t/a/b\n/t/a/b/c\n/t/n-0000000000\n"
    assert "numChildren = 2" in output(capfd, "stat", "/t")
    assert json.loads(output(capfd, "stat", "/t", "--json"))["num_children"] == 2
    assert output(capfd, "watch", "/t", "--count", "1") == "current\t/t\tversion=1\n"
    assert output(capfd, "sync") == "Sync is OK\n"
    assert output(capfd, "getAllChildrenNumber", "/t") == "4\n"
    assert output(capfd, "delete", "-r", "/t") == ""
    assert output(capfd, "ls", "/") == "[zookeeper]\n"


@pytest.mark.usefixtures("zk")
def test_every_kind_of_node_can_be_created(capfd: Captured) -> None:
    output(capfd, "create", "/t")
    for flags in (["-c"], ["-t", "60000"], ["-e"], ["-s", "-e"], ["-s", "-t", "60000"]):
        assert output(capfd, "create", *flags, "/t/x-").startswith("Created /t/x-")
        output(capfd, "deleteall", "/t", "-b", "2")
        output(capfd, "create", "/t")
    for flags in (["-c", "-s"], ["-c", "-e"], ["-t", "5", "-e"], ["-t", "0"]):
        assert output(capfd, "create", *flags, "/t/x", status=2) == ""


@pytest.mark.usefixtures("zk")
def test_an_ephemeral_goes_with_its_command(capfd: Captured) -> None:
    assert output(capfd, "create", "-e", "/t") == "Created /t\n"
    assert output(capfd, "ls", "/") == "[zookeeper]\n"


@pytest.mark.usefixtures("zk")
def test_data_of_any_bytes_goes_in_and_comes_out(capfd: Captured, hosts: str) -> None:
    data = bytes(range(256))
    output(capfd, "create", "/t")
    assert output(capfd, "get", "/t") == ""
    output(capfd, "set", "-b", "/t", base64.b64encode(data).decode())
    assert output(capfd, "get", "-b", "/t") == base64.b64encode(data).decode() + "\n"
    assert "expected data in base64" in error_of(capfd, "set", "-b", "/t", "&&", status=2)
    found = output(capfd, "set", "-s", "/t", "ümlaut")
    assert "dataVersion = 2\n" in found
    assert "dataLength = 7\n" in found
    assert output(capfd, "get", "-s", "/t").startswith("ümlaut\ncZxid = 0x")


def test_commands_about_quotas_ask_for_nothing_that_fails(capfd: Captured, tmp_path: Path) -> None:
    """As zkCli's: the audit log of a server that is asked for no more than changes has no failures."""
    audit = tmp_path / "audit.log"
    with CoordServers(tmp_path / "zk", extra=f"audit.enable=true\naudit.logFile={audit}\n") as servers:
        for command in (
            ("create", "/a"),
            ("create", "/a/b"),
            ("create", "/a/c"),
            ("setquota", "-n", "5", "/a/b"),
            ("setquota", "-n", "6", "/a/b"),
            ("setquota", "-n", "5", "/a/c"),
            ("delquota", "/a/b"),
        ):
            output(capfd, *command, "--coord", servers.hosts)
    lines = [line for line in audit.read_text().splitlines() if "znode=" in line]
    assert all("result=success" in line for line in lines)
    done = [
        (line.partition("operation=")[2].split()[0], line.partition("znode=")[2].split()[0]) for line in lines
    ]
    quota = "/zookeeper/quota/a"
    assert done[3:] == [
        ("create", quota),
        ("create", f"{quota}/b"),
        ("create", f"{quota}/b/zookeeper_limits"),
        ("create", f"{quota}/b/zookeeper_stats"),
        ("setData", f"{quota}/b/zookeeper_limits"),
        ("create", f"{quota}/c"),
        ("create", f"{quota}/c/zookeeper_limits"),
        ("create", f"{quota}/c/zookeeper_stats"),
        ("delete", f"{quota}/b/zookeeper_limits"),
        ("delete", f"{quota}/b/zookeeper_stats"),
        ("delete", f"{quota}/b"),
    ]


def error_of(capfd: Captured, *arguments: str, status: int = 1) -> str:
    capfd.readouterr()
    assert run(["zk", *arguments]) == status
    captured = capfd.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err


@pytest.mark.usefixtures("zk")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["get", "/none"], "Node does not exist: /none"),
        (["delete", "/none"], "Node does not exist: /none"),
        (["deleteall", "/none"], "Node does not exist: /none"),
        (["ls", "-R", "/none"], "Node does not exist: /none"),
        (["create", "/zookeeper"], "Node already exists: /zookeeper"),
        (["delete", "/zookeeper"], "Arguments are not valid : /zookeeper"),
        (["set", "/zookeeper", "x", "--version", "9"], "version No is not valid : /zookeeper"),
        (["create", "/a/b/c"], "Node does not exist: /a/b/c"),
        (["create", "/t", "x", "nobody:x:r"], "Acl is not valid : /t"),
        (["removewatches", "/t"], "KeeperErrorCode = No such watcher for /t"),
        (["listquota", "/zookeeper/config"], "quota for /zookeeper/config does not exist."),
    ],
)
def test_a_refusal_is_told_in_zkcli_s_words_with_status_1(
    capfd: Captured, arguments: list[str], text: str
) -> None:
    assert run(["zk", *arguments]) == 1
    captured = capfd.readouterr()
    assert captured.err.splitlines()[-1] == f"zoolog: {text}"
    assert captured.out == ""


@pytest.mark.usefixtures("zk")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["get", "none"], "expected a path that begins with /, got 'none'"),
        (["create", "/t", "x", "world:anyone"], "expected scheme:id:perms, got 'world:anyone'"),
        (["setquota", "/t"], "expected at least one of -n, -b, -N and -B"),
        (["setquota", "-n", "1", "/"], "expected a path other than /"),
        (["reconfig"], "expected -file, -members, or -add and -remove"),
        (["reconfig", "-add", "a", "-members", "b"], "expected -file, -members, or -add and -remove"),
        (["reconfig", "-v", "x", "-remove", "3"], "expected a version in hex, got 'x'"),
        (["addWatch", "-m", "X", "/t"], "PERSISTENT_RECURSIVE"),
        (["--auth", "digest", "ls"], "expected NAME:SECRET, got 'digest'"),
        (["--sasl", "wire:@/no/such/file", "ls"], "cannot read the secret"),
        (["--tls-no-hostname", "ls"], "expected --tls-ca with the other --tls options"),
        (["--tls-ca", __file__, "ls"], "cannot use the --tls files"),
    ],
)
def test_wrong_usage_is_one_line_with_status_2(capfd: Captured, arguments: list[str], text: str) -> None:
    assert text in error_of(capfd, *arguments, status=2)


@pytest.mark.usefixtures("zk")
def test_credentials_open_what_is_closed(capfd: Captured, tmp_path: Path) -> None:
    closed = "digest:bob:fyVmFCwVbTJYrznoSu1koqYEYF0=:cdrwa"
    output(capfd, "create", "/t", "secret", closed)
    assert "Insufficient permission : /t" in error_of(capfd, "get", "/t")
    secret = tmp_path / "secret"
    secret.write_text("bob:secret\n")
    for auth in ("digest:bob:secret", f"digest:@{secret}"):
        assert output(capfd, "--auth", auth, "get", "/t") == "secret"
        assert output(capfd, "--auth", auth, "whoami").splitlines()[:2] == [
            "Auth scheme: User",
            "digest: bob",
        ]
    acl = output(capfd, "--auth", "digest:bob:secret", "getAcl", "-s", "/t")
    assert acl.startswith("'digest,'bob:fyVmFCwVbTJYrznoSu1koqYEYF0=\n: cdrwa\ncZxid = 0x")
    assert output(capfd, "--auth", "digest:bob:secret", "setAcl", "/t", "world:anyone:cdrwa") == ""
    assert output(capfd, "getAcl", "/t") == "'world,'anyone\n: cdrwa\n"
    assert "sasl: wire" in output(capfd, "--sasl", "wire:wirepw", "whoami")
    assert "rejected the SASL login" in error_of(capfd, "--sasl", "wire:wrong", "whoami")


@pytest.mark.usefixtures("zk")
def test_lists_of_a_whole_tree_are_replaced(capfd: Captured) -> None:
    """The children first, for afterwards nobody may read what is below."""
    output(capfd, "create", "-p", "/t/a/b")
    output(capfd, "create", "-p", "/t/c")
    auth = ["--auth", "digest:bob:secret"]
    assert output(capfd, *auth, "setAcl", "-R", "-s", "/t", "auth::cdrwa").count("aclVersion = 1") == 4
    assert "Insufficient permission" in error_of(capfd, "ls", "/t/a")
    assert output(capfd, *auth, "ls", "-R", "/t") == "/t\n/t/a\n/t/a/b\n/t/c\n"
    assert output(capfd, *auth, "deleteall", "/t") == ""


@pytest.mark.usefixtures("zk")
def test_quotas_are_set_listed_and_lifted(capfd: Captured) -> None:
    """Spec 12.1 to 12.3: nodes below /zookeeper/quota, whose statistics the server fills in."""
    output(capfd, "create", "/t", "12345")
    output(capfd, "create", "/t/a", "678")
    output(capfd, "setquota", "-n", "10", "/t")
    limits, stats = output(capfd, "listquota", "/t").splitlines()
    assert limits == "Output quota for /t count=10,bytes=-1=;byteHardLimit=-1;countHardLimit=-1"
    assert stats == "Output stat for /t count=2,bytes=8"
    output(capfd, "setquota", "-b", "100", "-N", "20", "-B", "200", "/t")
    assert "count=10,bytes=100=;byteHardLimit=200;countHardLimit=20" in output(capfd, "listquota", "/t")
    output(capfd, "delquota", "-n", "-B", "/t")
    assert "count=-1,bytes=100=;byteHardLimit=-1;countHardLimit=20" in output(capfd, "listquota", "/t")
    assert "/t/a has a parent /t which has a quota" in error_of(capfd, "setquota", "-n", "1", "/t/a")
    output(capfd, "delquota", "/t")
    output(capfd, "setquota", "-n", "1", "/t/a")
    assert "/t has a child /t/a which has a quota" in error_of(capfd, "setquota", "-n", "1", "/t")
    output(capfd, "delquota", "/t/a")
    assert output(capfd, "ls", "/zookeeper/quota") == "[]\n"
    assert "Node does not exist: /none" in error_of(capfd, "setquota", "-n", "1", "/none")


@pytest.mark.usefixtures("zk")
def test_a_standalone_server_has_no_configuration(capfd: Captured) -> None:
    assert output(capfd, "config") == "\n"
    assert output(capfd, "config", "-c") == " \n"
    assert "dataLength = 0" in output(capfd, "config", "-s")


def test_the_servers_may_be_named_before_and_behind_the_subcommand(
    hosts: str, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOOLOG_COORD", "127.0.0.1:1")
    assert output(capfd, "--coord", hosts, "ls", "/") == "[zookeeper]\n"
    assert output(capfd, "ls", "/", "--coord", hosts) == "[zookeeper]\n"
    assert output(capfd, "--coord", "127.0.0.1:1", "ls", "/", "--coord", hosts) == "[zookeeper]\n"


def test_zkcli_s_own_options_are_understood(hosts: str, capfd: Captured) -> None:
    options = ["-server", hosts, "-timeout", "6000", "-r", "-waitforconnection"]
    assert output(capfd, *options, "ls", "/") == "[zookeeper]\n"
    assert "expected a port" in error_of(capfd, "-server", "a:x", "ls", status=2)


def test_a_chroot_in_the_hosts_holds(hosts: str, capfd: Captured) -> None:
    assert output(capfd, "ls", "/", "--coord", hosts + "/zookeeper") == "[config, quota]\n"
    assert "outside a chroot" in error_of(capfd, "setquota", "-n", "1", "/x", "--coord", hosts + "/zookeeper")


def test_the_version_needs_no_server(capfd: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOOLOG_COORD", "127.0.0.1:1")
    assert output(capfd, "version").startswith("ZooKeeper CLI version: 3.9.5-zoolog-")
