"""The law of plain reads, on replies as they should be and as they must not be."""

from tests.histories.sessions import Seen, inconsistencies


def seen(zxid: int, mzxid: int, version: int, path: str = "/a") -> Seen:
    return Seen(zxid, path, mzxid, version, b"%d" % version)


def test_sessions_that_see_growing_prefixes_of_one_order_are_consistent() -> None:
    ahead = [seen(1, 1, 0), seen(5, 5, 1), seen(9, 8, 2), seen(9, 7, 0, "/b")]
    behind = [seen(1, 1, 0), seen(1, 1, 0), seen(6, 5, 1)]
    assert inconsistencies({"ahead": ahead, "behind": behind}) == []


def test_a_reply_older_than_one_before_it_is_named() -> None:
    (wrong,) = inconsistencies({"s": [seen(5, 5, 1), seen(4, 1, 0)]})
    assert wrong.startswith("s: a reply at zxid 0x4 after one at 0x5")


def test_a_reply_that_misses_a_write_before_its_zxid_is_named() -> None:
    """Also one that another session has seen only."""
    (wrong,) = inconsistencies({"s": [seen(6, 1, 0)], "other": [seen(9, 5, 1)]})
    assert wrong.startswith("s: misses the write of zxid 0x5")


def test_a_session_that_does_not_see_its_own_write_is_named() -> None:
    (wrong,) = inconsistencies({"s": [seen(1, 1, 0), seen(5, 5, 1), seen(6, 1, 0)]})
    assert wrong.startswith("s: misses the write of zxid 0x5")


def test_a_node_newer_than_its_reply_is_named() -> None:
    (wrong,) = inconsistencies({"s": [seen(4, 5, 1)]})
    assert wrong.startswith("s: shows the future")


def test_two_writes_of_one_zxid_and_versions_that_fall_are_named() -> None:
    split = {"s": [seen(5, 5, 1)], "other": [Seen(5, "/a", 5, 1, b"else")]}
    assert inconsistencies(split)[0].startswith("one zxid, two writes")
    (wrong,) = inconsistencies({"s": [seen(5, 5, 2), seen(6, 6, 1)]})
    assert wrong.startswith("/a: version 1 at zxid 0x6 after version 2")
