"""The admin server and the page for Prometheus over real sockets (specification 17, 18.1, 22.9 J95)."""

import json
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trustme
from prometheus_client.parser import text_string_to_metric_families

from coord.clock import SYSTEM_CLOCK
from coord.server.admin.commands import COMMANDS
from coord.server.admin.pages import CHUNK_CHARACTERS, LISTED, JsonChunks
from coord.server.config import ConfigError, parse_config
from coord.server.config.admin import AdminConfig
from coord.server.config.tls import TlsConfig
from coord.server.slices import Pace
from tests.coord.http_client import Answer, fetch
from tests.coord.server.operated import operated
from tests.coord.server.wire_client import CREATE, EXISTS, Wire, create, watched
from tests.coord_servers import free_ports

EPHEMERAL = 1
PAGE = (Path(__file__).resolve().parents[3] / "docs/metrics.md").read_text(encoding="utf-8")
KEYS = {
    "configuration": "client_port data_dir data_log_dir tick_time max_client_cnxns min_session_timeout "
    "max_session_timeout server_id client_port_listen_backlog",
    "connections": "connections secure_connections",
    "connection_stat_reset": "",
    "hash": "digests",
    "dirs": "datadir_size logdir_size",
    "dump": "expiry_time_to_session_ids session_id_to_ephemeral_paths",
    "get_trace_mask": "tracemask",
    "initial_configuration": "initial_configuration",
    "is_read_only": "read_only",
    "last_snapshot": "zxid timestamp",
    "observer_connection_stat_reset": "",
    "observers": "synced_observers observers",
    "ruok": "",
    "server_stats": "version read_only server_stats client_response node_count",
    "stats": "version read_only server_stats client_response node_count connections secure_connections",
    "stat_reset": "",
    "voting_view": "current_config",
    "watches": "session_id_to_watched_paths",
    "watches_by_path": "path_to_session_ids",
    "watch_summary": "num_connections num_paths num_total_watches",
    "zabstate": "voting zabstate",
}
"""Of a standalone server, by 17.3."""


class Operated:
    def __init__(self, port: int, admin_port: int) -> None:
        self.port = port
        self.admin_port = admin_port

    async def get(self, target: str, method: str = "GET") -> Answer:
        return await fetch(self.admin_port, target, method)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Operated]:
    client_port, admin_port = free_ports(2)
    admin = AdminConfig(server_port=admin_port)
    async with operated(tmp_path, client_port=client_port, admin=admin) as port:
        yield Operated(port, admin_port)


@pytest.mark.parametrize("name", sorted(KEYS))
async def test_a_command_has_its_keys_17_3(server: Operated, name: str) -> None:
    answer = await server.get(f"/commands/{name}")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    assert list(found) == [*KEYS[name].split(), "command", "error"]
    assert (found["command"], found["error"]) == (name, None)


async def test_every_alias_prints_the_primary_name_17_2(server: Operated) -> None:
    for alias, command in COMMANDS.items():
        found = (await server.get(f"/commands/{alias}")).json()
        assert found["command"] == command.name, alias


async def test_the_list_of_commands_is_links_17_2(server: Operated) -> None:
    for path in ("/commands", "/commands/"):
        text = (await server.get(path)).body.decode()
        assert text == "".join(f'<a href="/commands/{name}">{name}</a>\n<br/>\n' for name in LISTED)


async def test_an_unknown_command_is_an_error_with_status_200_17_2(server: Operated) -> None:
    answer = await server.get("/commands/Ruok")
    assert answer.status == 200
    assert answer.json() == {"command": "Ruok", "error": "Unknown command: Ruok"}


async def test_status_codes_of_what_is_no_command_17_1(server: Operated) -> None:
    assert (await server.get("/")).status == 404
    assert (await server.get("/commandsx")).status == 404
    assert (await server.get("/commands", "TRACE")).status == 403
    assert (await server.get("/commands/ruok", "POST")).status == 405
    head = await server.get("/commands/ruok", "HEAD")
    assert (head.status, head.body) == (200, b"")


