"""What a reconfiguration asks for, and what it makes of a configuration (specification 19.4): pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from coord.protocol import opcodes
from coord.protocol.jute import Reader
from coord.server.config import ConfigError, PeerAddress
from coord.server.config.keys import integer
from coord.server.config.members import parse_members
from coord.server.members import Members

ANY_VERSION = -1
_WILDCARDS = frozenset({"0.0.0.0", "::", "0:0:0:0:0:0:0:0"})
_LOOPBACKS = frozenset({"localhost", "::1", "0:0:0:0:0:0:0:1"})


class ReconfigurationError(Exception):
    """The request cannot be carried out; `code` is what its client is told, the text is for the log."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """A ReconfigRequest; the lists as clients write them."""

    joining: str | None
    leaving: str | None
    new_members: str | None
    version: int

    @classmethod
    def decode(cls, body: bytes) -> "Request":
        """Raises: DecodeError."""
        reader = Reader(body)
        joining, leaving, new_members = (_text(reader.read_string()) for _ in range(3))
        return cls(joining, leaving, new_members, reader.read_long())


def apply(request: Request, now: Members, *, voters_min: int, several_addresses: bool = False) -> Members:
    """The members after the request; the version is still that of `now`.

    Args:
        voters_min: fewer participants than this are refused.
        several_addresses: `multiAddress.enabled`.

    Raises:
        ReconfigurationError: what is wrong with the text.
    """
    try:
        if request.new_members is not None:
            members = _replaced(request.new_members)
        else:
            members = _changed(request, now)
    except ConfigError as error:
        raise ReconfigurationError(opcodes.BAD_ARGUMENTS, str(error)) from error
    for peer in members.servers:
        if peer.more and not several_addresses:
            raise _bad(f"server.{peer.sid} has several addresses, and multiAddress.enabled is false")
    if len(members.voters) < voters_min:
        raise _bad(f"{len(members.voters)} participants, expected at least {voters_min}")
    return members


def _replaced(text: str) -> Members:
    members = Members.parse(text)
    if not members.servers:
        raise _bad("no members")
    return members


def _changed(request: Request, now: Members) -> Members:
    """Leaving is applied first, then joining."""
    joining, leaving = _items(request.joining), _items(request.leaving)
    if not joining and not leaving and (request.joining is not None or request.leaving is not None):
        raise _bad("nobody joins and nobody leaves")
    if now.groups is not None and (joining or leaving):
        raise _bad("an ensemble with groups is changed by naming all members")
    peers = {peer.sid: peer for peer in now.servers}
    for text in leaving:
        peers.pop(_number(text), None)
    for text in joining:
        peer = _joiner(text)
        _refuse_used_addresses(peer, (other for other in peers.values() if other.sid != peer.sid))
        peers[peer.sid] = peer
    return replace(now, servers=tuple(peers[sid] for sid in sorted(peers)))


def _joiner(text: str) -> PeerAddress:
    name, *rest = text.split("=")
    if len(rest) != 1:
        raise _bad(f"expected server.ID=ADDRESS, got {text[:100]!r}")
    number = _number(name.rpartition(".")[2])
    (peer,) = parse_members([(str(number), rest[0])])
    if peer.client_port is None:
        raise _bad(f"server.{peer.sid} has no client port")
    return peer


def _refuse_used_addresses(peer: PeerAddress, others: Iterable[PeerAddress]) -> None:
    """Loopback and wildcard addresses are never counted as used."""
    mine = _endpoints(peer)
    for other in others:
        used = mine & _endpoints(other)
        if used:
            host, port = sorted(used)[0]
            raise _bad(f"{host}:{port} of server.{peer.sid} is used by server.{other.sid}")


def _endpoints(peer: PeerAddress) -> set[tuple[str, int]]:
    pairs = {(one.host, port) for one in peer.addresses for port in (one.quorum_port, one.election_port)}
    if peer.client_port is not None and peer.client_host:
        pairs.add((peer.client_host, peer.client_port))
    return {
        (host, port)
        for host, port in pairs
        if host not in _WILDCARDS and host not in _LOOPBACKS and not host.startswith("127.")
    }


def _items(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _number(text: str) -> int:
    """An id that is no number costs another error than the rest."""
    try:
        return integer(text.strip())
    except ValueError:
        raise ReconfigurationError(
            opcodes.MARSHALLING_ERROR, f"expected a server's number, got {text[:40]!r}"
        ) from None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _bad(text: str) -> ReconfigurationError:
    return ReconfigurationError(opcodes.BAD_ARGUMENTS, text)
