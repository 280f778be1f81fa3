"""Who may do what: permission checks and the processing of ACL lists (spec 11).

Validators are our own ASCII code (DESIGN 4): every replica judges a list the same, whatever Python it runs
on.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from coord.protocol.jute import Reader, encode_int, encode_text
from coord.protocol.opcodes import PERM_ADMIN
from coord.protocol.records import Acl, Identity
from coord.tree.distinguished_name import is_distinguished_name

#: Policy word of a stamp: settings that can change an outcome, logged with each batch.
POLICY_SKIP_ACL: Final = 1
#: Clients are known by certificates; without it a list that names one could never be used (spec 11.4).
POLICY_X509: Final = 2
#: The scheme digest is switched off.
POLICY_NO_DIGEST: Final = 4

#: The SASL user for whom every entry of the scheme is meant, as in ZooKeeper's provider.
_SASL_SUPER: Final = "super"
_AUTHENTICATED = frozenset({"digest", "sasl", "x509"})


def is_allowed(acl: Sequence[Acl], want: int, identities: Iterable[Identity]) -> bool:
    """Whether one of the identities has one of the wanted permissions (spec 11.2)."""
    if not acl:
        return True
    mine = tuple(identities)
    if any(identity.scheme == "super" for identity in mine):
        return True
    for perms, scheme, name in acl:
        if perms & want:
            if scheme == "world" and name == "anyone":
                return True
            for identity in mine:
                if identity.scheme == scheme and _matches(scheme, identity.id, name):
                    return True
    return False


def read_acl(reader: Reader) -> list[tuple[int, str | None, str | None]] | None:
    """An ACL vector as it came; None where it is null.

    Raises:
        DecodeError: the bytes are none.
    """
    count = reader.read_count()
    if count is None:
        return None
    return [(reader.read_int(), reader.read_text(), reader.read_text()) for _ in range(count)]


def process_acl(
    entries: list[tuple[int, str | None, str | None]] | None,
    identities: Sequence[Identity],
    policy: int = 0,
) -> tuple[Acl, ...] | None:
    """The list as it is stored, or None where it is invalid (spec 11.3)."""
    if not entries:
        return None
    processed: dict[Acl, None] = {}
    for perms, scheme, name in dict.fromkeys(entries):
        if scheme == "auth":
            mine = [identity for identity in identities if identity.scheme in _AUTHENTICATED]
            if not mine:
                return None
            for identity in mine:
                processed[Acl(perms, identity.scheme, identity.id)] = None
        elif scheme is None or name is None or not _is_valid(scheme, name, policy):
            return None
        else:
            processed[Acl(perms, scheme, name)] = None
    return tuple(processed)


def mask_acl(acl: Sequence[Acl], identities: Sequence[Identity]) -> list[Acl]:
    """The list as getACL shows it: digests are hidden from whoever lacks ADMIN (spec 6.8)."""
    if is_allowed(acl, PERM_ADMIN, identities):
        return list(acl)
    return [
        Acl(perms, scheme, name.partition(":")[0] + ":x") if scheme == "digest" else Acl(perms, scheme, name)
        for perms, scheme, name in acl
    ]


def encode_who_am_i(identities: Sequence[Identity]) -> bytes:
    """The reply to whoAmI (spec 6.13): schemes, and names as users know them."""
    parts = [encode_int(len(identities))]
    for scheme, name in identities:
        user = name.partition(":")[0] if scheme == "digest" else name
        parts += (encode_text(scheme), encode_text(user))
    return b"".join(parts)


def _is_valid(scheme: str, name: str, policy: int) -> bool:
    if scheme == "world":
        return name == "anyone"
    if scheme == "digest":
        rest = name.partition(":")[2]
        return bool(rest) and ":" not in rest and not policy & POLICY_NO_DIGEST
    if scheme == "ip":
        return _parse_network(name) is not None
    if scheme == "x509":
        return bool(policy & POLICY_X509) and is_distinguished_name(name)
    return scheme == "sasl" and _is_principal(name)


def _is_principal(name: str) -> bool:
    """`name[/host][@REALM]`: without an @ anything goes; with one it is the only one, with one slash at most
    before it and none behind it.
    """
    local, at, realm = name.partition("@")
    return not at or ("@" not in realm and "/" not in realm and local.count("/") <= 1)


def _matches(scheme: str, mine: str, entry: str) -> bool:
    if scheme != "ip":
        return mine == entry or (scheme == "sasl" and mine == _SASL_SUPER)
    network = _parse_network(entry)
    address = _parse_address(mine)
    if network is None or address is None or network[2] != address[1]:
        return False
    value, bits, width = network
    return (value ^ address[0]) >> (width - bits) == 0


def _parse_network(text: str) -> tuple[int, int, int] | None:
    """(address, prefix bits, width) of `a.b.c.d[/bits]` or its IPv6 form."""
    address_text, slash, bits_text = text.partition("/")
    address = _parse_address(address_text)
    if address is None:
        return None
    value, width = address
    if not slash:
        return value, width, width
    bits = _parse_decimal(bits_text, width)
    return None if bits is None else (value, bits, width)


def _parse_address(text: str) -> tuple[int, int] | None:
    """(value, width in bits) of an IPv4 or IPv6 address in text."""
    if ":" not in text:
        value = _parse_ipv4(text)
        return None if value is None else (value, 32)
    head, double, tail = text.partition("::")
    if "::" in tail:
        return None
    left, right = _parse_groups(head), _parse_groups(tail)
    if left is None or right is None:
        return None
    missing = 8 - len(left) - len(right)
    if (missing < 1) if double else (missing != 0):
        return None
    value = 0
    for group in [*left, *([0] * missing if double else []), *right]:
        value = value << 16 | group
    return value, 128


def _parse_groups(text: str) -> list[int] | None:
    groups: list[int] = []
    for part in text.split(":") if text else []:
        if not 1 <= len(part) <= 4 or any(digit not in "0123456789abcdefABCDEF" for digit in part):
            return None
        groups.append(int(part, 16))
    return groups


def _parse_ipv4(text: str) -> int | None:
    parts = text.split(".")
    if len(parts) != 4:
        return None
    value = 0
    for part in parts:
        number = _parse_decimal(part, 255)
        if number is None:
            return None
        value = value << 8 | number
    return value


def _parse_decimal(text: str, largest: int) -> int | None:
    if not 1 <= len(text) <= 3 or any(digit not in "0123456789" for digit in text):
        return None
    number = int(text)
    return number if number <= largest else None
