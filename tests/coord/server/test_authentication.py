"""Who a client is, on the wire: auth packets, SASL and enforcement (specification 5.6, 11.4 to 11.6)."""

import struct
from collections.abc import Awaitable, Callable

import pytest
import trio

from coord import eventlog
from coord.protocol import opcodes as o
from coord.protocol.digest_md5 import DigestMd5Client
from coord.protocol.jute import Reader, encode_buffer, encode_int, encode_text
from coord.protocol.records import Acl, Identity, encode_acl
from coord.server.authentication import IDENTITIES_MAX, IDENTITY_BYTES_MAX, Authentication, CredentialError
from coord.server.complaints import LINES_MAX, PERIOD_MS
from coord.server.config.security import SecurityConfig
from coord.server.statistics import ServerStatistics
from tests.coord.server.test_server import Start, port, start
from tests.coord.server.wire_client import (
    CREATE,
    EXISTS,
    GET_DATA,
    PING,
    SET_DATA,
    Wire,
    buffer,
    connect_request,
    create,
    request,
    set_data,
    watched,
)

__all__ = ["port", "start"]

SUPER_DIGEST = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="
USERS = SecurityConfig(sasl_users=(("super", "test"), ("wire", "wirepw")), super_user="super")
AUTH_FAILED_FRAME = struct.pack(">iiqi", 16, -4, 0, -115)
ACCEPTED = struct.pack(">iqi", -4, 0, 0)


def auth_packet(scheme: str | None, credentials: bytes | None) -> bytes:
    return request(-4, o.AUTH, encode_int(0) + encode_text(scheme) + encode_buffer(credentials))


def sasl(xid: int, token: bytes | None) -> bytes:
    return request(xid, o.SASL, encode_buffer(token))


async def token_of(wire: Wire, xid: int, sent: bytes) -> bytes | None:
    """What the server answers to a token."""
    await wire.send(sasl(xid, sent))
    got, zxid, error, body = await wire.reply()
    assert (got, zxid, error) == (xid, 0, 0)
    return Reader(body).read_buffer()


async def log_in(wire: Wire, user: str, password: str) -> bytes:
    """The challenge, and the whole answer to our proof."""
    client = DigestMd5Client(user, password, "cnonce")
    challenge = await token_of(wire, 1, client.begin())
    assert challenge is not None
    response = client.step(challenge)
    assert response is not None
    await wire.send(sasl(2, response))
    return challenge


def authentication(config: SecurityConfig, *, x509: bool = False) -> Authentication:
    return Authentication(config, ServerStatistics(), x509=x509, make_random=bytes)


async def closed_node(wire: Wire, acl: tuple[Acl, ...]) -> int:
    """Creates /closed with a list of its own; the error."""
    body = buffer(b"/closed") + buffer(b"x") + encode_acl(acl) + struct.pack(">i", 0)
    return (await wire.call(1000, CREATE, body))[0]


# auth packets


async def test_11_4_a_digest_packet_is_answered_and_opens_what_it_names(port: int) -> None:
    async with await Wire.session(port) as wire, await Wire.session(port) as other:
        await wire.send(auth_packet("digest", b"super:test"))
        assert await wire.frame() == ACCEPTED
        assert await closed_node(wire, (Acl(31, "digest", SUPER_DIGEST),)) == 0
        assert (await wire.call(2, GET_DATA, watched(b"/closed")))[0] == 0
        assert (await other.call(1, GET_DATA, watched(b"/closed")))[0] == o.NO_AUTH


async def test_11_4_the_super_digest_passes_every_list(start: Start) -> None:
    port = await start(security=SecurityConfig(super_digest=SUPER_DIGEST))
    async with await Wire.session(port) as wire:
        assert await closed_node(wire, (Acl(0, "world", "anyone"),)) == 0
        assert (await wire.call(1, SET_DATA, set_data(b"/closed", b"y")))[0] == o.NO_AUTH
        await wire.send(auth_packet("digest", b"super:wrong"))
        assert await wire.frame() == ACCEPTED
        assert (await wire.call(2, SET_DATA, set_data(b"/closed", b"y")))[0] == o.NO_AUTH
        await wire.send(auth_packet("digest", b"super:test"))
        assert await wire.frame() == ACCEPTED
        assert (await wire.call(3, SET_DATA, set_data(b"/closed", b"y")))[0] == 0


