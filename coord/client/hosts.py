"""The connection string of a client: `host1:2181,host2,[::1]:2183/chroot`.

The syntax is ZooKeeper's: comma-separated servers, a port each (2181 where none is given), and one optional
path behind the last of them under which the client then sees its own tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_PORT = 2181


class HostsError(ValueError):
    """A connection string that names no servers; the text says what was expected and what came."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """A parsed connection string: `servers` in the order given, `chroot` either empty or `/path` without
    end slash."""

    servers: tuple[tuple[str, int], ...]
    chroot: str

    def __str__(self) -> str:
        return ",".join(format_address(host, port) for host, port in self.servers) + self.chroot


def parse_hosts(text: str) -> Hosts:
    """Parses a connection string.

    Raises:
        HostsError: no server, an empty or malformed one, a port that is none, or a chroot that is no path.
    """
    servers_text, slash, path = text.strip().partition("/")
    chroot = (slash + path).rstrip("/")
    if any(part in ("", ".", "..") for part in chroot.split("/")[1:]):
        raise HostsError(f"expected a chroot without empty parts, `.` and `..`, got {chroot!r} in {text!r}")
    servers = tuple(parse_address(part.strip()) for part in servers_text.split(","))
    return Hosts(servers, chroot)


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Splits `host`, `host:port` or `[v6]:port`.

    Raises:
        HostsError: the host is empty or the port is no number from 1 to 65535.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise HostsError(f"expected [address]:port, got {text!r}")
        port_text = rest[1:]
    elif text.count(":") > 1:
        host, port_text = text, ""
    else:
        host, _, port_text = text.partition(":")
    if not host or not host.isprintable() or any(character in " /,@[]" for character in host):
        raise HostsError(f"expected host:port, got {text!r}")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise HostsError(f"expected a host name, got {host!r}: {error}") from error
    if not port_text:
        return host, default_port
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536):
        raise HostsError(f"expected a port from 1 to 65535, got {port_text!r} in {text!r}")
    return host, int(port_text)


def format_address(host: str, port: int) -> str:
    """`host:port`, with brackets where the host is an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def format_addresses(addresses: Sequence[tuple[str, int]]) -> str:
    """The connection string of some servers, without chroot."""
    return ",".join(format_address(host, port) for host, port in addresses)
