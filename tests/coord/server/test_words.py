"""Four-letter words (specification chapter 16): the texts."""

import re

from coord.server.listings import (
    SessionFacts,
    format_connections,
    format_dump,
    format_watch_summary,
    format_watches_by_connection,
    format_watches_by_path,
)
from coord.server.words import (
    ConnectionLine,
    ServerView,
    format_monitor,
    format_number,
    format_server,
    not_listed,
    operation_name,
)

BRIEF = ConnectionLine("127.0.0.1", 44070, 1, 0, 4, 4)
LONG = ConnectionLine(
    host="127.0.0.1",
    port=44071,
    interest=1,
    queued=2,
    received=7,
    sent=5,
    session_id=0x100000000000000,
    last_operation="SETD",
    established_ms=1767348000123,
    timeout_ms=10_000,
    last_xid=3,
    last_zxid=0x100000002,
    last_response_ms=123456,
    latency_ms_last=1,
    latency_ms_min=0,
    latency_ms_average=1,
    latency_ms_max=4,
)
ZKTOP = re.compile(r"/([\da-fA-F:.]+):(\d+)\[(\d+)\]\((.*)\)")


def server_text(mode: str | None = "standalone", *, clients: bool = False) -> str:
    view = ServerView(
        mode=mode,
        zxid=0x100000002,
        node_count=5,
        received=5,
        sent=4,
        connections=2,
        latency_ms_average=0.25,
        latency_ms_max=3,
        lines=lambda: [BRIEF],
    )
    return "".join(format_server(view, clients=clients))


def test_a_word_that_is_not_listed_says_so() -> None:
    assert not_listed("ruok") == b"ruok is not executed because it is not in the whitelist.\n"


def test_srvr_has_exactly_the_lines_of_16_5() -> None:
    head, _, rest = server_text().partition("\n")
    assert re.fullmatch(r"Zookeeper version: \d+\.\d+\.\d+-\S+, built on .*", head)
    assert rest == (
        "Latency min/avg/max: 0/0.25/3\nReceived: 5\nSent: 4\nConnections: 2\nOutstanding: 0\n"
        "Zxid: 0x100000002\nMode: standalone\nNode count: 5\n"
    )


def test_stat_adds_the_clients_and_a_leader_its_proposal_sizes() -> None:
    text = server_text("leader", clients=True)
    assert "\nClients:\n /127.0.0.1:44070[1](queued=0,recved=4,sent=4)\n\nLatency" in text
    assert text.endswith("Proposal sizes last/min/max: -1/-1/-1\n")


def test_a_read_only_server_says_so_behind_its_version() -> None:
    second = server_text("read-only").splitlines()[1]
    assert second == "READ-ONLY mode; serving only read-only clients"


def test_mntr_is_tab_separated_pairs_with_version_and_state_first() -> None:
    text = format_monitor("standalone", {"avg_latency": 0.25, "znode_count": 5})
    pairs = [line.split("\t") for line in text.splitlines()]
    assert [key for key, _ in pairs] == ["zk_version", "zk_server_state", "zk_avg_latency", "zk_znode_count"]


def test_decimals_have_at_most_four_digits() -> None:
    assert [format_number(value) for value in (0.0, 0.25, 1.61834, 7)] == ["0.0", "0.25", "1.6183", "7"]


def test_cons_prints_the_long_form_once_there_is_a_session_16_6() -> None:
    text = "".join(format_connections([BRIEF, LONG]))
    assert text == (
        " /127.0.0.1:44070[1](queued=0,recved=4,sent=4)\n"
        " /127.0.0.1:44071[1](queued=2,recved=7,sent=5,sid=0x100000000000000,lop=SETD,est=1767348000123,"
        "to=10000,lcxid=0x3,lzxid=0x100000002,lresp=123456,llat=1,minlat=0,avglat=1,maxlat=4)\n\n"
    )