@pytest.mark.parametrize(
    ("scheme", "credentials"),
    [
        ("weird", b"x"),
        (None, b"x"),
        ("", b"x"),
        ("world", b"anyone"),
        ("auth", b""),
        ("super", b""),
        ("sasl", b"super"),
        ("x509", b"CN=a"),
        ("ensemble", b"mine"),
        ("digest", None),
    ],
)
async def test_11_4_a_refused_packet_is_answered_and_ends_its_connection_only(
    port: int, scheme: str | None, credentials: bytes | None
) -> None:
    async with await Wire.session(port) as wire, await Wire.session(port) as witness:
        await wire.send(auth_packet(scheme, credentials), request(1, EXISTS, watched(b"/")))
        assert await wire.rest() == AUTH_FAILED_FRAME
        assert (await witness.call(1, EXISTS, watched(b"/")))[0] == 0


async def test_2_5_a_packet_that_cannot_be_read_ends_its_connection_without_a_reply(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.send(request(-4, o.AUTH, b"\0\0\0\0\0\0"))
        assert await wire.rest() == b""


async def test_11_4_scheme_ip_is_accepted_and_changes_nothing(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.send(auth_packet("ip", b"10.0.0.1"))
        assert await wire.frame() == ACCEPTED
        assert await closed_node(wire, (Acl(31, "ip", "10.0.0.1"),)) == 0
        assert (await wire.call(2, GET_DATA, watched(b"/closed")))[0] == o.NO_AUTH


async def test_11_1_an_identity_counts_for_what_follows_it_only(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.send(auth_packet("digest", b"super:test"))
        await wire.frame()
        await closed_node(wire, (Acl(31, "digest", SUPER_DIGEST),))
    async with await Wire.session(port) as wire:
        await wire.send(
            request(1, SET_DATA, set_data(b"/closed", b"1")),
            auth_packet("digest", b"super:test"),
            request(2, SET_DATA, set_data(b"/closed", b"2")),
        )
        errors = [(await wire.reply())[2] for _ in range(3)]
        assert errors == [o.NO_AUTH, 0, 0]


async def test_11_1_identities_last_for_their_connection_only(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.send(auth_packet("digest", b"super:test"))
        await wire.frame()
        await closed_node(wire, (Acl(31, "digest", SUPER_DIGEST),))
        before = {"session_id": wire.session_id, "password": wire.password}
    async with await Wire.session(port, **before) as wire:
        assert wire.session_id == before["session_id"]
        assert (await wire.call(1, GET_DATA, watched(b"/closed")))[0] == o.NO_AUTH


async def test_22_67_an_auth_flood_ends_its_connection_only(port: int) -> None:
    """Each packet may add an identity, which every later write would carry through the log."""
    async with await Wire.session(port) as wire, await Wire.session(port) as witness:
        await wire.send(
            *[auth_packet("digest", b"user%d:x" % number) for number in range(10 * IDENTITIES_MAX)]
        )
        answer = await wire.rest()
        assert answer.endswith(AUTH_FAILED_FRAME)
        assert len(answer) == 20 * IDENTITIES_MAX
        assert (await witness.call(1, EXISTS, watched(b"/")))[0] == 0


async def test_failures_to_authenticate_are_counted_and_a_flood_of_them_floods_no_log(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    eventlog.configure()
    begun = trio.current_time()
    for _ in range(50):
        async with await Wire.session(port) as wire:
            await wire.send(auth_packet("weird", b"x"))
            await wire.rest()
    periods = 1 + int(1000 * (trio.current_time() - begun)) // PERIOD_MS
    assert 1 <= capsys.readouterr().err.count("failed to authenticate") <= periods * LINES_MAX
    async with await Wire.open(port) as wire:
        await wire.send(b"mntr")
        assert b"zk_auth_failed_count\t50\n" in await wire.rest()


def test_long_names_are_bounded_in_bytes() -> None:
    server = authentication(SecurityConfig())
    long_name = b"x" * IDENTITY_BYTES_MAX
    body = encode_int(0) + encode_text("digest") + encode_buffer(long_name + b":pw")
    with pytest.raises(CredentialError, match="characters"):
        server.read_auth_packet(body, ())


def test_the_same_identity_twice_is_one() -> None:
    server = authentication(SecurityConfig())
    body = encode_int(0) + encode_text("digest") + encode_buffer(b"bob:pw")
    once = server.read_auth_packet(body, (Identity("ip", "127.0.0.1"),))
    assert server.read_auth_packet(body, once) == once


def test_11_4_credentials_without_a_colon_are_digested_whole() -> None:
    server = authentication(SecurityConfig())
    body = encode_int(0) + encode_text("digest") + encode_buffer(b"nocolon")
    assert server.read_auth_packet(body, ())[0].id.startswith("nocolon:")


def test_11_4_the_digest_algorithm_can_be_chosen() -> None:
    server = authentication(SecurityConfig(digest_algorithm="sha256"))
    body = encode_int(0) + encode_text("digest") + encode_buffer(b"a:b")
    assert len(server.read_auth_packet(body, ())[0].id) == 2 + 44


async def test_11_4_without_the_digest_provider_the_scheme_is_unknown(start: Start) -> None:
    port = await start(security=SecurityConfig(digest_enabled=False))
    async with await Wire.session(port) as wire:
        assert await closed_node(wire, (Acl(31, "digest", SUPER_DIGEST),)) == o.INVALID_ACL
        await wire.send(auth_packet("digest", b"super:test"))
        assert await wire.rest() == AUTH_FAILED_FRAME


async def test_11_4_a_client_of_another_ensemble_is_cut_off_without_a_reply(start: Start) -> None:
    config = SecurityConfig(providers=(("1", "ensemble"),), ensemble_names=("mine", "ours"))
    port = await start(security=config)
    async with await Wire.session(port) as wire:
        for name in (b"ours", b"", b"mine"):
            await wire.send(auth_packet("ensemble", name))
            assert await wire.frame() == ACCEPTED
        await wire.send(auth_packet("ensemble", b"theirs"))
        assert await wire.rest() == b""


async def test_22_75_skip_acl_lets_everybody_read_and_write(start: Start) -> None:
    port = await start(security=SecurityConfig(skip_acl=True))
    async with await Wire.session(port) as wire:
        assert await closed_node(wire, (Acl(31, "digest", SUPER_DIGEST),)) == 0
        assert (await wire.call(1, SET_DATA, set_data(b"/closed", b"y")))[0] == 0
        error, body = await wire.call(2, GET_DATA, watched(b"/closed"))
        assert (error, body[:5]) == (0, b"\0\0\0\1y")
        error, body = await wire.call(3, o.GET_ACL, buffer(b"/closed"))
        assert (error, SUPER_DIGEST.encode() in body) == (0, True)
        assert await closed_node(wire, (Acl(31, "weird", "x"),)) == o.INVALID_ACL


# SASL


async def test_11_5_a_login_is_answered_to_the_byte(start: Start) -> None:
    port = await start(security=USERS)
    async with await Wire.session(port) as wire:
        challenge = await log_in(wire, "wire", "wirepw")
        assert challenge.startswith(b'realm="zk-sasl-md5",nonce="')
        assert challenge.endswith(b'",charset=utf-8,algorithm=md5-sess')
        frame = await wire.frame()
        assert frame[:16] == struct.pack(">iqi", 2, 0, 0)
        assert frame[16:].startswith(struct.pack(">i", 40) + b"rspauth=")
        assert await closed_node(wire, (Acl(31, "auth", ""),)) == 0
        _, body = await wire.call(3, o.GET_ACL, buffer(b"/closed"))
        assert body.startswith(encode_acl([Acl(31, "sasl", "wire")]))


async def test_11_5_a_super_user_by_sasl_passes_every_list(start: Start) -> None:
    port = await start(security=USERS)
    async with await Wire.session(port) as wire, await Wire.session(port) as other:
        assert await closed_node(other, (Acl(0, "world", "anyone"),)) == 0
        await log_in(wire, "super", "test")
        await wire.frame()
        assert (await wire.call(3, GET_DATA, watched(b"/closed")))[0] == 0
        await log_in(other, "wire", "wirepw")
        await other.frame()
        assert (await other.call(3, GET_DATA, watched(b"/closed")))[0] == o.NO_AUTH


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (USERS, o.AUTH_FAILED),
        (SecurityConfig(sasl_users=(("wire", "wirepw"),), require_sasl=True), -124),
    ],
)
async def test_11_5_a_wrong_password_is_answered_and_ends_the_connection(
    start: Start, config: SecurityConfig, code: int
) -> None:
    port = await start(security=config)
    async with await Wire.session(port) as wire:
        await log_in(wire, "wire", "guessed")
        assert await wire.rest() == struct.pack(">iiqii", 20, 2, 0, code, -1)


async def test_11_5_allowed_to_fail_the_client_stays_without_a_name(start: Start) -> None:
    port = await start(security=SecurityConfig(sasl_users=(("wire", "wirepw"),), allow_sasl_failed=True))
    async with await Wire.session(port) as wire:
        await log_in(wire, "wire", "guessed")
        assert await wire.frame() == struct.pack(">iqii", 2, 0, 0, -1)
        assert await closed_node(wire, (Acl(31, "auth", ""),)) == o.INVALID_ACL
        await log_in(wire, "wire", "wirepw")
        await wire.frame()
        assert await closed_node(wire, (Acl(31, "auth", ""),)) == 0


async def test_11_5_a_token_after_the_end_is_refused(start: Start) -> None:
    port = await start(security=USERS)
    async with await Wire.session(port) as wire:
        await log_in(wire, "wire", "wirepw")
        await wire.frame()
        await wire.send(sasl(3, b""))
        assert await wire.rest() == struct.pack(">iiqii", 20, 3, 0, o.AUTH_FAILED, -1)


async def test_11_5_a_null_token_ends_the_connection_without_a_reply(start: Start) -> None:
    port = await start(security=USERS)
    async with await Wire.session(port) as wire:
        await wire.send(sasl(1, None))
        assert await wire.rest() == b""


async def test_11_5_a_server_without_users_answers_null_and_goes_on(port: int) -> None:
    async with await Wire.session(port) as wire:
        assert await token_of(wire, 1, b"") is None
        assert (await wire.call(2, EXISTS, watched(b"/")))[0] == 0


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "zk/host@REALM"),
        ({"remove_host": True}, "zk@REALM"),
        ({"remove_realm": True}, "zk/host"),
        ({"remove_host": True, "remove_realm": True}, "zk"),
    ],
)
def test_11_4_host_and_realm_of_a_principal_can_be_dropped(changes: dict[str, bool], name: str) -> None:
    server = authentication(SecurityConfig(super_users=(("1", "zk"),), **changes))  # type: ignore[arg-type]
    expected = [Identity("sasl", name)] + [Identity("super", "")] * (name == "zk")
    assert list(server.sasl_identities("zk/host@REALM")) == expected


