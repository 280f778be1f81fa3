"""Access control lists as people write them, and the ids of their schemes (spec 11).

acl = [coord.digest_acl("bob", "secret", "cdrwa"), coord.acl("world", "anyone", "r")]
await zk.set_acl("/app", acl)
"""

import base64
import hashlib
from collections.abc import Sequence

from coord.protocol.opcodes import PERM_ADMIN, PERM_ALL, PERM_CREATE, PERM_DELETE, PERM_READ, PERM_WRITE
from coord.protocol.records import OPEN_ACL, Acl

#: The letters of permissions, in the order in which zkCli prints them.
LETTERS = (
    ("c", PERM_CREATE),
    ("d", PERM_DELETE),
    ("r", PERM_READ),
    ("w", PERM_WRITE),
    ("a", PERM_ADMIN),
)

READ_ACL = (Acl(PERM_READ, "world", "anyone"),)
#: Everything for whoever created the node, by all ids it has authenticated; nothing for others.
CREATOR_ACL = (Acl(PERM_ALL, "auth", ""),)

__all__ = [
    "CREATOR_ACL",
    "OPEN_ACL",
    "READ_ACL",
    "acl",
    "digest_acl",
    "digest_id",
    "format_acl",
    "format_perms",
    "parse_acl",
    "parse_perms",
]


def acl(scheme: str, id: str, perms: str | int = PERM_ALL) -> Acl:
    """One entry; `perms` as bits or as letters of `cdrwa`."""
    return Acl(parse_perms(perms) if isinstance(perms, str) else perms, scheme, id)


def digest_acl(user: str, password: str, perms: str | int = PERM_ALL) -> Acl:
    """An entry for whoever adds the credentials `user:password` of scheme digest."""
    return acl("digest", digest_id(user, password), perms)


def digest_id(user: str, password: str) -> str:
    """The id of a user of scheme digest: `user:base64(sha1("user:password"))`."""
    digest = hashlib.sha1(f"{user}:{password}".encode()).digest()
    return f"{user}:{base64.b64encode(digest).decode()}"


def parse_perms(text: str) -> int:
    """Permission bits of letters.

    Raises:
        ValueError: a letter that is none of `cdrwa`.
    """
    bits = dict(LETTERS)
    unknown = sorted(set(text) - set(bits))
    if unknown:
        raise ValueError(f"expected permissions out of cdrwa, got {unknown[0]!r} in {text!r}")
    return sum(bits[letter] for letter in set(text))


def format_perms(perms: int) -> str:
    return "".join(letter for letter, bit in LETTERS if perms & bit)


def parse_acl(text: str) -> list[Acl]:
    """A list as zkCli takes it: `scheme:id:perms,scheme:id:perms`; the id may hold colons.

    Raises:
        ValueError: an entry without scheme, id or permissions.
    """
    return [_parse_entry(entry, text) for entry in text.split(",")]


def _parse_entry(entry: str, text: str) -> Acl:
    scheme, first, rest = entry.partition(":")
    id_, last, perms = rest.rpartition(":")
    if not (scheme and first and last):
        raise ValueError(f"expected scheme:id:perms, got {entry!r} in {text!r}")
    return acl(scheme.strip(), id_, perms.strip())


def format_acl(entries: Sequence[Acl]) -> str:
    """What `parse_acl` takes."""
    return ",".join(f"{scheme}:{id_}:{format_perms(perms)}" for perms, scheme, id_ in entries)
