"""SASL DIGEST-MD5 (RFC 2831, specification 11.5): both sides back to back, and what each refuses."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.protocol.digest_md5 import (
    TOKEN_BYTES_MAX,
    DigestMd5Client,
    DigestMd5Server,
    SaslError,
    parse_directives,
)

USERS = {"super": "test", "alice": 'a "quoted" \\ secret', "zoë": "pässword", "日本": "秘密"}


def serve(nonce: str = "the+nonce/") -> DigestMd5Server:
    return DigestMd5Server(USERS.get, nonce)


def md5(data: bytes) -> bytes:
    return hashlib.md5(data).digest()


def respond(user: bytes, secret: bytes, *, authzid: bytes | None = None, **changed: str) -> bytes:
    """A response by the text of RFC 2831, independent of the code under test."""
    values = {"nonce": "the+nonce/", "cnonce": "c", "nc": "00000001", "digest-uri": "zookeeper/zk-sasl-md5"}
    values |= changed
    nonce, cnonce, count = (values[name].encode() for name in ("nonce", "cnonce", "nc"))
    a1 = md5(secret) + b":" + nonce + b":" + cnonce + (b"" if authzid is None else b":" + authzid)
    a2 = b"AUTHENTICATE:" + values["digest-uri"].encode()
    proof = md5(
        b":".join((md5(a1).hex().encode(), nonce, count, cnonce, b"auth", md5(a2).hex().encode()))
    ).hex()
    text = f'nonce="{values["nonce"]}",cnonce="{values["cnonce"]}",nc={values["nc"]},qop=auth,'
    text += f'digest-uri="{values["digest-uri"]}",response={proof},realm="zk-sasl-md5",'
    if authzid is not None:
        text += f'authzid="{authzid.decode()}",'
    return text.encode() + b'username="' + user + b'"'


@pytest.mark.parametrize("user", USERS)
def test_a_user_with_the_password_logs_in_and_both_sides_are_proved(user: str) -> None:
    server, client = serve(), DigestMd5Client(user, USERS[user], "cnonce")
    response = client.step(server.step(client.begin()))
    assert response is not None
    assert client.step(server.step(response)) is None
    assert client.is_complete
    assert server.user == user


def test_the_challenge_is_zookeepers_to_the_byte() -> None:
    """Specification 11.5: no qop directive."""
    expected = b'realm="zk-sasl-md5",nonce="the+nonce/",charset=utf-8,algorithm=md5-sess'
    assert serve().step(b"") == expected


def test_the_final_token_is_rspauth_alone() -> None:
    server = serve()
    server.step(b"")
    final = server.step(respond(b"super", b"super:zk-sasl-md5:test"))
    assert final.startswith(b"rspauth=")
    assert len(final) == len(b"rspauth=") + 32


def test_an_identity_asked_for_is_part_of_the_proof_and_changes_nothing() -> None:
    """Java's client always sends one (authzid)."""
    server = serve()
    server.step(b"")
    server.step(respond(b"super", b"super:zk-sasl-md5:test", authzid=b"super"))
    assert server.user == "super"


@pytest.mark.parametrize(
    "secret", [b"zo\xeb:zk-sasl-md5:p\xe4ssword", "zoë:zk-sasl-md5:pässword".encode()], ids=["java", "kazoo"]
)
def test_names_beyond_ascii_are_hashed_in_either_encoding_that_clients_use(secret: bytes) -> None:
    server = serve()
    server.step(b"")
    server.step(respond("zoë".encode(), secret))
    assert server.user == "zoë"


@pytest.mark.parametrize(
    "token",
    [
        respond(b"super", b"super:zk-sasl-md5:wrong"),
        respond(b"nobody", b"nobody:zk-sasl-md5:"),
        respond(b"super", b"super:zk-sasl-md5:test", nonce="another"),
        respond(b"super", b"super:zk-sasl-md5:test", nc="00000002"),
        respond(b"super", b"super:zk-sasl-md5:test", **{"digest-uri": "zookeeper/elsewhere"}),
        respond(b"super", b"super:zk-sasl-md5:test").replace(b"qop=auth", b"qop=auth-conf"),
        respond(b"super", b"super:zk-sasl-md5:test").replace(b'realm="zk-sasl-md5",', b""),
        respond(b"super", b"super:zk-sasl-md5:test") + b',username="super"',
        respond(b"super", b"super:zk-sasl-md5:test") + b",charset=koi8-r",
        b"",
        b"=",
        b'username="super',
        b"\xff" * 100,
        b"a=b," * TOKEN_BYTES_MAX,
    ],
)
def test_whatever_does_not_prove_the_password_is_refused(token: bytes) -> None:
    server = serve()
    server.step(b"")
    with pytest.raises(SaslError):
        server.step(token)
    assert server.user is None


def test_a_first_token_with_bytes_is_answered_with_the_challenge_as_well() -> None:
    assert serve().step(b"hello") == serve().step(b"")


def test_a_token_after_the_end_is_refused() -> None:
    server = serve()
    server.step(b"")
    server.step(respond(b"super", b"super:zk-sasl-md5:test"))
    with pytest.raises(SaslError):
        server.step(b"")


@pytest.mark.parametrize(
    "challenge",
    [
        b'realm="r",nonce="n",charset=utf-8',
        b'realm="r",algorithm=md5-sess',
        b'realm="r",nonce="n",algorithm=md5-sess,qop="auth-int,auth-conf"',
        b"not a challenge",
    ],
)
def test_a_client_refuses_what_is_no_challenge(challenge: bytes) -> None:
    with pytest.raises(SaslError):
        DigestMd5Client("super", "test", "cnonce").step(challenge)


def test_a_client_takes_auth_from_a_list_of_offers() -> None:
    challenge = b'realm="r",nonce="n",algorithm=md5-sess,qop="auth-int, auth"'
    assert DigestMd5Client("super", "test", "cnonce").step(challenge)


@pytest.mark.parametrize("token", [b"rspauth=00000000000000000000000000000000", b"", b"rspauth="])
def test_a_client_refuses_a_server_that_does_not_know_the_password(token: bytes) -> None:
    client = DigestMd5Client("super", "test", "cnonce")
    client.step(serve().step(client.begin()))
    with pytest.raises(SaslError):
        client.step(token)
    assert not client.is_complete


def test_quoted_values_may_hold_commas_and_escapes() -> None:
    token = b'a="x, \\"y\\" \\\\" , B=c,,d = e'
    assert parse_directives(token) == {"a": b'x, "y" \\', "b": b"c", "d": b"e"}


@given(st.binary(max_size=200))
def test_any_bytes_are_directives_or_a_sasl_error(token: bytes) -> None:
    try:
        parse_directives(token)
    except SaslError:
        pass


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_any_name_and_password_work_between_the_two_sides(user: str, password: str) -> None:
    server = DigestMd5Server({user: password}.get, "n")
    client = DigestMd5Client(user, password, "c")
    response = client.step(server.step(client.begin()))
    assert response is not None
    assert client.step(server.step(response)) is None
    assert server.user == user