# enforcement


ENFORCED = SecurityConfig(
    enforce_enabled=True, enforce_schemes=("digest", "sasl"), sasl_users=(("wire", "wirepw"),)
)


@pytest.mark.parametrize("op", [GET_DATA, CREATE, o.CLOSE_SESSION, PING, 77])
async def test_5_6_any_request_before_authentication_is_refused(start: Start, op: int) -> None:
    port = await start(security=ENFORCED)
    async with await Wire.session(port) as wire:
        await wire.send(request(5, op, watched(b"/")), request(6, EXISTS, watched(b"/")))
        assert await wire.rest() == struct.pack(">iiqi", 16, 5, 0, -124)


Login = Callable[[Wire], Awaitable[object]]


async def by_digest(wire: Wire) -> None:
    await wire.send(auth_packet("digest", b"u:p"))
    await wire.frame()


async def by_sasl(wire: Wire) -> None:
    await log_in(wire, "wire", "wirepw")
    await wire.frame()


@pytest.mark.parametrize("login", [by_digest, by_sasl])
async def test_11_6_any_one_of_the_enforced_schemes_suffices(start: Start, login: Login) -> None:
    port = await start(security=ENFORCED)
    async with await Wire.session(port) as wire:
        await login(wire)
        assert (await wire.call(3, CREATE, create(b"/a")))[0] == 0


