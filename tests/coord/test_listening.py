"""A listener that cannot be: which setting is to blame, at which address, and what to do."""

import errno
import os
import socket

import pytest

from coord.listening import ListenError, named_listener


@pytest.mark.parametrize(
    ("number", "host", "text"),
    [
        (errno.EADDRINUSE, "10.0.0.1", "aPort: cannot listen at 10.0.0.1:2181: Address already in use: stop"),
        (errno.EADDRNOTAVAIL, "10.0.0.1", "anAddress: cannot listen at 10.0.0.1:2181: Cannot assign"),
        (errno.EACCES, "", "aPort: cannot listen at *:2181: Permission denied: choose a port from 1024 on"),
        (errno.EADDRINUSE, "::1", "aPort: cannot listen at [::1]:2181: Address already"),
        (errno.EIO, "a", "aPort: cannot listen at a:2181: Input/output error: choose another"),
    ],
)
def test_setting_address_reason_and_advice(number: int, host: str, text: str) -> None:
    with pytest.raises(ListenError) as caught, named_listener("aPort", "anAddress", host, 2181):
        raise OSError(number, f"{os.strerror(number)} (while attempting to bind on address …)")
    assert caught.value.errno == number
    assert str(caught.value).startswith(text)
    assert "attempting" not in str(caught.value)
    assert caught.value.strerror == str(caught.value) == f"{caught.value.what}: {caught.value.advice}"


def test_a_name_that_nobody_knows_is_the_addresss_fault() -> None:
    with (
        pytest.raises(
            ListenError, match=r"^anAddress: cannot listen at nowhere:1: Name or service"
        ) as caught,
        named_listener("aPort", "anAddress", "nowhere", 1),
    ):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert "correct the name" in caught.value.advice


def test_an_error_without_a_number_keeps_its_text() -> None:
    with (
        pytest.raises(ListenError, match="cannot listen at a:1: some text: "),
        named_listener("p", "a", "a", 1),
    ):
        raise OSError("some text")
