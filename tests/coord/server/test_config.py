"""zoo.cfg: the rules of specification 19.9 and the keys of our own."""

from pathlib import Path

import pytest

from coord.server.config import (
    ConfigError,
    ServerConfig,
    load_config,
    parse_config,
    with_guess,
    write_ensemble_secret,
)
from coord.server.config.table import page_with_tables

SECRET = "0123456789abcdef"


def ensemble_file(
    directory: Path, extra: str = "", *, myid: str | None = "2", secret: str | None = SECRET
) -> str:
    data = directory / "data"
    data.mkdir()
    if myid is not None:
        (data / "myid").write_text(myid + "\n")
    if secret is not None:
        (data / "ensemble.secret").write_text(secret + "\n")
    path = directory / "zoo.cfg"
    path.write_text(
        f"dataDir={data}\ntickTime=500\ninitLimit=10\nsyncLimit=5\nserver.1=a:2888:3888\n"
        f"server.2=b:2889:3889:participant;127.0.0.1:2182\nserver.3=[::1]:2890:3890\n{extra}"
    )
    return str(path)


def failure(pairs: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(pairs)
    return str(caught.value)


def test_a_minimal_file_runs_standalone_with_zookeepers_defaults() -> None:
    config = parse_config({"dataDir": "/d", "clientPort": "2181"})
    assert config == ServerConfig(data_dir="/d", data_log_dir="/d", client_port=2181)
    assert config.standalone
    assert config.sid == 1


def test_timeout_bounds_follow_the_tick() -> None:
    config = parse_config({"dataDir": "/d", "tickTime": "2000"})
    assert (config.session_timeout_ms_min, config.session_timeout_ms_max) == (4000, 40000)


def test_without_client_port_there_is_no_listener() -> None:
    assert parse_config({"dataDir": "/d"}).client_port is None


def test_unknown_keys_are_collected_not_refused() -> None:
    config = parse_config({"dataDir": "/d", "zzz": "1", "yyy.enableServer": "false"})
    assert config.unknown_keys == ("yyy.enableServer", "zzz")


@pytest.mark.parametrize(("given", "meant"), [("ticktime", "tickTime"), ("maxClientCnxn", "maxClientCnxns")])
def test_a_key_in_another_case_or_misspelt_is_guessed(given: str, meant: str) -> None:
    config = parse_config({"dataDir": "/d", given: "1"})
    assert config.unknown_keys == (given,)
    assert with_guess(given) == f"{given} (did you mean {meant}?)"
    assert with_guess("zzz") == "zzz"
    assert config.warnings == ()


def test_every_key_may_carry_zookeepers_prefix() -> None:
    config = parse_config({"zookeeper.dataDir": "/d", "zookeeper.maxClientCnxns": "7", "zookeeper.zzz": "1"})
    assert config.data_dir == "/d"
    assert config.max_client_connections == 7
    assert config.unknown_keys == ("zzz",)


def test_a_key_that_is_given_twice_must_say_the_same() -> None:
    assert parse_config({"dataDir": "/d", "tickTime": "5", "zookeeper.tickTime": "5"}).tick_ms == 5
    assert "tickTime differ" in failure({"dataDir": "/d", "tickTime": "5", "zookeeper.tickTime": "6"})


def test_the_page_on_configuration_has_the_tables_of_all_keys() -> None:
    page = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == page_with_tables(page), "run: python -m coord.server.config docs/configuration.md"


@pytest.mark.parametrize(
    ("pairs", "part"),
    [
        ({}, "dataDir is not set"),
        ({"dataDir": "/d", "tickTime": "x"}, "tickTime must be a number"),
        ({"dataDir": "/d", "tickTime": "-1"}, "tickTime"),
        ({"dataDir": "/d", "tickTime": "1_0"}, "tickTime must be a number"),
        ({"dataDir": "/d", "minSessionTimeout": "9", "maxSessionTimeout": "8"}, "9 > 8"),
        ({"dataDir": "/d", "clientPort": "70000"}, "clientPort must be a port"),
        ({"dataDir": "/d", "server.x": "a:1:2"}, "id must be a number"),
        ({"dataDir": "/d", "server.1": "a:1"}, "server.1 must be"),
        ({"dataDir": "/d", "server.1": "a:1:2:king"}, "unknown role"),
        ({"dataDir": "/d", "server.256": "a:1:2"}, "from 1 to 255"),
        ({"dataDir": "/d", "server.1": "a:1:2", "server.2": "b:1:2"}, "initLimit is not set"),
    ],
)
def test_mistakes_are_named_in_one_line(pairs: dict[str, str], part: str) -> None:
    text = failure(pairs)
    assert part in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "name",
    [
        "localSessionsEnabled",
        "reconfigEnabled",
        "quorumListenOnAllIPs",
        "standaloneEnabled",
        "multiAddress.enabled",
    ],
)
def test_a_boolean_is_true_or_false_and_nothing_else(name: str) -> None:
    """19.9."""
    assert f"{name} must be true or false, got 'yes'" in failure({"dataDir": "/d", name: "yes"})
    for text in ("true", "FALSE", "True"):
        parse_config({"dataDir": "/d", name: text})


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("initLimit=0", "initLimit is not set"),
        ("syncLimit=", "syncLimit must be a number, got ''"),
        ("syncLimit=0", "syncLimit is not set"),
        ("electionAlg=2", "electionAlg must be 3, got 2"),
        ("clientPortAddress=10.0.0.1", "clientPortAddress 10.0.0.1 differs"),
        ("server.4=d:1", "server.4 must be"),
        ("server.1=a:2888:3888:observer", None),
        ("group.1=1:2", "server 3 is in no group"),
        ("dynamicConfigFile=/x", "belong there"),
    ],
)
def test_each_mistake_of_an_ensemble_is_named(tmp_path: Path, line: str, part: str | None) -> None:
    """19.9; the last of two equal keys holds, as in Java."""
    path = ensemble_file(tmp_path, line + "\n")
    if part is None:
        assert load_config(path).servers[0].is_observer
        return
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_zookeeper_takes_is_no_mistake(tmp_path: Path) -> None:
    """19.9: equal client addresses, another peerType, a dataLogDir that does not exist yet."""
    config = load_config(
        ensemble_file(
            tmp_path,
            f"clientPort=2182\nclientPortAddress=127.0.0.1\npeerType=observer\ndataLogDir={tmp_path}/new\n",
        )
    )
    assert config.client_port == 2182
    assert "which holds" in config.warnings[-1]


