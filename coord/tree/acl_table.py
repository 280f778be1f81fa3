"""The tree's access control lists: each distinct list once, under a number that nodes keep, counted by its
users.

Number 0 is the list that is open to the world; it is not in the table. Numbers are given in order of
execution and never reused.
"""

import google_crc32c

from coord.protocol.records import OPEN_ACL, Acl, encode_acl

OPEN_ACL_ID = 0


class AclTable:
    """Lists, their numbers and their users.

    Attributes:
        lists: number → (list, users).
        next_number: what the next new list gets.
        released: lists whose last user the current request took away; its watch events still name them.
            Emptied before the next request.
        digest: sum of the parts of all lists.
    """

    def __init__(self) -> None:
        self.lists: dict[int, tuple[tuple[Acl, ...], int]] = {}
        self.next_number = 1
        self.released: dict[int, tuple[Acl, ...]] = {}
        self.digest = 0
        self._numbers: dict[tuple[Acl, ...], int] = {}

    def find(self, number: int) -> tuple[Acl, ...]:
        """The list of a number that a node or an event of the current request has."""
        if number == OPEN_ACL_ID:
            return OPEN_ACL
        entry = self.lists.get(number)
        return self.released[number] if entry is None else entry[0]

    def restore(self, number: int, acl: tuple[Acl, ...]) -> None:
        """Puts a list back, without users yet."""
        if number not in self.lists:
            self._numbers[acl] = number
            self.lists[number] = (acl, 0)
            self.digest += digest_of_acl(number, acl)

    def add_user(self, number: int) -> bool:
        """One user more of a list in the table; False where there is no such list."""
        if number == OPEN_ACL_ID:
            return True
        entry = self.lists.get(number)
        if entry is None:
            return False
        self.lists[number] = (entry[0], entry[1] + 1)
        return True

    def take(self, acl: tuple[Acl, ...]) -> int:
        """The number of a list, with one user more."""
        if acl == OPEN_ACL:
            return OPEN_ACL_ID
        number = self._numbers.get(acl)
        if number is None:
            number = self.next_number
            self.next_number = number + 1
            self.restore(number, acl)
        self.add_user(number)
        return number

    def release(self, number: int) -> None:
        """One user less; the last one takes the list out of the table."""
        if number == OPEN_ACL_ID:
            return
        acl, users = self.lists[number]
        if users > 1:
            self.lists[number] = (acl, users - 1)
            return
        del self.lists[number]
        del self._numbers[acl]
        self.released[number] = acl
        self.digest -= digest_of_acl(number, acl)


def digest_of_acl(number: int, acl: tuple[Acl, ...]) -> int:
    """What a list adds to the tree's digest."""
    text = b"%d " % number + encode_acl(acl)
    head: int = google_crc32c.value(text)
    tail: int = google_crc32c.value(b"acl" + text)
    return (head << 32) | tail