async def test_the_mask_needs_a_number_17_3(server: Operated) -> None:
    for target in ("/commands/stmk", "/commands/stmk?traceMask=x"):
        error = (await server.get(target)).json()["error"]
        assert error == "setTraceMask requires long traceMask argument"
    assert (await server.get("/commands/stmk?traceMask=7")).json()["tracemask"] == 7
    assert (await server.get("/commands/gtmk")).json()["tracemask"] == 7


async def test_clients_sessions_and_watches_are_told_17_3(server: Operated) -> None:
    async with await Wire.session(server.port) as wire:
        await wire.call(1, CREATE, create(b"/e", b"", EPHEMERAL))
        await wire.call(2, EXISTS, watched(b"/none", watch=True))
        sid = wire.session_id
        (connection,) = (await server.get("/commands/cons")).json()["connections"]
        assert re.fullmatch(r"127\.0\.0\.1:\d+", connection["remote_socket_address"])
        assert (connection["session_id"], connection["last_operation"]) == (sid, "EXIS")
        assert connection["packets_received"] == 3
        dump = (await server.get("/commands/dump")).json()
        assert list(dump["expiry_time_to_session_ids"].values()) == [[sid]]
        assert dump["session_id_to_ephemeral_paths"] == {str(sid): ["/e"]}
        watches = (await server.get("/commands/wchc")).json()
        assert watches["session_id_to_watched_paths"] == {str(sid): ["/none"]}
        watches = (await server.get("/commands/wchp")).json()
        assert watches["path_to_session_ids"] == {"/none": [sid]}
        summary = (await server.get("/commands/wchs")).json()
        assert (summary["num_connections"], summary["num_paths"], summary["num_total_watches"]) == (1, 1, 1)


async def test_monitor_has_the_names_of_mntr_without_their_prefix_17_3(server: Operated) -> None:
    found = (await server.get("/commands/monitor")).json()
    assert list(found)[:4] == ["version", "server_state", "avg_latency", "max_latency"]
    assert found["server_state"] == "standalone"
    assert found["cnt_readlatency"] >= 0


async def test_a_standalone_server_has_no_leader_17_3(server: Operated) -> None:
    found = (await server.get("/commands/lead")).json()
    assert found == {"command": "leader", "error": "server is not initialized"}


async def test_metrics_stand_on_the_admin_server_too_18_1(server: Operated) -> None:
    answer = await server.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    names = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    assert {"znode_count", "readlatency", "zoolog_coord_loop_lag_us", "python_info"} <= names
    some = await server.get("/metrics?name[]=znode_count&name[]=commit_count")
    found = [family.name for family in text_string_to_metric_families(some.body.decode())]
    assert found == ["znode_count", "commit_count"]


async def test_the_page_about_metrics_names_all_of_our_own(server: Operated) -> None:
    text = (await server.get("/metrics")).body.decode()
    ours = {name for name in re.findall(r"^# TYPE zoolog_coord_(\w+)", text, re.MULTILINE)}
    assert ours
    missing = {name for name in ours if f"| `{name}` |" not in PAGE}
    assert not missing, f"say in docs/metrics.md what they mean: {missing}"


async def test_prometheus_has_a_port_of_its_own_where_the_provider_is_set_18_1(tmp_path: Path) -> None:
    client_port, port = free_ports(2)
    admin = AdminConfig(serves_prometheus=True, metrics_port=port, export_process_info=False)
    async with operated(tmp_path, client_port=client_port, admin=admin):
        text = (await fetch(port, "/metrics")).body.decode()
        assert "\nznode_count 5.0\n" in text
        assert "python_info" not in text
        assert (await fetch(port, "/")).status == 404


async def test_a_port_in_use_costs_the_admin_server_only(tmp_path: Path) -> None:
    async with await open_port() as taken:
        admin = AdminConfig(server_port=taken.socket.getsockname()[1])
        async with operated(tmp_path, admin=admin) as port, await Wire.session(port) as wire:
            assert (await wire.call(1, EXISTS, watched(b"/")))[0] == 0


