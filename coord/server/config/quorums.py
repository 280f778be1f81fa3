"""`group.G=id:id…` and `weight.N=W`: a hierarchical quorum system (specification 19.7)."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from coord.server.config.keys import ConfigError, count
from coord.server.config.members import member_id


@dataclass(frozen=True, slots=True)
class QuorumGroups:
    """Disjoint groups of participants (by their number in the file), and what each participant weighs."""

    groups: tuple[tuple[int, frozenset[int]], ...]
    weights: tuple[tuple[int, int], ...]

    def lines(self) -> list[str]:
        """As specification 19.2 writes them."""
        groups = [
            f"group.{number}={':'.join(str(sid) for sid in sorted(sids))}" for number, sids in self.groups
        ]
        return groups + [f"weight.{sid}={weight}" for sid, weight in self.weights]


def parse_quorum_groups(
    groups: Iterable[tuple[str, str]], weights: Iterable[tuple[str, str]], participants: Collection[int]
) -> QuorumGroups | None:
    """Builds the groups; None without any `group` line, when every participant counts the same.

    Raises:
        ConfigError: a line cannot be read, or a participant is in no group or in two (specification 19.9).
    """
    found: dict[int, frozenset[int]] = {}
    group_of: dict[int, int] = {}
    for id_text, text in groups:
        name = f"group.{id_text}"
        group = member_id(id_text, name)
        sids = [member_id(part.strip(), name) for part in text.split(":")]
        for sid in sids:
            if sid in group_of:
                raise ConfigError(f"server {sid} is in group.{group_of[sid]} and in {name}")
            group_of[sid] = group
        found[group] = frozenset(sids)
    weight_of = dict.fromkeys(participants, 1)
    for id_text, text in weights:
        name = f"weight.{id_text}"
        try:
            weight_of[member_id(id_text, name)] = count(text)
        except ValueError as error:
            raise ConfigError(f"{name} {error}, got {text!r}") from None
    if not found:
        return None
    for sid in sorted(participants):
        if sid not in group_of:
            raise ConfigError(f"server {sid} is in no group: with groups each participant must be in one")
    for sid, group in group_of.items():
        if sid not in participants:
            raise ConfigError(f"server {sid} of group.{group} is no participant")
    if not any(weight_of[sid] for sid in participants):
        raise ConfigError("all participants have weight 0: none of them could lead")
    return QuorumGroups(tuple(sorted(found.items())), tuple(sorted(weight_of.items())))
