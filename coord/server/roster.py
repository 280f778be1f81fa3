"""What a server does when the members of its ensemble change: whom it dials, where it listens, what it tells
its operator.

The state is what counts. The file beside zoo.cfg is for operators and for tools that look for it
(specification 19.5): `<zoo.cfg>.dynamic.<version>` with the member lines, one file per version; nothing here
reads it, and zoo.cfg itself is left alone. Addresses of zoo.cfg are dialled too where the state has none, so
that a server that is about to join finds the ensemble.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from coord import eventlog
from coord.server.config import PeerAddress, ServerConfig
from coord.server.config.members import EVERY_HOST
from coord.server.greeting import Address
from coord.server.links import PeerLinks
from coord.server.members import Members
from coord.server.startup import members_of
from coord.tree import DataTree

log = eventlog.get("coord.server")


def addresses_of(
    config: ServerConfig, members: Members, seen: Iterable[PeerAddress] = ()
) -> dict[int, tuple[Address, ...]]:
    """Where the others are.

    Args:
        seen: members of later configurations than the state's, in a log that was lost.
    """
    found = {
        peer.sid: tuple((address.host, address.quorum_port) for address in peer.addresses)
        for peer in (*config.servers, *members.servers, *seen)
    }
    found.pop(config.sid, None)
    return found


def listen_addresses(config: ServerConfig, members: Members) -> tuple[Address, ...]:
    """Where this server listens for the others."""
    everywhere = config.ensemble.listen_everywhere
    own = own_address(config, members).addresses
    return tuple(dict.fromkeys(("" if everywhere else one.host, one.quorum_port) for one in own))


def own_address(config: ServerConfig, members: Members) -> PeerAddress:
    """This server's line, by the state where it is a member."""
    mine = members.find(config.sid)
    return mine or next(peer for peer in config.servers if peer.sid == config.sid)


def client_address(config: ServerConfig, members: Members) -> tuple[str, int | None]:
    """Where clients find this server: by the state, where that may change while zoo.cfg does not."""
    mine = own_address(config, members)
    if mine.client_port is None or not config.ensemble.reconfig_enabled:
        return config.client_address, config.client_port
    return mine.client_host or EVERY_HOST, mine.client_port


class Roster:
    """Keeps one server in step with the members in its state.

    Args:
        move: called after this server has got another address: whoever leads from an address that the others
            leave must not go on leading.
        serve_at: called with the (host, port) for clients that this server has got.
    """

    def __init__(
        self,
        config: ServerConfig,
        tree: Callable[[], DataTree],
        links: PeerLinks,
        move: Callable[[], None],
        serve_at: Callable[[str, int], None],
    ) -> None:
        self._config = config
        self._tree = tree
        self._links = links
        self._move = move
        self._serve_at = serve_at
        self._members = members_of(config, tree())

    def refresh(self) -> None:
        """The state holds other members than before, or is another one."""
        before, now = self._members, members_of(self._config, self._tree())
        if now == before:
            return
        self._members = now
        log.info("members of the ensemble", version=hex(now.version), members=now.lines().replace("\n", " "))
        self._links.set_members(addresses_of(self._config, now))
        self._write_dynamic_file(now)
        sid = self._config.sid
        if before.find(sid) is not None and now.find(sid) is None:
            if before.version:
                what, do = (
                    "this server is no member of the ensemble any more",
                    "stop it; until then it follows",
                )
            else:
                what, do = (
                    "this server is no member of the ensemble yet",
                    "add it by reconfig; until then it follows",
                )
            log.warning(what, do=do, sid=sid)
        mine, own = own_address(self._config, now), listen_addresses(self._config, now)
        if listen_addresses(self._config, before) != own:
            self._links.listen_on(own)
            self._move()
        if mine.client_port is not None and self._config.ensemble.reconfig_enabled:
            self._serve_at(mine.client_host or EVERY_HOST, mine.client_port)

    def _write_dynamic_file(self, members: Members) -> None:
        if not self._config.path or not self._config.ensemble.reconfig_enabled:
            return
        path = Path(f"{self._config.path}.dynamic.{members.version:x}")
        try:
            path.write_text(members.lines(), encoding="utf-8")
        except OSError as error:
            log.warning(
                "cannot write the members' file",
                do="nothing: the state has them",
                path=str(path),
                error=error,
            )
