"""What the client's calls return, and how replies become it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from coord.errors import ProtocolError
from coord.protocol.jute import DecodeError, Reader
from coord.protocol.records import Acl, Identity, Stat, read_stat


class ClientStatistics(NamedTuple):
    """What a client has done since it was made.

    Attributes:
        connections: how often a server has taken it.
        requests: how many requests have left, pings among them.
        watch_events: how many events its servers have sent.
    """

    connections: int
    requests: int
    watch_events: int


@dataclass(frozen=True, slots=True)
class Config:
    """The ensemble's configuration: its text, a `server.N=` line each, and the Stat of its node."""

    text: str
    stat: Stat


@contextlib.contextmanager
def decoding(what: str) -> Iterator[None]:
    """A reply that cannot be decoded is the server's fault; whether the operation happened is unknown."""
    try:
        yield
    except DecodeError as error:
        raise ProtocolError(f"the reply to {what} cannot be decoded: {error}") from error


def read_names(reader: Reader) -> list[str]:
    """The names of a node's children, sorted."""
    return sorted(name.decode("utf-8", "replace") for name in reader.read_strings() or () if name is not None)


def read_acl(reader: Reader) -> list[Acl]:
    count = reader.read_count() or 0
    return [Acl(reader.read_int(), reader.read_text() or "", reader.read_text() or "") for _ in range(count)]


def read_identities(reader: Reader) -> list[Identity]:
    count = reader.read_count() or 0
    return [Identity(reader.read_text() or "", reader.read_text() or "") for _ in range(count)]


def read_config(reader: Reader) -> Config:
    return Config((reader.read_buffer() or b"").decode("utf-8", "replace"), read_stat(reader))
