"""The table of errors: one class for each code, and what each says of a retry (spec 7)."""

import pytest

from coord import errors
from coord.errors import ERROR_OF_CODE, CoordError, error_of

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, CoordError)
]


def test_each_code_has_one_class_and_each_class_its_code() -> None:
    assert all(found.code == code for code, found in ERROR_OF_CODE.items())
    assert len(set(ERROR_OF_CODE.values())) == len(ERROR_OF_CODE)


#: The codes that a server sends (spec 7).
SENT = [
    -2, -5, -6, -8, -13, -14, -101, -102, -103, -108, -110, -111, -112, -114, -115, -118, -119, -120, -121,
    -123, -124, -125, -127,
]  # fmt: skip


@pytest.mark.parametrize("code", SENT)
def test_every_code_that_a_server_sends_is_known_and_certain(code: int) -> None:
    error = error_of(code, path="/x", index=3)
    assert type(error) is not CoordError
    assert (error.path, error.index, error.happened) == ("/x", 3, False)
    assert "/x" in str(error)


def test_an_unknown_code_is_named() -> None:
    assert "error code -4711: /x" in str(error_of(-4711, path="/x"))


def test_what_nobody_can_know_and_what_may_pass_by_itself() -> None:
    assert {found.__name__ for found in CLASSES if found.happened is None} == {
        "ConnectionLossError",
        "ProtocolError",
    }
    assert {found.__name__ for found in CLASSES if found.transient} == {
        "ConnectionLossError",
        "NewConfigNoQuorumError",
        "NotConnectedError",
        "NotReadOnlyError",
        "ReconfigInProgressError",
        "ThrottledOpError",
    }
