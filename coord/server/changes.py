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
from coord.tree.membership import encode_change
from coord.tree.path import CONFIG
from coord.zab import Membership, epoch_of, make_zxid

log = eventlog.get("coord.server")


class Ensemble(Protocol):
    """What a verdict needs of the Zab peer."""

    @property
    def is_changing(self) -> bool: ...

    def can_change_to(self, membership: Membership) -> bool: ...


class Changes:
    """Judges changes on the leader.

    Args:
        configured: as zoo.cfg says.
        enabled: `reconfigEnabled`.
        voters_min: 2 while a single server would run standalone, else 1.
        several_addresses: `multiAddress.enabled`.
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
    ) -> None:
        self._tree = tree
        self._ensemble = ensemble
        self._configured = configured
        self._enabled = enabled
        self._voters_min = voters_min
        self._several_addresses = several_addresses
        self._skip_acl = skip_acl
        self._settled: bytes | None = None

    @property
    def executed_zxid(self) -> int:
        return self._tree().last_zxid

    @property
    def is_wanted(self) -> bool:
        """The leader should propose the members of its zoo.cfg. Cheap while there is nothing to do."""
        data = self._tree().nodes[CONFIG].data
        if data is self._settled:
            return False
        now = Members.of_state(self._tree())
        if now is None:
            return True
        if self._enabled or self._configured.is_same_as(now):
            self._settled = data
            return False
        return not self._ensemble.is_changing and self._ensemble.can_change_to(self._configured.membership())

    def decide(self, block: Block, zxid: int) -> bytes:
        """What the only request of `block` leads to if it is executed as `zxid`: the body of a change.

        Raises:
            ReconfigurationError: it is refused.
        """
        if block.ops[0] == opcodes.CHANGE_MEMBERSHIP:
            return self._by_file(zxid)
        try:
            request = Request.decode(block.bodies[0])
        except DecodeError as error:
            raise ReconfigurationError(opcodes.MARSHALLING_ERROR, str(error)) from error
        members = replace(self._judge(block, request), version=zxid)
        log.info("the ensemble changes", version=hex(zxid), members=members.lines().replace("\n", " "))
        return encode_change(zxid, members.text())

    def _judge(self, block: Block, request: Request) -> Members:
        """The checks in their order."""
        tree = self._tree()
        if not self._enabled:
            raise ReconfigurationError(opcodes.RECONFIG_DISABLED, "reconfigEnabled is false")
        if not block.is_local and block.sessions[0] not in tree.sessions:
            raise ReconfigurationError(opcodes.SESSION_EXPIRED, "its session has ended")
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
        acl = tree.acl_of(tree.nodes[CONFIG].acl)
        if not self._skip_acl and not is_allowed(acl, opcodes.PERM_WRITE, block.auth[0]):
            raise ReconfigurationError(opcodes.NO_AUTH, "it may not write /zookeeper/config")
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
