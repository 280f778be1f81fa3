"""Where a server listens for its clients: the plain port and the TLS port, as far as there are any."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from coord import eventlog
from coord.reactor import Reactor
from coord.server.config import ServerConfig
from coord.server.roster import client_address
from coord.server.service import ClientService
from coord.server.startup import members_of
from coord.server.state import State
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
            OSError: a port cannot be listened on.
        """
        config, tls = self._config, self._config.tls
        host, port = config.client_address, config.client_port
        if not config.standalone:
            host, port = client_address(config, members_of(config, self._state.tree))
        if port is not None:
            with _named("clientPort", host, port):
                self.plain_address = self._listen_at(host, port, tls=tls.port_unification, plain=True)
        if tls.secure_port is not None:
            with _named("secureClientPort", tls.secure_address, tls.secure_port):
                self.tls_address = self._listen_at(tls.secure_address, tls.secure_port, tls=True, plain=False)

    def serve_at(self, host: str, port: int) -> None:
        """The ensemble has given this server another client port; who is connected stays so."""
        old = self.plain_address
        if old is None or port == old[1]:
            return
        try:
            address = self._listen_at(host, port, tls=self._config.tls.port_unification, plain=True)
        except OSError as error:
            log.error("cannot serve clients there", do="free the port", host=host, port=port, error=error)
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

    def _listen_at(self, host: str, port: int, *, tls: bool, plain: bool) -> Address:
        context = self._tls.current if tls and self._tls is not None else None
        return self._reactor.listen(
            "" if host == "0.0.0.0" else host,
            port,
            self._service,
            ssl_context=context,
            allows_plain=plain,
            backlog=self._config.listen_backlog,
        )


@contextmanager
def _named(key: str, host: str, port: int) -> Iterator[None]:
    """Says in an error of the system which key of zoo.cfg it is about."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"{key}: cannot listen at {host or '*'}:{port}: {reason}") from error
