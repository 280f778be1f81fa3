"""Where a server listens for its clients: the plain port and the TLS port, as far as there are any."""

from contextlib import AbstractContextManager
from dataclasses import replace

from coord import eventlog
from coord.listening import ListenError, named_listener
from coord.reactor import Reactor
from coord.server.config import ServerConfig
from coord.server.roster import client_address
from coord.server.service import ClientService
from coord.server.startup import members_of
from coord.server.state import State
from coord.server.strangers import spoken_without_tls
from coord.server.tls import ClientTls

log = eventlog.get("coord.server")

Address = tuple[str, int]


class ClientPorts:
    """Those of one server.

    Args:
        tls: what connections with TLS are given; None where there are none.
    """

    def __init__(
        self,
        config: ServerConfig,
        reactor: Reactor,
        service: ClientService,
        state: State,
        tls: ClientTls | None,
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._service = service
        self._state = state
        self._tls = tls
        self.plain_address: Address | None = None
        """Where the plain port listens, once it does."""
        self.tls_address: Address | None = None

    def listen(self) -> None:
        """Opens both.

        Raises:
            ListenError: a port cannot be listened on.
        """
        config, tls = self._config, self._config.tls
        host, port = config.client_address, config.client_port
        if not config.standalone:
            host, port = client_address(config, members_of(config, self._state.tree))
        if port is not None:
            self.plain_address = self._listen_plain(host, port)
        if tls.secure_port is not None:
            with self._named("secureClientPort", tls.secure_address, tls.secure_port):
                self.tls_address = self._listen_at(tls.secure_address, tls.secure_port, tls=True, plain=False)

    def serve_at(self, host: str, port: int) -> None:
        """The ensemble has given this server another client port; who is connected stays so."""
        old = self.plain_address
        if old is None or port == old[1]:
            return
        try:
            address = self._listen_plain(host, port)
        except ListenError as error:
            log.error("cannot serve clients at another port", do=error.advice, error=error.what)
            return
        self._reactor.unlisten(old)
        self.plain_address = address
        log.info("clients are served at another port", address=address, before=old)

    def config_with_ports(self) -> ServerConfig:
        """The configuration with the ports that the system gave, for a server in this one's place."""
        config = self._config
        port = config.client_port if self.plain_address is None else self.plain_address[1]
        secure = config.tls.secure_port if self.tls_address is None else self.tls_address[1]
        return replace(config, client_port=port, tls=replace(config.tls, secure_port=secure))

    def _listen_plain(self, host: str, port: int) -> Address:
        with self._named("clientPort", host, port):
            return self._listen_at(host, port, tls=self._config.tls.port_unification, plain=True)

    def _named(self, key: str, host: str, port: int) -> AbstractContextManager[None]:
        """A port that the member's own line gives is called by that line."""
        config = self._config
        mine = next((peer for peer in config.servers if peer.sid == config.sid), None)
        if mine is not None and port in (mine.client_port, mine.secure_port):
            key = address_key = f"server.{config.sid}"
        else:
            address_key = f"{key}Address"
        return named_listener(key, address_key, host, port)

    def _listen_at(self, host: str, port: int, *, tls: bool, plain: bool) -> Address:
        context = self._tls.current if tls and self._tls is not None else None
        return self._reactor.listen(
            "" if host == "0.0.0.0" else host,
            port,
            self._service,
            ssl_context=context,
            allows_plain=plain,
            name_plain=spoken_without_tls,
            backlog=self._config.listen_backlog,
        )
