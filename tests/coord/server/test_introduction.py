"""Servers prove to each other that they share the ensemble's secret (DESIGN 4)."""

import pytest

from coord.message import encode_message
from coord.server.introduction import (
    PROTOCOL_VERSION,
    PURPOSE_MESSAGES,
    Hello,
    IntroductionError,
    check_hello,
    check_proof,
    dialler_proof,
    listener_proof,
)

MEMBERS = frozenset({1, 2, 3})
GOOD = {
    "version": PROTOCOL_VERSION,
    "ensemble": "e",
    "sid": 3,
    "target_sid": 1,
    "purpose": PURPOSE_MESSAGES,
    "nonce": bytes(32),
}


def hello(**changes: object) -> Hello:
    return Hello(**(GOOD | changes))  # type: ignore[arg-type]


def test_a_member_that_looks_for_us_may_prove_itself() -> None:
    check_hello(hello(), "e", 1, MEMBERS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 99),
        ("ensemble", "other"),
        ("sid", 4),
        ("sid", 1),
        ("target_sid", 2),
        ("purpose", "chat"),
        ("nonce", b"short"),
    ],
)
def test_a_stranger_is_refused_before_any_proof(field: str, value: object) -> None:
    with pytest.raises(IntroductionError):
        check_hello(hello(**{field: value}), "e", 1, MEMBERS)


def test_a_proof_needs_the_secret() -> None:
    said = encode_message(hello())
    check_proof(listener_proof(b"secret", said, b"n"), listener_proof(b"secret", said, b"n"))
    with pytest.raises(IntroductionError):
        check_proof(listener_proof(b"secret", said, b"n"), listener_proof(b"guess", said, b"n"))


def test_a_proof_cannot_be_reflected_replayed_or_passed_on() -> None:
    said = encode_message(hello())
    proof = listener_proof(b"secret", said, b"n")
    assert proof != dialler_proof(b"secret", said, b"n")
    assert proof != listener_proof(b"secret", said, b"m")
    assert proof != listener_proof(b"secret", encode_message(hello(target_sid=2)), b"n")
