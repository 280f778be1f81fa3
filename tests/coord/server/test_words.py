"""Four-letter words (specification chapter 16)."""

import re

from coord.server.words import ConnectionLine, ServerView, answer_word, format_number

ALL = frozenset({"ruok", "srvr", "stat", "mntr", "isro"})


def view(mode: str | None = "standalone") -> ServerView:
    return ServerView(
        mode=mode,
        zxid=0x100000002,
        node_count=5,
        received=5,
        sent=4,
        connections=2,
        latency_ms_average=0.25,
        latency_ms_max=3,
        monitor={"avg_latency": 0.25, "znode_count": 5},
        lines=lambda: [ConnectionLine("127.0.0.1", 44070, 1, 0, 4, 4)],
    )


def answer(word: bytes, mode: str | None = "standalone", allowed: frozenset[str] = ALL) -> str:
    got = answer_word(word, allowed, lambda: view(mode))
    assert got is not None
    return got.decode()


def test_ruok_and_isro_have_no_newline() -> None:
    assert answer(b"ruok") == "imok"
    assert answer(b"isro") == "rw"
    assert answer(b"isro", None) == "null"


def test_a_word_that_is_not_listed_says_so() -> None:
    text = answer(b"ruok", allowed=frozenset())
    assert text == "ruok is not executed because it is not in the whitelist.\n"


def test_bytes_that_are_no_word_are_left_to_the_frame_check() -> None:
    assert answer_word(b"quux", ALL, view) is None


def test_words_that_need_the_tree_refuse_while_not_serving() -> None:
    assert answer(b"srvr", None) == "This ZooKeeper instance is not currently serving requests\n"
    assert answer(b"ruok", None) == "imok"


def test_srvr_has_exactly_the_lines_of_16_5() -> None:
    head, _, rest = answer(b"srvr").partition("\n")
    assert re.fullmatch(r"Zookeeper version: \d+\.\d+\.\d+-\S+, built on .*", head)
    assert rest == (
        "Latency min/avg/max: 0/0.25/3\nReceived: 5\nSent: 4\nConnections: 2\nOutstanding: 0\n"
        "Zxid: 0x100000002\nMode: standalone\nNode count: 5\n"
    )


def test_stat_adds_the_clients_and_a_leader_its_proposal_sizes() -> None:
    text = answer(b"stat", "leader")
    assert "\nClients:\n /127.0.0.1:44070[1](queued=0,recved=4,sent=4)\n\nLatency" in text
    assert text.endswith("Proposal sizes last/min/max: -1/-1/-1\n")


def test_mntr_is_tab_separated_pairs_with_version_and_state_first() -> None:
    pairs = [line.split("\t") for line in answer(b"mntr").splitlines()]
    assert [key for key, _ in pairs] == ["zk_version", "zk_server_state", "zk_avg_latency", "zk_znode_count"]


def test_decimals_have_at_most_four_digits() -> None:
    assert [format_number(value) for value in (0.0, 0.25, 1.61834, 7)] == ["0.0", "0.25", "1.6183", "7"]
