"""What stands in the way of a listener, told so that it can be put right: which setting, which address, why,
and what to do.

    with named_listener("clientPort", "clientPortAddress", host, port):
        reactor.listen(host, port, service)
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_OF_THE_ADDRESS: Final = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
_ADVICE: Final = {
    errno.EADDRINUSE: "stop what listens there, or choose another port",
    errno.EADDRNOTAVAIL: "give an address of this machine, or 0.0.0.0 for all of them",
    errno.EACCES: "choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE",
}
_ADVICE_FOR_NAMES: Final = "correct the name, or give an address"
_ADVICE_ELSE: Final = "choose another address or port"


class ListenError(OSError):
    """A port cannot be listened on.

    Attributes:
        what: setting, address and reason.
        advice: what to do about it.
    """

    def __init__(self, number: int | None, what: str, advice: str) -> None:
        super().__init__(number, f"{what}: {advice}")
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}"


@contextmanager
def named_listener(port_setting: str, address_setting: str, host: str, port: int) -> Iterator[None]:
    """Listens within, at one address.

    Args:
        port_setting: what the operator gave the port with, a key or an option.
        address_setting: the same of the address; it is named where the address is what is wrong.
        host: a name or address; empty for all of the machine's.

    Raises:
        ListenError: an OSError of what listens.
    """
    try:
        yield
    except OSError as error:
        is_name = isinstance(error, socket.gaierror)
        setting = address_setting if is_name or error.errno in _OF_THE_ADDRESS else port_setting
        # Some texts of Python's say the address as well.
        reason = error.strerror if is_name or error.errno is None else os.strerror(error.errno)
        shown = f"[{host}]" if ":" in host else host or "*"
        what = f"{setting}: cannot listen at {shown}:{port}: {reason or error}"
        advice = _ADVICE_FOR_NAMES if is_name else _ADVICE.get(error.errno or 0, _ADVICE_ELSE)
        raise ListenError(error.errno, what, advice) from error
