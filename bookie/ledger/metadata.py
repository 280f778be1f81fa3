"""The record of a ledger in the metadata store: its quorums, its fragments, its state and its end.

The record is one CBOR map with text keys in canonical order; docs/formats.md has the grammar. Fields that
this version does not know are kept and written back. It is validated when it is read *and* before it is
written (R-M4): nonsense in the store costs a ledger, so it is refused at the door in both directions.

States go OPEN -> IN_RECOVERY -> CLOSED or OPEN -> CLOSED, never back. A fragment is named by its first entry
id; everything below the first id of the last fragment is committed (R-W6). Records are immutable values: the
`with_…` methods make the next record, a compare-and-set makes it true.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, NamedTuple

import cbor2

from bookie.ledger.distribution import Schedule
from bookie.ledger.errors import IncorrectParameterError, MetadataError
from bookie.ledger.extent import ID_MAX, NO_ENTRY_ID, SealKind

FORMAT_VERSION = 1
"""Written into every record; a record of a later version is refused."""

METADATA_BYTES_MAX = 900_000
"""Largest record, below the coordination service's limit for one node."""

ENSEMBLE_SIZE_MAX = 1024


class Member(NamedTuple):
    """One place of an ensemble: a bookie and the incarnation that was chosen (R-I3)."""

    bookie_id: str
    incarnation: int


Ensemble = tuple[Member, ...]


class Fragment(NamedTuple):
    """A run of entries with one fixed ensemble, up to the next fragment's first id."""

    first_entry_id: int
    ensemble: Ensemble


class LedgerState(IntEnum):
    """Where a ledger is in its life; CLOSED is final."""

    OPEN = 1
    IN_RECOVERY = 2
    CLOSED = 3


