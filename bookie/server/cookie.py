"""Who a data directory belongs to: the cookie, and whether a bookie may serve from a directory at all (10.1,
R-I1).

A bookie that starts with the wrong directory, or an empty one, would deny entries that it acknowledged. So
its identity stands in two places that must agree: a file in the directory, and a node in the coordination
service.

    directory                service             verdict
    empty                    no cookie           a new bookie: new incarnation (R-I2), both are written
    empty                    cookie              refused: the directory was lost, or the id is another's
    data without cookie      any                 refused: not a bookie's directory, or damaged
    cookie, being created    none, or the same   a new bookie whose first start was interrupted
    cookie                   no cookie           refused: decommissioned, or another cluster (#2308)
    cookie                   the same            start
    cookie                   another one         refused

The file says "creating" until the node is written; only a bookie that has never served has such a file, so
what is in its directory may be thrown away. The incarnation is also in the tag of every segment and in the
index.
"""

from dataclasses import dataclass
from typing import Final

import cbor2

COOKIE_VERSION: Final = 1
COOKIE_BYTES_MAX: Final = 4096
_FILE_WORDS: Final = 4


class IdentityError(Exception):
    """This directory must not be served from as this bookie; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Cookie:
    """The identity of one bookie's data."""

    bookie_id: str
    incarnation: int
    instance_id: str

    def encode(self) -> bytes:
        fields = {
            "version": COOKIE_VERSION,
            "bookie_id": self.bookie_id,
            "incarnation": self.incarnation,
            "instance_id": self.instance_id,
        }
        return cbor2.dumps(fields, canonical=True)

    @staticmethod
    def decode(data: bytes) -> "Cookie":
        """Decode the node's data.

        Raises:
            IdentityError: it is not a cookie of this version.
        """
        try:
            record = cbor2.loads(data[:COOKIE_BYTES_MAX])
        except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
            raise IdentityError(f"the cookie in the coordination service is not CBOR: {error}") from error
        if not isinstance(record, dict) or record.get("version") != COOKIE_VERSION:
            raise IdentityError(f"expected a cookie of version {COOKIE_VERSION}, got {record!r:.200}")
        bookie_id, incarnation, instance_id = (
            record.get(k) for k in ("bookie_id", "incarnation", "instance_id")
        )
        if not isinstance(bookie_id, str) or not isinstance(instance_id, str):
            raise IdentityError(f"the cookie in the coordination service lacks its ids: {record!r:.200}")
        if type(incarnation) is not int or not 0 < incarnation < 1 << 64:
            raise IdentityError(
                f"the cookie in the coordination service lacks its incarnation: {record!r:.200}"
            )
        return Cookie(bookie_id, incarnation, instance_id)


@dataclass(frozen=True, slots=True)
class DirectoryCookie:
    """What the directory says; `creating` until the coordination service has the cookie too."""

    cookie: Cookie
    creating: bool

    def words(self) -> tuple[str, ...]:
        state = "creating" if self.creating else "ready"
        return state, self.cookie.bookie_id, f"{self.cookie.incarnation:016x}", self.cookie.instance_id

    @staticmethod
    def from_words(words: tuple[str, ...]) -> "DirectoryCookie":
        """The file's content.

        Raises:
            IdentityError: these are not the words of a cookie.
        """
        if len(words) != _FILE_WORDS or words[0] not in ("creating", "ready"):
            raise IdentityError(f"the directory's cookie is not one: {' '.join(words)!r:.200}")
        try:
            incarnation = int(words[2], 16)
        except ValueError as error:
            raise IdentityError(f"the directory's cookie has no incarnation: {words[2]!r:.50}") from error
        return DirectoryCookie(Cookie(words[1], incarnation, words[3]), words[0] == "creating")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The identity to start with; `fresh` when the directory has never been served from."""

    cookie: Cookie
    fresh: bool


def judge(
    directory: DirectoryCookie | None,
    *,
    has_data: bool,
    stored: Cookie | None,
    proposed: Cookie,
    configured_id: str | None,
) -> Verdict:
    """Decide by the table above.

    Args:
        directory: the directory's cookie.
        has_data: there is anything else in the directory.
        stored: the service's cookie for the id in question (`proposed.bookie_id`, or the directory's).
        proposed: the identity of a new bookie: the id wanted, a new incarnation, the cluster's instance id.
        configured_id: the id an operator asked for, if any.

    Raises:
        IdentityError: no service from this directory.
    """
    if directory is None:
        if has_data:
            raise IdentityError(
                "the directory holds data but no cookie: it is not a bookie's, or was damaged"
            )
        if stored is not None:
            raise IdentityError(
                f"bookie {stored.bookie_id} exists with incarnation {stored.incarnation:016x}, but this"
                " directory is empty: give the right one, or delete the cookie once lost copies are replaced"
            )
        return Verdict(proposed, fresh=True)
    mine = directory.cookie
    if mine.instance_id != proposed.instance_id:
        raise IdentityError(
            f"the directory belongs to cluster {mine.instance_id}, but the coordination service is"
            f" {proposed.instance_id}: it is the wrong one, or was formatted again"
        )
    if configured_id is not None and configured_id != mine.bookie_id:
        raise IdentityError(f"the directory belongs to bookie {mine.bookie_id}, not to {configured_id}")
    if stored is None and not directory.creating:
        raise IdentityError(
            f"the coordination service has no cookie for bookie {mine.bookie_id}: it was decommissioned, or"
            " this is another cluster"
        )
    if stored is not None and stored != mine:
        raise IdentityError(
            f"the coordination service knows bookie {mine.bookie_id} as incarnation"
            f" {stored.incarnation:016x}, the directory is of incarnation {mine.incarnation:016x}"
        )
    return Verdict(mine, fresh=directory.creating)