async def open_port() -> trio.SocketListener:
    return (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]


async def test_the_admin_server_speaks_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    pem = tmp_path / "server.pem"
    pem.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    context = trustme_context(authority)
    client_port, port = free_ports(2)
    admin = AdminConfig(server_port=port, force_https=True)
    tls = TlsConfig(key_store=str(pem))
    async with operated(tmp_path / "data", client_port=client_port, admin=admin, tls=tls):
        assert (await fetch(port, "/commands/ruok", context=context)).json()["error"] is None


async def test_operators_may_have_to_show_a_certificate(tmp_path: Path) -> None:
    authority, strangers = trustme.CA(), trustme.CA()
    pem, trusted = tmp_path / "server.pem", tmp_path / "authority.pem"
    pem.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    trusted.write_bytes(authority.cert_pem.bytes())
    client_port, port = free_ports(2)
    admin = AdminConfig(server_port=port, port_unification=True, need_client_auth=True)
    tls = TlsConfig(key_store=str(pem), trust_store=str(trusted))
    async with operated(tmp_path / "data", client_port=client_port, admin=admin, tls=tls):
        context = trustme_context(authority)
        with pytest.raises((EOFError, trio.BrokenResourceError, ssl.SSLError)):
            await fetch(port, "/commands/ruok", context=context)
        strangers.issue_cert("mallory@example.org").configure_cert(context)
        with pytest.raises((EOFError, trio.BrokenResourceError, ssl.SSLError)):
            await fetch(port, "/commands/ruok", context=context)
        context = trustme_context(authority)
        authority.issue_cert("operator@example.org").configure_cert(context)
        assert (await fetch(port, "/commands/ruok", context=context)).status == 200
        assert (await fetch(port, "/commands/ruok")).status == 200, "port unification: plain HTTP is served"


def trustme_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def parsed(**pairs: str) -> AdminConfig:
    return parse_config(
        {"dataDir": "/d"} | {key.replace("_", "."): value for key, value in pairs.items()}
    ).admin


def test_nothing_listens_that_nobody_asked_for() -> None:
    assert not parsed().is_wanted
    assert not parsed().serves_prometheus
    assert parsed(admin_enableServer="true").is_wanted
    assert parsed(admin_serverPort="8081").is_wanted
    assert not parsed(admin_serverPort="8081", admin_enableServer="false").is_wanted
    config = parsed(admin_enableServer="true")
    assert (config.host, config.port) == ("127.0.0.1", 8080)


def test_a_provider_of_metrics_that_is_not_zookeepers_is_refused() -> None:
    provider = "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider"
    assert parsed(metricsProvider_className=provider).serves_prometheus
    with pytest.raises(ConfigError, match=r"metricsProvider\.className must be one of"):
        parsed(metricsProvider_className="com.example.Provider")


def test_tls_of_the_admin_server_needs_its_files() -> None:
    with pytest.raises(ConfigError, match=r"ssl\.keyStore\.location must name a PEM file"):
        parsed(admin_enableServer="true", admin_forceHttps="true")


def test_the_configuration_is_shown_without_its_secrets() -> None:
    shown = parse_config(
        {
            "dataDir": "/d",
            "DigestAuthenticationProvider.superDigest": "super:abc",
            "ssl.keyStore.password": "hidden",
            "tickTime": "2000",
        }
    ).shown_text
    assert shown == (
        "dataDir=/d\nDigestAuthenticationProvider.superDigest=***\nssl.keyStore.password=***\ntickTime=2000\n"
    )


async def test_a_long_answer_is_made_in_chunks() -> None:
    answer = {"paths": [f"/path/{number}" for number in range(20_000)], "command": "watches", "error": None}
    chunks = [chunk async for chunk in JsonChunks(answer, Pace(SYSTEM_CLOCK))]
    assert len(chunks) > 3
    assert max(map(len, chunks)) < 2 * CHUNK_CHARACTERS
    assert json.loads(b"".join(chunks)) == answer
