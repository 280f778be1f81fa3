"""Who belongs to the ensemble, as a second reading of its changes has it (specification 19.2 to 19.4).

It shares no code with `coord.server.reconfiguration` and `coord.server.members`.
"""

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from coord.protocol.jute import encode_buffer, encode_long

OBSERVER, PARTICIPANT = "observer", "participant"
ANY_VERSION = -1

Roles = dict[int, str]


def line_of(sid: int, role: str) -> str:
    return f"server.{sid}=10.0.0.{sid}:2888:3888:{role};2181"


def roles_in(text: str) -> Roles:
    """What the lines of a configuration say."""
    found = {}
    for line in text.replace(",", "\n").split("\n"):
        name, _, value = line.partition("=")
        if name.startswith("server."):
            found[int(name.removeprefix("server."))] = OBSERVER if f":{OBSERVER}" in value else PARTICIPANT
    return found


@dataclass(frozen=True, slots=True)
class Change:
    """What a client asks for: some join and leave, or these are the members from now on."""

    joining: str | None
    leaving: str | None
    members: str | None
    version: int

    @classmethod
    def draw(cls, random: Random, sids: list[int], version: int) -> "Change":
        wanted = random.choice((ANY_VERSION, version, version, version - 1))
        lines = [
            line_of(sid, random.choice((PARTICIPANT, PARTICIPANT, OBSERVER)))
            for sid in random.sample(sids, random.choice((1, 1, 2)))
        ]
        leaving = ",".join(str(sid) for sid in random.sample(sids, random.choice((0, 1, 1, 2))))
        if random.random() < 0.2:
            several = random.sample(sids, random.randint(2, len(sids)))
            return cls(None, None, ",".join(line_of(sid, PARTICIPANT) for sid in several), wanted)
        return cls(",".join(lines) if random.random() < 0.6 else None, leaving or None, None, wanted)

    def encode(self) -> bytes:
        parts = (self.joining, self.leaving, self.members)
        texts = b"".join(encode_buffer(None if part is None else part.encode()) for part in parts)
        return texts + encode_long(self.version)

    def applied_to(self, roles: Roles) -> Roles:
        """Who leaves goes first."""
        if self.members is not None:
            return roles_in(self.members)
        leaving = {int(sid) for sid in (self.leaving or "").split(",") if sid}
        left = {sid: role for sid, role in roles.items() if sid not in leaving}
        return left | roles_in(self.joining or "")


class Configuration(NamedTuple):
    """What a change has led to."""

    zxid: int
    version: int
    roles: Roles
    text: str

    def is_quorum(self, sids: set[int]) -> bool:
        """A majority of its participants."""
        voters = {sid for sid, role in self.roles.items() if role == PARTICIPANT}
        return 2 * len(voters & sids) > len(voters)
