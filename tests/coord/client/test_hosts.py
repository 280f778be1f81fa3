"""Connection strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.client.hosts import HostsError, format_address, format_addresses, parse_address, parse_hosts


@pytest.mark.parametrize(
    ("text", "servers", "chroot"),
    [
        ("localhost", [("localhost", 2181)], ""),
        ("a:1,b:2", [("a", 1), ("b", 2)], ""),
        (" a:1 , b ", [("a", 1), ("b", 2181)], ""),
        ("a:1/x/y", [("a", 1)], "/x/y"),
        ("a:1/", [("a", 1)], ""),
        ("a:1/x/", [("a", 1)], "/x"),
        ("[::1]:7,[fe80::2]", [("::1", 7), ("fe80::2", 2181)], ""),
        ("::1", [("::1", 2181)], ""),
    ],
)
def test_forms_that_are_understood(text: str, servers: list[tuple[str, int]], chroot: str) -> None:
    hosts = parse_hosts(text)
    assert list(hosts.servers) == servers
    assert hosts.chroot == chroot


@pytest.mark.parametrize(
    "text",
    ["", ",", "a:1,", ":2181", "a:x", "a:0", "a:65536", "a:-1", "a:1//x", "a:1/x/../y", "a:1/./y", "[::1",
     "[::1]x", "[]:1", "a b:1", "a\0:1", "a:١", "a" * 64 + ":1", "/chroot"],
)  # fmt: skip
def test_what_names_no_servers_is_told(text: str) -> None:
    with pytest.raises(HostsError, match="expected"):
        parse_hosts(text)


@given(st.text(max_size=30))
def test_any_text_is_hosts_or_an_error_of_its_own(text: str) -> None:
    try:
        hosts = parse_hosts(text)
    except HostsError:
        return
    assert parse_hosts(str(hosts)) == hosts


def test_an_address_of_ipv6_gets_brackets() -> None:
    assert format_address("::1", 5) == "[::1]:5"
    assert format_addresses([("a", 1), ("::1", 5)]) == "a:1,[::1]:5"
    assert parse_address(format_address("::1", 5)) == ("::1", 5)
