"""The leader's verdict on changes of the ensemble (specification 19.4): refused, or what they lead to.

A change is judged when everything proposed before it has been executed here, and is proposed at once: so what
it was judged on is what it changes. Only the leader knows whether the one before is committed and whether a
quorum of the new members is synchronized; its verdict goes through the log.

The leader asks too, with an operation that no client can send: for the members of zoo.cfg, which an ensemble
begins with, and to which one without `reconfigEnabled` is brought when they differ. That is how a rolling
restart with other member lines becomes a change like any other, safe at every step.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from coord import eventlog
from coord.protocol import opcodes
from coord.protocol.batch import Block
from coord.protocol.jute import DecodeError
from coord.server.members import Members
from coord.server.reconfiguration import ANY_VERSION, ReconfigurationError, Request, apply
from coord.tree import DataTree
from coord.tree.acl import is_allowed
from coord.tree.membership import encode_change, encode_level
from coord.tree.path import CONFIG
from coord.zab import Membership, epoch_of, make_zxid

LEVEL_PREFIX = "feature.level="
"""In the place of new members: the request is about the feature level instead."""

log = eventlog.get("coord.server")


class Ensemble(Protocol):
    """What a verdict needs of the Zab peer."""

    @property
    def is_changing(self) -> bool: ...

    def can_change_to(self, membership: Membership) -> bool: ...

    def knows_level(self, level: int) -> bool: ...


class Changes:
    """Judges changes on the leader.

    Args:
        configured: as zoo.cfg says.
        enabled: `reconfigEnabled`.
        voters_min: 2 while a single server would run standalone, else 1.
        several_addresses: `multiAddress.enabled`.
        standalone: there are no members to change.
        checkpoint: whether there is one as of this zxid or later; else one is begun.
    """

    def __init__(
        self,
        *,
        tree: Callable[[], DataTree],
        ensemble: Ensemble,
        configured: Members,
        enabled: bool,
        voters_min: int,
        several_addresses: bool = False,
        skip_acl: bool = False,
        standalone: bool = False,
        checkpoint: Callable[[int], bool] = lambda zxid: True,
    ) -> None:
        self._tree = tree
        self._ensemble = ensemble
        self._configured = configured
        self._enabled = enabled
        self._voters_min = voters_min
        self._several_addresses = several_addresses
        self._skip_acl = skip_acl
        self._standalone = standalone
        self._checkpoint = checkpoint
        self._level_zxid = 0
        self._settled: bytes | None = None

    @property
    def executed_zxid(self) -> int:
        return self._tree().last_zxid

    @property
    def is_wanted(self) -> bool:
        """The leader should propose the members of its zoo.cfg. Cheap while there is nothing to do."""
        data = self._tree().nodes[CONFIG].data
        if data is self._settled or self._standalone:
            return False
        now = Members.of_state(self._tree())
        if now is None:
            return True
        if self._enabled or self._configured.is_same_as(now):
            self._settled = data
            return False
        return not self._ensemble.is_changing and self._ensemble.can_change_to(self._configured.membership())

    @property
    def feature_level(self) -> int:
        return self._tree().feature_level

    def decide(self, block: Block, zxid: int) -> tuple[int, bytes]:
        """What the only request of `block` leads to if it is executed as `zxid`: operation and body.

        Raises:
            ReconfigurationError: it is refused.
        """
        if block.ops[0] == opcodes.CHANGE_MEMBERSHIP:
            return opcodes.CHANGE_MEMBERSHIP, self._by_file(zxid)
        try:
            request = Request.decode(block.bodies[0])
        except DecodeError as error:
            raise ReconfigurationError(opcodes.MARSHALLING_ERROR, str(error)) from error
        if request.new_members is not None and request.new_members.startswith(LEVEL_PREFIX):
            level = self._judge_level(block, request.new_members.removeprefix(LEVEL_PREFIX))
            log.info("the feature level rises", level=level, before=self.feature_level)
            return opcodes.RAISE_LEVEL, encode_level(level)
        members = replace(self._judge(block, request), version=zxid)
        log.info("the ensemble changes", version=hex(zxid), members=members.lines().replace("\n", " "))
        return opcodes.CHANGE_MEMBERSHIP, encode_change(zxid, members.text())

    def _judge_level(self, block: Block, text: str) -> int:
        """A feature level is raised when every member is there and knows it, and after a checkpoint: that is
        the way back.
        """
        if not block.is_local and block.sessions[0] not in self._tree().sessions:
            raise ReconfigurationError(opcodes.SESSION_EXPIRED, "its session has ended")
        if not text.isascii() or not text.isdigit() or not self.feature_level <= int(text[:6]):
            raise ReconfigurationError(
                opcodes.BAD_ARGUMENTS,
                f"expected a level from {self.feature_level} upwards, got {text[:20]!r}",
            )
        level = int(text[:6])
        self._check_write(block)
        if not self._ensemble.knows_level(level):
            raise ReconfigurationError(
                opcodes.NEW_CONFIG_NO_QUORUM, f"not all members are here and know feature level {level}"
            )
        self._level_zxid = self._level_zxid or self._tree().last_zxid
        if not self._checkpoint(self._level_zxid):
            raise ReconfigurationError(opcodes.RECONFIG_IN_PROGRESS, "a checkpoint is made first; ask again")
        self._level_zxid = 0
        return level

    def _check_write(self, block: Block) -> None:
        tree = self._tree()
        acl = tree.acl_of(tree.nodes[CONFIG].acl)
        if not self._skip_acl and not is_allowed(acl, opcodes.PERM_WRITE, block.auth[0]):
            raise ReconfigurationError(opcodes.NO_AUTH, "it may not write /zookeeper/config")

    def _judge(self, block: Block, request: Request) -> Members:
        """The checks in their order."""
        tree = self._tree()
        if not self._enabled:
            raise ReconfigurationError(opcodes.RECONFIG_DISABLED, "reconfigEnabled is false")
        if not block.is_local and block.sessions[0] not in tree.sessions:
            raise ReconfigurationError(opcodes.SESSION_EXPIRED, "its session has ended")
        if self._standalone:
            raise ReconfigurationError(opcodes.UNIMPLEMENTED, "this server is no ensemble")
        now = Members.of_state(tree)
        if self._ensemble.is_changing or now is None:
            raise ReconfigurationError(opcodes.RECONFIG_IN_PROGRESS, "another change is under way")
        if request.version not in (ANY_VERSION, now.version):
            raise ReconfigurationError(
                opcodes.BAD_VERSION, f"expected version {now.version:#x}, got {request.version:#x}"
            )
        members = apply(request, now, voters_min=self._voters_min, several_addresses=self._several_addresses)
        if not self._ensemble.can_change_to(members.membership()):
            raise ReconfigurationError(
                opcodes.NEW_CONFIG_NO_QUORUM, "no quorum of the new members is synchronized"
            )
        self._check_write(block)
        return members

    def _by_file(self, zxid: int) -> bytes:
        now = Members.of_state(self._tree())
        if now is None:
            version = make_zxid(epoch_of(zxid), 0)  # as ZooKeeper counts an ensemble's first configuration
            return encode_change(version, replace(self._configured, version=version).text())
        if not self.is_wanted:
            raise ReconfigurationError(
                opcodes.BAD_ARGUMENTS, "the members of zoo.cfg are those of the ensemble"
            )
        members = replace(self._configured, version=zxid)
        log.warning(
            "changes the ensemble to the members of zoo.cfg",
            do="make sure that all servers' files agree",
            version=hex(zxid),
            members=members.lines().replace("\n", " "),
        )
        return encode_change(zxid, members.text())