async def test_5_6_requests_behind_the_authentication_are_served_though_they_came_with_it(
    start: Start,
) -> None:
    port = await start(security=ENFORCED)
    async with await Wire.open(port) as wire:
        await wire.send(
            connect_request(),
            auth_packet("digest", b"u:p"),
            request(1, CREATE, create(b"/a")),
            request(2, EXISTS, watched(b"/a"))[:9],
        )
        await wire.frame()
        assert (await wire.reply())[0] == -4
        assert (await wire.reply())[::2] == (1, 0)
        await wire.send(request(2, EXISTS, watched(b"/a"))[9:])
        assert (await wire.reply())[::2] == (2, 0)


async def test_5_6_an_accepted_scheme_that_is_not_enforced_does_not_suffice(start: Start) -> None:
    port = await start(security=ENFORCED)
    async with await Wire.session(port) as wire:
        await wire.send(auth_packet("ip", b""), request(5, EXISTS, watched(b"/")))
        assert await wire.rest() == struct.pack(">i", 16) + ACCEPTED + struct.pack(">iiqi", 16, 5, 0, -124)


async def test_four_letter_words_need_no_authentication(start: Start) -> None:
    port = await start(security=ENFORCED)
    async with await Wire.open(port) as wire:
        await wire.send(b"ruok")
        assert await wire.rest() == b"imok"
