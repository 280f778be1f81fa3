"""Opening a session: `async with coord.connect(hosts) as zk`."""

import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Sequence

import trio

from coord.client.client import Client
from coord.client.dial import Dial, TcpDial
from coord.client.hosts import Hosts, parse_hosts
from coord.client.servers import ServerList
from coord.client.session import NO_IDENTITY, Session
from coord.client.states import SERVED
from coord.client.watches import WatchTable
from coord.clock import SYSTEM_CLOCK, Clock
from coord.errors import NotConnectedError
from coord.nursery import open_private_nursery
from coord.protocol.digest_md5 import DigestMd5Client
from coord.protocol.records import PASSWORD_BYTES, encode_auth

SESSION_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_MS = 15_000
#: Longest session timeout that can be asked for: the wire has 32 bits.
SESSION_TIMEOUT_MS_MAX = (1 << 31) - 1


@contextlib.asynccontextmanager
async def connect(
    hosts: str,
    *,
    session_timeout_ms: int = SESSION_TIMEOUT_MS,
    connect_timeout_ms: int | None = CONNECT_TIMEOUT_MS,
    session: tuple[int, bytes] = NO_IDENTITY,
    read_only: bool = False,
    auth: Sequence[tuple[str, bytes | str]] = (),
    sasl: tuple[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    dial: Dial | None = None,
    clock: Clock = SYSTEM_CLOCK,
    rng: random.Random | None = None,
) -> AsyncIterator[Client]:
    """Opens a session; the block begins once a server has granted it and its end closes it.

    Args:
        hosts: `host:port,host:port/chroot`. Names are looked up again at each attempt.
        session_timeout_ms: how long the session outlives its last sign of life; the server may grant another.
        connect_timeout_ms: how long the first connection may take; None waits for ever.
        session: (id, password) of a session to re-attach to instead of a new one.
        read_only: a server that has lost its quorum will do, for reads; the client moves to one with a
            quorum as soon as there is one.
        auth: credentials to show to every server, such as ("digest", "user:password").
        sasl: user and password for a login by SASL DIGEST-MD5, in which the server proves itself too.
        ssl_context: for servers that listen with TLS; `coord.tls.client_context` makes one.
        dial: opens a stream to (host, port), in place of TCP; `ssl_context` is then its own business.

    Raises:
        HostsError: `hosts` cannot be parsed.
        ValueError: the session timeout is out of range, the password has not 16 bytes.
        NotConnectedError: no server answered in time; the text has the last reason.
        SessionExpiredError: the session to re-attach to is over.
        AuthFailedError: a server rejected our credentials.
    """
    if not 0 < session_timeout_ms <= SESSION_TIMEOUT_MS_MAX:
        raise ValueError(
            f"expected a session timeout of 1 to {SESSION_TIMEOUT_MS_MAX} ms, got {session_timeout_ms}"
        )
    if len(session[1]) != PASSWORD_BYTES:
        raise ValueError(f"expected a session password of {PASSWORD_BYTES} bytes, got {len(session[1])}")
    parsed = parse_hosts(hosts)
    rng = rng or random.SystemRandom()
    dial = dial or TcpDial(ssl_context, rng)
    watches = WatchTable()

    def make_login() -> DigestMd5Client:
        assert sasl is not None
        return DigestMd5Client(*sasl, f"{rng.getrandbits(128):032x}")

    state = Session(
        ServerList(parsed.servers, rng),
        session_timeout_ms,
        session,
        read_only=read_only,
        make_login=None if sasl is None else make_login,
        clock=clock,
        rng=rng,
        dial=dial,
        watches=watches,
    )
    for scheme, credentials in auth:
        state.begin_with(encode_auth(scheme, credentials))

    def open_session(identity: tuple[int, bytes]) -> contextlib.AbstractAsyncContextManager[Client]:
        servers = str(Hosts(client.hosts.servers, ""))
        # With the same login: a server that requires one would not even close a session without.
        return connect(servers, session=identity, auth=auth, sasl=sasl, dial=dial, clock=clock, rng=rng)

    client = Client(parsed, state, watches, open_session)
    async with open_private_nursery() as nursery:
        nursery.start_soon(state.run)
        with trio.move_on_after(_seconds(connect_timeout_ms)) as scope:
            await state.standing.wait(*SERVED)
        if scope.cancelled_caught:
            raise NotConnectedError(f"cannot connect to {client.hosts}: {state.last_failure}")
        state.check_alive()
        try:
            yield client
        finally:
            with trio.CancelScope(shield=True):
                await state.close()


def _seconds(milliseconds: int | None) -> float:
    """Milliseconds as the seconds that trio takes; None is for ever."""
    return float("inf") if milliseconds is None else milliseconds / 1000