_FIELDS = (
    "version", "ensemble_size", "write_quorum", "ack_quorum", "stripe_unit", "state", "fragments",
    "last_entry_id", "length", "seal", "password", "created_ms", "custom", "token",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LedgerMetadata:
    """One version of a ledger's record.

    Raises:
        MetadataError: at construction, where the fields contradict each other (R-M4).
    """

    schedule: Schedule
    state: LedgerState
    fragments: tuple[Fragment, ...]
    token: int
    """Random, written at create: tells our create from somebody else's when its answer is lost (R-M5)."""
    last_entry_id: int | None = None
    """Present if and only if CLOSED; NO_ENTRY_ID for an empty ledger."""
    length: int | None = None
    """Payload bytes of the whole ledger; present if and only if CLOSED."""
    seal: SealKind = SealKind.CRC32C
    password: bytes = b""
    created_ms: int | None = None
    custom: Mapping[str, bytes] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """Fields of later versions, preserved."""

    def __post_init__(self) -> None:
        check_quorums(self.schedule, MetadataError)
        if not self.fragments or self.fragments[0].first_entry_id != 0:
            raise MetadataError("fragments do not begin at entry 0")
        previous = NO_ENTRY_ID
        for fragment in self.fragments:
            if not previous < fragment.first_entry_id <= ID_MAX:
                raise MetadataError(f"fragment {fragment.first_entry_id} after {previous}")
            previous = fragment.first_entry_id
            self._check_ensemble(fragment)
        closed = self.state is LedgerState.CLOSED
        if closed != (self.last_entry_id is not None) or closed != (self.length is not None):
            raise MetadataError(
                f"{self.state.name} with last entry {self.last_entry_id}, length {self.length}"
            )
        if (
            self.last_entry_id is not None
            and not max(NO_ENTRY_ID, previous - 1) <= self.last_entry_id <= ID_MAX
        ):
            raise MetadataError(f"closed at {self.last_entry_id} below the last fragment {previous}")
        if self.length is not None and not 0 <= self.length <= ID_MAX:
            raise MetadataError(f"length {self.length} out of range")

    @property
    def last_fragment(self) -> Fragment:
        return self.fragments[-1]

    @property
    def closed(self) -> bool:
        return self.state is LedgerState.CLOSED

    @property
    def lac_floor(self) -> int:
        """The LAC that the record alone proves (1.5): the closed end, or what precedes the last fragment."""
        if self.last_entry_id is not None:
            return self.last_entry_id
        return self.last_fragment.first_entry_id - 1

    def fragment_of(self, entry_id: int) -> tuple[Fragment, int]:
        """The fragment that holds the entry, and its last possible id (ID_MAX for the last fragment)."""
        end = ID_MAX
        for fragment in reversed(self.fragments):
            if fragment.first_entry_id <= entry_id:
                return fragment, end
            end = fragment.first_entry_id - 1
        raise IncorrectParameterError(f"entry id {entry_id} is negative")

    def members(self) -> set[Member]:
        """Everybody named in any fragment."""
        return {member for fragment in self.fragments for member in fragment.ensemble}

    def with_ensemble(self, start: int, ensemble: Ensemble) -> "LedgerMetadata":
        """The record after an ensemble change at `start`: last fragment replaced, or one appended (4.5)."""
        if start < self.last_fragment.first_entry_id:
            raise MetadataError(
                f"ensemble change at {start} below fragment {self.last_fragment.first_entry_id}"
            )
        kept = self.fragments[:-1] if start == self.last_fragment.first_entry_id else self.fragments
        return replace(self, fragments=(*kept, Fragment(start, ensemble)))

    def with_member(self, first_entry_id: int, index: int, member: Member) -> "LedgerMetadata":
        """The record with one place of one fragment taken by another bookie (re-replication, 12.5 step 5)."""
        fragments = list(self.fragments)
        for position, fragment in enumerate(fragments):
            if fragment.first_entry_id == first_entry_id:
                ensemble = list(fragment.ensemble)
                ensemble[index] = member
                fragments[position] = Fragment(first_entry_id, tuple(ensemble))
        return replace(self, fragments=tuple(fragments))

    def in_recovery(self) -> "LedgerMetadata":
        """The record declared in recovery (6.2 step 1)."""
        assert self.state is LedgerState.OPEN
        return replace(self, state=LedgerState.IN_RECOVERY)

    def closed_at(self, last_entry_id: int, length: int) -> "LedgerMetadata":
        """The record closed for good."""
        assert self.state is not LedgerState.CLOSED
        return replace(self, state=LedgerState.CLOSED, last_entry_id=last_entry_id, length=length)

    def encode(self) -> bytes:
        """The canonical CBOR bytes.

        Raises:
            MetadataError: larger than METADATA_BYTES_MAX.
        """
        schedule = self.schedule
        record: dict[str, Any] = dict(self.unknown)
        record.update(
            version=FORMAT_VERSION,
            ensemble_size=schedule.ensemble_size,
            write_quorum=schedule.write_quorum,
            ack_quorum=schedule.ack_quorum,
            stripe_unit=schedule.stripe_unit,
            state=int(self.state),
            fragments=[
                [f.first_entry_id, [[m.bookie_id, m.incarnation] for m in f.ensemble]] for f in self.fragments
            ],
            seal=int(self.seal),
            password=self.password,
            token=self.token,
        )
        if self.last_entry_id is not None:
            record.update(last_entry_id=self.last_entry_id, length=self.length)
        if self.created_ms is not None:
            record["created_ms"] = self.created_ms
        if self.custom:
            record["custom"] = dict(self.custom)
        data: bytes = cbor2.dumps(record, canonical=True)
        if len(data) > METADATA_BYTES_MAX:
            raise MetadataError(f"record of {len(data)} bytes, at most {METADATA_BYTES_MAX} fit")
        return data

    @staticmethod
    def decode(data: bytes) -> "LedgerMetadata":
        """Decode and validate a record.

        Raises:
            MetadataError: not canonical CBOR, a later version, or contradictory; never "no such ledger".
        """
        record = _canonical_map(data)
        version = _integer(record, "version", 1, 2**31)
        if version > FORMAT_VERSION:
            raise MetadataError(f"record of version {version}, this program knows {FORMAT_VERSION}")
        schedule = Schedule(
            _integer(record, "ensemble_size", 1, ENSEMBLE_SIZE_MAX),
            _integer(record, "write_quorum", 1, ENSEMBLE_SIZE_MAX),
            _integer(record, "ack_quorum", 1, ENSEMBLE_SIZE_MAX),
            _integer(record, "stripe_unit", 1, ID_MAX),
        )
        has_end = "last_entry_id" in record
        return LedgerMetadata(
            schedule=schedule,
            state=LedgerState(_integer(record, "state", 1, 3)),
            fragments=_fragments(record.get("fragments")),
            token=_integer(record, "token", 0, 2**64 - 1),
            last_entry_id=_integer(record, "last_entry_id", NO_ENTRY_ID, ID_MAX) if has_end else None,
            length=_integer(record, "length", 0, ID_MAX) if "length" in record else None,
            seal=SealKind(_integer(record, "seal", 1, 2)),
            password=_bytes(record.get("password")),
            created_ms=_integer(record, "created_ms", 0, ID_MAX) if "created_ms" in record else None,
            custom=_custom(record.get("custom", {})),
            unknown={key: value for key, value in record.items() if key not in _FIELDS},
        )

    def _check_ensemble(self, fragment: Fragment) -> None:
        if len(fragment.ensemble) != self.schedule.ensemble_size:
            raise MetadataError(
                f"fragment {fragment.first_entry_id} has {len(fragment.ensemble)} bookies, "
                f"expected {self.schedule.ensemble_size}"
            )
        # By id, not by member: two incarnations of one bookie would be one machine counted twice (R-W8).
        if len({member.bookie_id for member in fragment.ensemble}) != len(fragment.ensemble):
            raise MetadataError(f"fragment {fragment.first_entry_id} names a bookie twice")


def check_quorums(schedule: Schedule, error: type[Exception] = IncorrectParameterError) -> None:
    """Refuse quorums that make no sense (R-M1).

    Raises:
        error: Qw > E, Qa > Qw, Qa < 1, a stripe unit below 1, or an absurd size.
    """
    size, write, ack = schedule.ensemble_size, schedule.write_quorum, schedule.ack_quorum
    if not 1 <= ack <= write <= size <= ENSEMBLE_SIZE_MAX or schedule.stripe_unit < 1:
        raise error(
            f"ensemble {size}, write quorum {write}, ack quorum {ack}, stripe unit {schedule.stripe_unit}: "
            f"expected 1 <= ack quorum <= write quorum <= ensemble <= {ENSEMBLE_SIZE_MAX}, stripe unit >= 1"
        )


def _canonical_map(data: bytes) -> dict[str, Any]:
    if len(data) > METADATA_BYTES_MAX:
        raise MetadataError(f"record of {len(data)} bytes, at most {METADATA_BYTES_MAX} expected")
    try:
        record = cbor2.loads(data)
        # Encoding again finds what a decoder forgives: duplicate keys, indefinite sizes, trailing bytes.
        canonical = cbor2.dumps(record, canonical=True) == data
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise MetadataError(f"record is not CBOR: {error}") from error
    if not isinstance(record, dict) or not canonical or not all(isinstance(key, str) for key in record):
        raise MetadataError(f"record is not a canonical CBOR map with text keys: {data[:40].hex()}…")
    return record


def _integer(record: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise MetadataError(f"{name} is {value!r:.50}, expected an integer from {low} to {high}")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise MetadataError(f"expected bytes, got {type(value).__name__}")
    return value


def _custom(value: object) -> dict[str, bytes]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise MetadataError("custom metadata is not a map with text keys")
    return {key: _bytes(item) for key, item in value.items()}


def _fragments(value: object) -> tuple[Fragment, ...]:
    if not isinstance(value, list):
        raise MetadataError("fragments are not a list")
    fragments = []
    for item in value:
        match item:
            case [int() as first, list() as ensemble]:
                fragments.append(Fragment(first, tuple(map(_member, ensemble))))
            case _:
                raise MetadataError(f"fragment {item!r:.100} is not [first entry id, ensemble]")
    return tuple(fragments)


def _member(value: object) -> Member:
    match value:
        case [str() as bookie_id, int() as incarnation] if 0 <= incarnation < 2**64:
            return Member(bookie_id, incarnation)
        case _:
            raise MetadataError(f"ensemble member {value!r:.100} is not [bookie id, incarnation]")
