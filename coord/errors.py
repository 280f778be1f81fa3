"""What a coordination client raises: one class per error code, saying whose fault it was and whether it
happened.

`happened` tells the caller what a retry would risk: False, the operation changed nothing; None, unknown,
because the connection was lost after the request had left.
"""

from typing import ClassVar


class CoordError(Exception):
    """Any failure of a coordination request.

    Attributes:
        code: ZooKeeper's error code.
        happened: False if the operation certainly had no effect, None if nobody can know.
        transient: whether the same request may succeed later without anybody mending anything; where
            `happened` is None it must be one that does no harm twice.
        path: the path concerned, where there is one.
        index: within a transaction, the number of the operation that failed.
    """

    code: ClassVar[int] = -1
    happened: bool | None = False
    transient: ClassVar[bool] = False

    def __init__(self, text: str = "", *, path: str | None = None, index: int | None = None) -> None:
        super().__init__(text or (f"{self._meaning()}: {path}" if path is not None else self._meaning()))
        self.path = path
        self.index = index

    @classmethod
    def _meaning(cls) -> str:
        return (cls.__doc__ or cls.__name__).split(".")[0].strip()


class ConnectionLossError(CoordError):
    """Connection lost before the answer came."""

    code = -4
    transient = True
    happened = None


class NotConnectedError(CoordError):
    """No server could be reached, the request was not sent."""

    code = -4
    transient = True


class SessionExpiredError(CoordError):
    """The session is over; its ephemerals are gone."""

    code = -112


class ProtocolError(CoordError):
    """What the server sent is not ZooKeeper's protocol."""

    happened = None


class MarshallingError(CoordError):
    """The server could not decode the request."""

    code = -5


class UnimplementedError(CoordError):
    """The server does not know the operation."""

    code = -6


class BadArgumentsError(CoordError):
    """Malformed path or argument."""

    code = -8


class NewConfigNoQuorumError(CoordError):
    """Too few servers of the new configuration are connected and in sync."""

    code = -13
    transient = True


class ReconfigInProgressError(CoordError):
    """Another reconfiguration is in progress."""

    code = -14
    transient = True


class NoNodeError(CoordError):
    """No such node."""

    code = -101


class NoAuthError(CoordError):
    """Not authorised."""

    code = -102


class BadVersionError(CoordError):
    """The version is another one."""

    code = -103


class NoChildrenForEphemeralsError(CoordError):
    """Ephemeral nodes cannot have children."""

    code = -108


class NodeExistsError(CoordError):
    """The node exists already."""

    code = -110


class NotEmptyError(CoordError):
    """The node has children."""

    code = -111


class InvalidAclError(CoordError):
    """The access control list is empty or names an unknown scheme or id."""

    code = -114


class AuthFailedError(CoordError):
    """The server rejected the credentials."""

    code = -115


class SessionMovedError(CoordError):
    """The session has moved to another connection."""

    code = -118


class NotReadOnlyError(CoordError):
    """The server is read-only."""

    code = -119
    transient = True


class EphemeralOnLocalSessionError(CoordError):
    """A local session cannot own ephemeral nodes."""

    code = -120


class NoWatcherError(CoordError):
    """There is no such watch."""

    code = -121


class ReconfigDisabledError(CoordError):
    """Reconfiguration is disabled."""

    code = -123


class AuthRequiredError(CoordError):
    """The server requires authentication."""

    code = -124


class QuotaExceededError(CoordError):
    """A quota would be exceeded."""

    code = -125


class ThrottledOpError(CoordError):
    """The server was too busy and did not execute the operation."""

    code = -127
    transient = True


class RolledBackError(CoordError):
    """Another operation of the transaction failed."""

    code = 0


class NotTriedError(CoordError):
    """An earlier operation of the transaction failed."""

    code = -2


_ERRORS: tuple[type[CoordError], ...] = (
    MarshallingError,
    UnimplementedError,
    BadArgumentsError,
    NewConfigNoQuorumError,
    ReconfigInProgressError,
    NoNodeError,
    NoAuthError,
    BadVersionError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NotEmptyError,
    SessionExpiredError,
    InvalidAclError,
    AuthFailedError,
    SessionMovedError,
    NotReadOnlyError,
    EphemeralOnLocalSessionError,
    NoWatcherError,
    ReconfigDisabledError,
    AuthRequiredError,
    QuotaExceededError,
    ThrottledOpError,
    NotTriedError,
)

#: Wire code → class: the one table.
ERROR_OF_CODE: dict[int, type[CoordError]] = {error.code: error for error in _ERRORS}


def error_of(code: int, *, path: str | None = None, index: int | None = None) -> CoordError:
    """The exception for a wire code; unknown codes make a plain CoordError that names them."""
    error = ERROR_OF_CODE.get(code)
    if error is None:
        where = "" if path is None else f": {path}"
        return CoordError(f"the server answered with error code {code}{where}", path=path, index=index)
    return error(path=path, index=index)
