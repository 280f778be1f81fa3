"""Ports that are used twice, found before anything listens."""

from pathlib import Path

import pytest

from coord.server.config import ConfigError, ServerConfig, parse_config

PROVIDER = "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider"


@pytest.fixture
def member(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "myid").write_text("1")
    (tmp_path / "ensemble.secret").write_text("0123456789abcdef")
    return {"dataDir": str(tmp_path), "initLimit": "5", "syncLimit": "5"}


def alone(**pairs: str) -> ServerConfig:
    return parse_config({"dataDir": "/d"} | {name.replace("_", "."): text for name, text in pairs.items()})


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ({"secureClientPort": "2181"}, "clientPort and secureClientPort have the same port 2181"),
        (
            {"metricsProvider_className": PROVIDER, "metricsProvider_httpPort": "2181"},
            "clientPort and metricsProvider.httpPort have the same port 2181",
        ),
    ],
)
def test_a_port_that_is_used_twice_is_a_mistake(pairs: dict[str, str], text: str) -> None:
    store = {"ssl_keyStore_location": "s.pem", "ssl_clientAuth": "none"}
    with pytest.raises(ConfigError, match=f"^{text}$"):
        alone(clientPort="2181", **store, **pairs)


def test_one_port_on_two_addresses_is_none() -> None:
    store = {"ssl_keyStore_location": "s.pem", "ssl_clientAuth": "none"}
    both = {"clientPort": "2181", "secureClientPort": "2181", **store}
    config = alone(clientPortAddress="127.0.0.1", secureClientPortAddress="127.0.0.2", **both)
    assert config.warnings == ()
    assert alone(**both | {"clientPort": "0", "secureClientPort": "0"}).client_port == 0


def test_the_admin_server_can_be_done_without() -> None:
    config = alone(clientPort="2181", admin_serverPort="2181")
    assert config.warnings == (
        "clientPort and admin.serverPort have the same port 2181: there will be no admin server",
    )


def test_the_quorum_port_is_a_port_of_this_server(member: dict[str, str]) -> None:
    others = {"server.2": "b:2888:3888", "server.3": "c:2888:3888"}
    with pytest.raises(ConfigError, match=r"clientPort and server\.1 have the same port 2888"):
        parse_config(member | others | {"server.1": "a:2888:3888", "clientPort": "2888"})


def test_two_members_cannot_have_one_address(member: dict[str, str]) -> None:
    lines = {"server.1": "a:2888:3888", "server.2": "b:2888:3888", "server.3": "b:2888:3889"}
    with pytest.raises(ConfigError, match=r"server\.2 and server\.3 have the same address b:2888"):
        parse_config(member | lines)