def test_zktop_reads_connection_lines_16_6() -> None:
    found = ZKTOP.search(LONG.text(long=True))
    assert found is not None
    assert found.groups()[:3] == ("127.0.0.1", "44071", "1")
    fields = dict(field.split("=") for field in found[4].split(","))
    assert (fields["queued"], fields["lop"], fields["maxlat"]) == ("2", "SETD", "4")


def test_lcxid_is_left_out_while_it_is_negative_16_6() -> None:
    line = ConnectionLine("127.0.0.1", 1, 1, 0, 1, 1, session_id=-1)
    text = line.text(long=True)
    assert "lcxid" not in text
    assert "sid=0xffffffffffffffff" in text


def test_operations_have_the_codes_of_16_6() -> None:
    assert [operation_name(op) for op in (None, -10, 11, 1, 12, 104, 22, 107, -11, 999)] == (
        ["NA", "SESS", "PING", "CREA", "GETC", "GETACN", "MLTR", "HOMI", "CLOS", "NA"]
    )


def dump(sessions: SessionFacts) -> str:
    return "".join(
        format_dump(
            sessions,
            {0x10: {5: b"/path", 6: b"/path/2"}},
            [(20, [0])],
            lambda place: ("/127.0.0.1:44070", 0x10),
            lambda wall_ms: f"date {wall_ms}",
        )
    )


def test_dump_of_a_server_that_expires_sessions_16_9() -> None:
    assert dump(SessionFacts([(10, {0x10}), (12, {0x12, 0x11})], None, [])) == (
        "SessionTracker dump:\nSession Sets (2)/(3):\n"
        "1 expire at date 10:\n\t0x10\n2 expire at date 12:\n\t0x11\n\t0x12\n"
        "ephemeral nodes dump:\nSessions with Ephemerals (1):\n0x10:\n\t/path\n\t/path/2\n"
        "Connections dump:\nConnections Sets (1)/(1):\n"
        "1 expire at date 20:\n\tip: /127.0.0.1:44070 sessionId: 0x10\n"
    )


def test_dump_of_a_follower_has_the_global_sessions_16_9() -> None:
    text = dump(SessionFacts(None, None, [(0x12, 4000), (0x10, 10_000)]))
    assert text.startswith(
        "SessionTracker dump:\nGlobal Sessions(2):\n0x10\t10000ms\n0x12\t4000ms\nephemeral nodes dump:\n"
    )


def test_dump_with_local_sessions_has_a_block_of_them_first_16_9() -> None:
    text = dump(SessionFacts([(10, {1})], [(11, {2})], []))
    assert text.startswith(
        "SessionTracker dump:\nLocal Session Sets (1)/(1):\n1 expire at date 11:\n\t0x2\n"
        "Global Session Sets (1)/(1):\n1 expire at date 10:\n\t0x1\n"
    )


WATCHES = {b"/a": {0x10: 1, 0x11: 1}, b"/b": {0x10: 1}}


def test_the_words_for_watches_16_4() -> None:
    assert "".join(format_watch_summary(WATCHES)) == "2 connections watching 2 paths\nTotal watches:3\n"
    by_connection = "".join(format_watches_by_connection(WATCHES, lambda watcher: watcher))
    assert by_connection == "0x10\n\t/a\n\t/b\n0x11\n\t/a\n\n"
    by_path = "".join(format_watches_by_path(WATCHES, lambda watcher: watcher))
    assert by_path == "/a\n\t0x10\n\t0x11\n/b\n\t0x10\n\n"


def test_the_words_for_watches_without_any_16_4() -> None:
    nothing: dict[bytes, dict[int, int]] = {}
    assert "".join(format_watch_summary(nothing)) == "0 connections watching 0 paths\nTotal watches:0\n"
    assert "".join(format_watches_by_connection(nothing, lambda watcher: watcher)) == "\n"
    assert "".join(format_watches_by_path(nothing, lambda watcher: watcher)) == "\n"
