"""Four-letter words asked of a running server (specification chapter 16, 22.9)."""

import re
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trustme
from kazoo.client import ENVI_VERSION, ENVI_VERSION_KEY

from coord.server.config.record import WORDS_DEFAULT
from coord.server.config.sessions import SessionsConfig
from coord.server.config.tls import TlsConfig
from coord.server.words import WORDS
from tests.coord.server.operated import ask, operated
from tests.coord.server.wire_client import (
    CREATE,
    EXISTS,
    GET_DATA,
    PING,
    SET_DATA,
    Wire,
    create,
    request,
    set_data,
    watched,
)

EPHEMERAL = 1
NAGIOS_LINE = re.compile(r"^zk_(\w+)\t(.+)$")
"""As contrib's check_zookeeper reads each line of one `recv(2048)`."""
CLASSIC = """
zk_version zk_server_state zk_avg_latency zk_max_latency zk_min_latency zk_packets_received zk_packets_sent
zk_num_alive_connections zk_outstanding_requests zk_znode_count zk_watch_count zk_ephemerals_count
zk_approximate_data_size zk_open_file_descriptor_count zk_max_file_descriptor_count zk_uptime
zk_global_sessions zk_local_sessions
"""


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    async with operated(tmp_path) as port:
        yield port


def fields(line: str) -> dict[str, str]:
    """A connection's fields as zktop splits them."""
    found = re.search(r"/([\da-fA-F:.]+):(\d+)\[(\d+)\]\((.*)\)", line)
    assert found is not None, line
    return dict(field.split("=") for field in found[4].split(","))


async def test_every_word_is_answered_in_full_and_the_connection_ended(port: int) -> None:
    for name in sorted(WORDS - {"hash"}):  # there is no digest yet
        word = name.encode() + bytes(8)
        assert await ask(port, word), name


async def test_only_srvr_is_listed_by_default_16_2(tmp_path: Path) -> None:
    async with operated(tmp_path, words=WORDS_DEFAULT) as port:
        assert b"Mode: standalone" in await ask(port, b"srvr")
        for name in sorted(WORDS - WORDS_DEFAULT):
            text = f"{name} is not executed because it is not in the whitelist.\n".encode()
            assert await ask(port, name.encode() + bytes(8)) == text


async def test_srvr_is_listed_always_and_isro_with_read_only_mode(tmp_path: Path) -> None:
    sessions = SessionsConfig(read_only_mode=True)
    async with operated(tmp_path, words=frozenset({"ruok"}), sessions=sessions) as port:
        assert await ask(port, b"ruok") == b"imok"
        assert await ask(port, b"isro") == b"rw"
        assert b"Mode: standalone" in await ask(port, b"srvr")
        assert await ask(port, b"stat") == b"stat is not executed because it is not in the whitelist.\n"


async def test_an_unknown_word_is_a_bad_frame_length_16_2(port: int) -> None:
    assert await ask(port, b"quux") == b""


async def test_an_answer_arrives_in_one_write_for_those_who_read_once_16_1(port: int) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(b"mntr\n")
        await stream.send_eof()
        first = await stream.receive_some(1 << 20)
        assert first.startswith(b"zk_version\t")
        assert await stream.receive_some(1) == b""


async def test_the_asking_connection_is_shown_as_16_5_says(port: int) -> None:
    text = (await ask(port, b"stat")).decode()
    clients = text.partition("Clients:\n")[2].partition("\n\n")[0]
    assert re.fullmatch(r" /127\.0\.0\.1:\d+\[0\]\(queued=0,recved=1,sent=0\)", clients)
    assert "\nConnections: 1\n" in text


