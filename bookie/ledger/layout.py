"""Where ledgers keep what in the coordination service (2.2), and the record of a registered bookie.

/ledgers                            root
/ledgers/INSTANCEID                 random id of this cluster's incarnation, text
/ledgers/LAYOUT                     name and version of this layout, text; another one refuses to start
/ledgers/available/<bookie id>      ephemeral: writable bookies; data: Registration
/ledgers/available/readonly/<id>    ephemeral: read-only bookies; data: Registration
/ledgers/cookies/<bookie id>        persistent cookie (10.1)
/ledgers/idgen                      decimal text: the next ledger id; claimed by compare-and-set
/ledgers/ddd/dddd/dddd/dddd/Ldddd   a ledger's metadata, its id in 19 digits
/ledgers/underreplication           work of auto-recovery
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import cbor2

from bookie.ledger.errors import IncorrectParameterError, MetadataError
from bookie.ledger.extent import ID_MAX

ROOT = "/ledgers"
AVAILABLE = "/ledgers/available"
READONLY = "/ledgers/available/readonly"
COOKIES = "/ledgers/cookies"
INSTANCE_ID = "/ledgers/INSTANCEID"
LAYOUT = "/ledgers/LAYOUT"
ID_GENERATOR = "/ledgers/idgen"
UNDERREPLICATION = "/ledgers/underreplication"

LAYOUT_VALUE = b"zoolog-hierarchical:1"
"""Content of LAYOUT."""

LEVEL_DIGITS = (3, 4, 4, 4, 4)
"""Decimal digits of a ledger id per level; at most 10 000 children each."""

REGISTRATION_BYTES_MAX = 64 * 1024

_BOOKIE_ID = re.compile(r"[A-Za-z0-9._:\-]{1,255}")
_LEVEL_NAMES = tuple(
    re.compile(("L" if level == len(LEVEL_DIGITS) - 1 else "") + rf"[0-9]{{{digits}}}")
    for level, digits in enumerate(LEVEL_DIGITS)
)


def check_bookie_id(bookie_id: str) -> str:
    """The id itself when it is a legal bookie id.

    Raises:
        IncorrectParameterError: characters outside letters, digits and `-_.:`, or a reserved name.
    """
    if not _BOOKIE_ID.fullmatch(bookie_id) or bookie_id in ("readonly", ".", ".."):
        raise IncorrectParameterError(
            f"{bookie_id!r} is no bookie id: letters, digits, '-', '_', '.', ':' only"
        )
    return bookie_id


def available_path(bookie_id: str) -> str:
    return f"{AVAILABLE}/{bookie_id}"


def readonly_path(bookie_id: str) -> str:
    return f"{READONLY}/{bookie_id}"


def cookie_path(bookie_id: str) -> str:
    return f"{COOKIES}/{bookie_id}"


def ledger_path(ledger_id: int) -> str:
    """The node of a ledger's metadata."""
    if not 0 <= ledger_id <= ID_MAX:
        raise IncorrectParameterError(f"{ledger_id} is no ledger id: expected 0 to 2^63-1")
    digits = f"{ledger_id:019d}"
    return f"{ROOT}/{digits[:3]}/{digits[3:7]}/{digits[7:11]}/{digits[11:15]}/L{digits[15:]}"


def parent_paths(ledger_id: int) -> list[str]:
    """The levels above a ledger's node, outermost first, without the root."""
    parts = ledger_path(ledger_id).split("/")
    return ["/".join(parts[:end]) for end in range(3, len(parts))]


def level_children(names: Iterable[str], level: int) -> list[str]:
    """Names of a level that belong to ledgers, in numeric order; available, cookies… are left out."""
    return sorted(name for name in names if _LEVEL_NAMES[level].fullmatch(name))


def ledger_id_of(names: Iterable[str]) -> int:
    """The id spelled by the node names from the root down."""
    return int("".join(names).replace("L", ""))


@dataclass(frozen=True, slots=True)
class Registration:
    """What a bookie publishes about itself: where it listens and which incarnation it is (R-I2)."""

    host: str
    port: int
    incarnation: int
    tls_port: int = 0
    """0: no TLS."""
    properties: dict[str, str] = field(default_factory=dict)
    """Free text such as rack or zone, for placement."""

    def encode(self) -> bytes:
        return cbor2.dumps(
            {
                "host": self.host, "port": self.port, "incarnation": self.incarnation,
                "tls_port": self.tls_port, "properties": self.properties,
            },
            canonical=True,
        )  # fmt: skip

    @staticmethod
    def decode(data: bytes) -> "Registration":
        """Decode a registration; fields of later versions are ignored.

        Raises:
            MetadataError: not a registration.
        """
        try:
            record = cbor2.loads(data[:REGISTRATION_BYTES_MAX])
        except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
            raise MetadataError(f"registration is not CBOR: {error}") from error
        if not isinstance(record, dict):
            raise MetadataError(f"registration is {type(record).__name__}, expected a map")
        host, port, incarnation = record.get("host"), record.get("port"), record.get("incarnation")
        tls_port, properties = record.get("tls_port", 0), record.get("properties", {})
        if not isinstance(host, str) or not host or not isinstance(properties, dict):
            raise MetadataError(f"registration without a host: {record!r:.200}")
        for number, limit in ((port, 65535), (tls_port, 65535), (incarnation, 2**64 - 1)):
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= limit:
                raise MetadataError(f"registration of {host!r:.200}: {number!r:.50} out of range")
        texts = {str(key): str(value) for key, value in properties.items()}
        return Registration(host, port, incarnation, tls_port, texts)  # type: ignore[arg-type]  # checked above