def test_a_single_server_line_is_standalone() -> None:
    assert parse_config({"dataDir": "/d", "server.1": "a:1:2"}).standalone


def test_an_ensemble_file_gives_members_sid_secret_and_client_address(tmp_path: Path) -> None:
    config = load_config(ensemble_file(tmp_path))
    assert config.sid == 2
    assert [peer.sid for peer in config.servers] == [1, 2, 3]
    assert config.servers[2].host == "::1"
    assert (config.client_address, config.client_port) == ("127.0.0.1", 2182)
    assert config.ensemble_secret == SECRET.encode()


def test_a_client_port_that_contradicts_the_member_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clientPort 99 differs"):
        load_config(ensemble_file(tmp_path, "clientPort=99\n"))


@pytest.mark.parametrize(
    ("myid", "part"), [(None, "is missing"), ("x", "must hold a number"), ("9", "says 9")]
)
def test_myid_must_name_a_member(tmp_path: Path, myid: str | None, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_config(ensemble_file(tmp_path, myid=myid))


@pytest.mark.parametrize("secret", [None, "short"])
def test_an_ensemble_does_not_start_without_its_secret(tmp_path: Path, secret: str | None) -> None:
    with pytest.raises(ConfigError, match="ensemble secret"):
        load_config(ensemble_file(tmp_path, secret=secret))


def test_a_written_secret_can_be_used(tmp_path: Path) -> None:
    path = ensemble_file(tmp_path, secret=None)
    secret = write_ensemble_secret(str(tmp_path / "data" / "ensemble.secret"))
    assert load_config(path).ensemble_secret == secret


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.cfg: cannot be read"):
        load_config(str(tmp_path / "nothing.cfg"))


def test_the_whitelist_of_words_accepts_a_list_and_a_star() -> None:
    assert parse_config({"dataDir": "/d"}).words == {"srvr"}
    assert parse_config({"dataDir": "/d", "4lw.commands.whitelist": "ruok, stat"}).words == {"ruok", "stat"}
    assert "mntr" in parse_config({"dataDir": "/d", "4lw.commands.whitelist": "*"}).words


@pytest.mark.parametrize("text", ["0xfffff", "0XFFFFF", "1048575"])
def test_the_largest_request_may_be_written_as_java_s_properties_are(text: str) -> None:
    assert parse_config({"dataDir": "d", "jute.maxbuffer": text}).frame_bytes_max == 0xFFFFF


@pytest.mark.parametrize("text", ["0x", "0xg", "x10", "0x123456789", "0x-1"])
def test_what_is_no_hexadecimal_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"jute\.maxbuffer"):
        parse_config({"dataDir": "d", "jute.maxbuffer": text})
