"""The family of ledger errors: whose fault, and whether the operation happened.

`happened` is False where nothing changed, None where the outcome is unknown (an add that failed after it was
sent may still become part of the ledger: re-read after recovery to know), True never: success is no error.
`CODE_ERRORS` is the one table from a bookie's wire code (15.1) to the class a caller sees.
"""

from typing import ClassVar

from bookie.ledger.wire import Code


class LedgerError(Exception):
    """Base of everything that `bookie` raises about ledgers."""

    happened: ClassVar[bool | None] = False


class IncorrectParameterError(LedgerError, ValueError):
    """The caller's mistake: quorums, ids, sizes or options out of range. Nothing was sent."""


class NoSuchLedgerError(LedgerError):
    """The metadata store has no such ledger, or every replica denies it."""


class NoSuchEntryError(LedgerError):
    """Every replica denies the entry (R-R1): for an entry up to the LAC this means loss of data."""


class LedgerExistsError(LedgerError):
    """The ledger id chosen by the caller is taken by another ledger."""


class LedgerFencedError(LedgerError):
    """Somebody recovers this ledger: its writer is deposed. What was not acknowledged may still be kept."""

    happened = None


class LedgerClosedError(LedgerError):
    """The handle or the ledger is closed; what was not acknowledged may be part of it if others closed it."""

    happened = None


class NotEnoughBookiesError(LedgerError):
    """Fewer live bookies than an ensemble or an ack quorum needs. Pending adds have an unknown outcome."""

    happened = None


class UnauthorizedError(LedgerError):
    """Wrong password or master key."""


class ProtocolVersionError(LedgerError):
    """The bookie does not speak this version of the protocol."""


class DigestMismatchError(LedgerError):
    """Every copy that could be had fails its digest, or the ledger's digest kind is not the expected one."""


class BookieUnavailableError(LedgerError):
    """A bookie cannot be reached, is another incarnation, or asks to be replaced."""

    happened = None


class BookieTimeoutError(LedgerError):
    """No answer in time. Adds have unknown outcome."""

    happened = None


class BookieReadOnlyError(LedgerError):
    """The bookie takes no normal adds."""


class TooManyRequestsError(LedgerError):
    """The bookie is overloaded; the request had no effect."""


class DataUnknownError(LedgerError):
    """The bookie may have lost this ledger's data and neither affirms nor denies (limbo)."""


class ReadError(LedgerError):
    """A read failed: storage error, a damaged answer, or entries beyond the LAC."""


class LedgerRecoveryError(LedgerError):
    """Recovery found no coverage; the ledger stays in recovery, trying again later is safe."""


class MetadataError(LedgerError):
    """A ledger's metadata is invalid; the ledger must not be treated as deleted."""


class MetadataConflictError(LedgerError):
    """The metadata was changed by somebody else in a way this handle cannot accept."""

    happened = None


class MetadataStoreError(LedgerError):
    """The coordination service did not do the operation; its own error is the cause."""

    happened = None


class ClientClosedError(LedgerError):
    """The client was closed. Pending adds have unknown outcome."""

    happened = None


UNREACHABLE = -8
"""Local outcome code: connection refused or lost, or another incarnation there."""

TIMEOUT = -23
"""Local outcome code: no answer in time."""

DIGEST_MISMATCH = -5
"""Local outcome code: the answer failed its digests."""

BAD_ANSWER = -1
"""Local outcome code: the answer is not one to this question."""

CODE_ERRORS: dict[int, type[LedgerError]] = {
    Code.NO_LEDGER: NoSuchLedgerError,
    Code.NO_ENTRY: NoSuchEntryError,
    Code.BAD_REQUEST: IncorrectParameterError,
    Code.IO_ERROR: ReadError,
    Code.UNAUTHORIZED: UnauthorizedError,
    Code.BAD_VERSION: ProtocolVersionError,
    Code.FENCED: LedgerFencedError,
    Code.READ_ONLY: BookieReadOnlyError,
    Code.TOO_MANY_REQUESTS: TooManyRequestsError,
    Code.UNKNOWN_LEDGER_STATE: DataUnknownError,
    Code.WRONG_BOOKIE: BookieUnavailableError,
    Code.REPLACE_ME: BookieUnavailableError,
    UNREACHABLE: BookieUnavailableError,
    TIMEOUT: BookieTimeoutError,
    DIGEST_MISMATCH: DigestMismatchError,
    BAD_ANSWER: ReadError,
}


def error_of(code: int, text: str) -> LedgerError:
    """The error for a wire or local outcome code; an unknown code is a ReadError that names it."""
    kind = CODE_ERRORS.get(code)
    if kind is None:
        return ReadError(f"{text} (unknown code {code})")
    return kind(text)


def code_name(code: int) -> str:
    """A readable name for messages."""
    local = {
        UNREACHABLE: "unreachable", TIMEOUT: "no answer in time", DIGEST_MISMATCH: "digest differs",
        BAD_ANSWER: "wrong answer",
    }  # fmt: skip
    if code in local:
        return local[code]
    try:
        return Code(code).name.lower().replace("_", " ")
    except ValueError:
        return f"code {code}"