async def test_cons_tells_what_a_session_has_done_16_6(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/a", b"x"))
        await wire.call(2, GET_DATA, watched(b"/a"))
        await wire.call(3, SET_DATA, set_data(b"/a", b"y"))
        lines = (await ask(port, b"cons")).decode().splitlines()
        seen = next(fields(line) for line in lines if "sid=" in line)
        assert seen["sid"] == f"0x{wire.session_id:x}"
        assert (seen["recved"], seen["sent"], seen["queued"]) == ("4", "4", "0")
        assert (seen["lop"], seen["lcxid"], seen["to"]) == ("SETD", "0x3", "5000")
        assert int(seen["lzxid"], 16) & 0xFFFFFFFF == 3
        assert int(seen["minlat"]) <= int(seen["avglat"]) <= int(seen["maxlat"])
        await wire.send(request(-2, PING))
        await wire.reply()
        lines = (await ask(port, b"cons")).decode().splitlines()
        seen = next(fields(line) for line in lines if "sid=" in line)
        assert (seen["lop"], seen["lcxid"]) == ("PING", "0x3")


async def test_crst_sets_back_connections_and_srst_the_server(port: int) -> None:
    async with await Wire.session(port) as wire:
        for xid in range(1, 11):
            await wire.call(xid, EXISTS, watched(b"/"))
        assert await ask(port, b"crst") == b"Connection stats reset.\n"
        line = next(line for line in (await ask(port, b"cons")).decode().splitlines() if "sid=" in line)
        assert (fields(line)["recved"], fields(line)["lop"]) == ("0", "NA")
        received = re.search(r"Received: (\d+)", (await ask(port, b"srvr")).decode())
        assert received is not None
        assert int(received[1]) >= 11
        assert await ask(port, b"srst") == b"Server stats reset.\n"
        received = re.search(r"Received: (\d+)", (await ask(port, b"srvr")).decode())
        assert received is not None
        assert int(received[1]) <= 3


async def test_conf_has_the_keys_of_a_standalone_server_in_order_16_7(port: int, tmp_path: Path) -> None:
    lines = (await ask(port, b"conf")).decode().splitlines()
    assert " ".join(line.partition("=")[0] for line in lines) == (
        "clientPort secureClientPort dataDir dataDirSize dataLogDir dataLogSize tickTime maxClientCnxns "
        "minSessionTimeout maxSessionTimeout clientPortListenBacklog serverId"
    )
    assert f"dataDir={tmp_path}/version-2" in lines


async def test_kazoo_reads_the_version_out_of_one_recv_of_envi_16_8(port: int) -> None:
    text = (await ask(port, b"envi"))[:8192].decode()
    assert text.startswith("Environment:\n")
    pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    found = ENVI_VERSION.match(pairs[ENVI_VERSION_KEY])
    assert found is not None
    assert found[1] == "3.9.5"
    assert {"host.name", "os.name", "os.arch", "user.name", "python.version"} <= pairs.keys()


async def test_dump_names_sessions_ephemerals_and_connections_16_9(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/e", b"", EPHEMERAL))
        text = (await ask(port, b"dump")).decode()
        sid = f"0x{wire.session_id:x}"
        date = r"[A-Z][a-z]{2} [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d UTC \d{4}"
        pattern = (
            rf"SessionTracker dump:\nSession Sets \(1\)/\(1\):\n1 expire at {date}:\n\t{sid}\n"
            rf"ephemeral nodes dump:\nSessions with Ephemerals \(1\):\n{sid}:\n\t/e\n"
            r"Connections dump:\nConnections Sets \(\d\)/\(2\):\n(.|\n)*"
        )
        assert re.fullmatch(pattern, text), text
        assert re.search(rf"\tip: /127\.0\.0\.1:\d+ sessionId: {sid}\n", text)
        assert re.search(r"\tip: /127\.0\.0\.1:\d+ sessionId: 0x0\n", text)


async def test_the_words_for_watches_look_at_the_data_table_16_4(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, EXISTS, watched(b"/none", watch=True))
        sid = f"0x{wire.session_id:x}".encode()
        assert await ask(port, b"wchs") == b"1 connections watching 1 paths\nTotal watches:1\n"
        assert await ask(port, b"wchc") == sid + b"\n\t/none\n\n"
        assert await ask(port, b"wchp") == b"/none\n\t" + sid + b"\n\n"


async def test_the_classic_keys_of_mntr_come_within_2048_bytes_16_10(port: int) -> None:
    seen = []
    for line in (await ask(port, b"mntr"))[:2048].decode().splitlines()[:-1]:
        found = NAGIOS_LINE.match(line)
        assert found is not None, line
        seen.append(f"zk_{found[1]}")
    assert set(CLASSIC.split()) <= set(seen)
    assert seen[:2] == ["zk_version", "zk_server_state"]


async def test_hash_has_a_digest_for_about_every_128_transactions_16_4(port: int) -> None:
    async with await Wire.session(port) as wire:
        for xid in range(1, 140):
            await wire.call(xid, CREATE, create(b"/n%d" % xid))
        lines = (await ask(port, b"hash")).decode().splitlines()
        assert all(re.fullmatch(r"[0-9a-f]+: \d+", line) for line in lines)
        numbers = [int(line.partition(":")[0], 16) & 0xFFFFFFFF for line in lines]
        assert numbers[0] == 1
    assert 128 in numbers  # and where another second began


async def test_the_trace_mask_is_remembered_and_means_nothing_16_4(port: int) -> None:
    assert await ask(port, b"gtmk") == b"306"
    async with await Wire.open(port) as wire:
        await wire.send(b"stmk")
        await wire.send(struct.pack(">q", 74))
        assert await wire.rest() == b"74"
    assert await ask(port, b"gtmk") == b"74"


async def test_dirs_has_two_sizes_16_4(port: int) -> None:
    assert re.fullmatch(rb"datadir_size: \d+\nlogdir_size: \d+\n", await ask(port, b"dirs"))


async def test_words_are_answered_over_tls_k94(tmp_path: Path) -> None:
    authority = trustme.CA()
    pem = tmp_path / "server.pem"
    pem.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    tls = TlsConfig(key_store=str(pem), port_unification=True, client_auth="none")
    async with operated(tmp_path / "data", tls=tls) as port:
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        async with trio.SSLStream(
            plain, context, server_hostname="localhost", https_compatible=True
        ) as stream:
            await stream.send_all(b"ruok")
            assert await stream.receive_some(100) == b"imok"
