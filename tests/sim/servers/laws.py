"""The laws of whole servers, checked from outside while a run goes, and their witness.

The witness sees which batches are executed where, what each client sends and gets, and which sessions each
server has heard of. The first server to execute a batch makes it part of the one order; `Model` executes it
again, and everything else is compared with that.
"""

from typing import TYPE_CHECKING, Any, NoReturn

from coord.protocol.batch import OP_REFUSED, Stamp, decode_batch
from coord.protocol.opcodes import BAD_VERSION, CHANGE_MEMBERSHIP
from coord.zab import Role
from tests.sim.servers.ensemble import ANY_VERSION, Change, Configuration, roles_in
from tests.sim.servers.model import CONFIG, Model
from tests.sim.witness import LawViolated

if TYPE_CHECKING:
    from tests.sim.servers.server import SimServer
    from tests.sim.servers.world import ServersWorld

SERVER_LAWS = {
    "TotalOrder": "every server executes in the order of zxids, none left out within an epoch",
    "PrefixConsistency": "all servers execute the same requests with the same zxids",
    "StateDigest": "equal zxids mean equal digests of the state, after recovery and snapshots too",
    "SessionOrder": "a session's writes are executed in the order it sent them, none twice or left out",
    "AnswerTrue": "the answer to a write says what was executed with its zxid, and how that ended",
    "ReadTrue": "a read shows the state as of the zxid that its answer names",
    "MonotoneReads": "what a session is shown never goes back, whichever server shows it",
    "SyncLinearizable": "who reads after a sync sees everything acknowledged to anybody before it",
    "WatchKept": "no event is missing, and each comes before any answer that shows its change; standard, "
    "persistent and recursive watches, and those that a client set again elsewhere",
    "WatchCause": "no event without a change of what is watched, behind the moment when the watch was set",
    "EphemeralWithSession": "ephemeral nodes are there while their session lives, and go with it",
    "SessionNotEarly": "a leader ends no session within its timeout since it last heard of it",
    "SessionKept": "who is told that its session is over finds it ended in the history",
    "SessionUpgraded": "where local sessions may become global ones, none is refused an ephemeral node",
    "SessionEnds": "a session ends when its client is silent for good",
    "ReapedInTime": "containers and TTL nodes that have had their time go; no other does by itself",
    "CommitQuorum": "what is executed anywhere is durable on a majority of the members",
    "JointCommit": "a change of the ensemble is durable on majorities of the members before and after it",
    "ChangeAsAsked": "a change of the ensemble leads to what was asked for, on the version that was named",
    "ElectableLeads": "who is no participant any more does not lead for long",
    "Durability": "what was acknowledged is executed on all servers in the end, and has led to their state",
    "LossNoticed": "a server finds all in its log that it had acknowledged, or knows that some is lost",
    "CheckDuringAction": "no server finds its own disk impossible, none is to take back what is committed",
    "messageIllegal": "no server gets a message that it cannot read",
    "ShouldNotBeTriggered": "no server reports what cannot be",
    "Progress": "after the faults stop all servers serve, and all clients are served, in a minute",
}

CALM_MS = 5_000
"""After the last fault, until a client that is heard must be heard by the leader."""


class ServersWitness:
    """Sees everything from outside."""

    def __init__(self, world: "ServersWorld") -> None:
        self._world = world
        self.model = Model(world.identity_of, skips_acl=world.changes_members)
        self.requests: dict[int, tuple[object, ...]] = {}
        """What was executed with each zxid."""
        self.digests: dict[int, int] = {}
        self.acknowledged_zxid = 0
        self.acknowledged = 0
        self.expired = 0
        self.events = 0
        self._last_xid: dict[int, int] = {}
        self._heard: dict[tuple[int, int], int] = {}
        """(server, session) -> when it last heard of it, from a client or a follower, in microseconds."""
        self._heard_anywhere: dict[int, int] = {}
        self._leads_since: dict[int, int] = {}
        self.asked_changes: dict[tuple[int, int], Change] = {}
        """(session, xid) -> what was asked for."""
        self._leads_without_right: dict[int, int] = {}
        self.predecessors: dict[tuple[int, int], int] = {}
        """(session, xid) of a write -> the write before it on its connection, or 0."""

    def violated(self, law: str, server: "SimServer | None", text: str) -> NoReturn:
        where = "" if server is None else f"server {server.sid}: "
        self._world.trace("VIOLATED", server.sid if server else 0, f"{law}: {text}")
        raise LawViolated(law, f"{where}{text} (at {self._world.now_us / 1e6:.6f} s)")

    # A server's life.

    def watch(self, server: "SimServer") -> None:
        """Listens to what a new process executes, and to the sessions that it ends."""
        member = server.server._member
        execute = member._replica.execute
        close_sessions = member.relay.orders.close_sessions
        begin = server.server._authority.begin
        attach = server.server._authority.attach

        def executed(stamp: Stamp, blocks: Any) -> None:
            execute(stamp, blocks)
            self._on_executed(server, stamp, blocks)

        def closes(session_ids: list[int]) -> None:
            self._on_expiry(server, session_ids)
            close_sessions(session_ids)

        def begins(sessions: Any, now_ms: int) -> None:
            self._leads_since[server.sid] = self._world.now_us
            begin(sessions, now_ms)

        def attaches(sid: int, session_id: int, timeout_ms: int, password: bytes, now_ms: int) -> bool:
            self.heard(server, (session_id,))
            return attach(sid, session_id, timeout_ms, password, now_ms)

        member._replica.execute = executed
        member.relay.orders.close_sessions = closes
        server.server._authority.begin = begins
        server.server._authority.attach = attaches

    def on_start(self, server: "SimServer") -> None:
        """It has executed what its disk knows to be committed, perhaps as the first."""
        zxid = server.tree.last_zxid
        if zxid > self.model.zxid:
            self._learn_from_log(server, zxid)
        self._check_digest(server)
        found, promised = server.peer.last_zxid, server.promised_zxid
        if found < promised and server.server._persistence.directory.loss is None:
            self.violated("LossNoticed", server, f"found its log up to {found:#x}, it was at {promised:#x}")

    def _learn_from_log(self, server: "SimServer", until: int) -> None:
        for batch in server.peer._replica.history.batches_after(self.model.zxid):
            if batch.last_zxid <= until:
                self._extend(server, *decode_batch(batch.payload))

    def on_installed(self, server: "SimServer") -> None:
        self._check_digest(server)

    def on_tick(self, server: "SimServer") -> None:
        for line in self._world.journal.take():
            self.violated("ShouldNotBeTriggered", server, line)
        self._check_right_to_lead(server)
        if server.life > server.damaged_in_life and server.status.serving:
            server.damaged_in_life = -1
            self._world.faults.must_repair.discard(server.sid)

    def _check_right_to_lead(self, server: "SimServer") -> None:
        membership = server.peer.membership
        if server.status.role is not Role.LEADING or server.sid in membership.participants:
            self._leads_without_right.pop(server.sid, None)
            return
        since_us = self._leads_without_right.setdefault(server.sid, self._world.now_us)
        if self._world.now_us - since_us > 4000 * server.config.tick_ms:
            self.violated("ElectableLeads", server, f"leads, and is no participant of {membership}")

    # Execution.

    def _on_executed(self, server: "SimServer", stamp: Stamp, blocks: Any) -> None:
        first = stamp.first_zxid
        if first <= self.model.zxid:
            for zxid, request in enumerate(_requests_of(blocks), first):
                if self.requests.get(zxid) != request:
                    self.violated(
                        "PrefixConsistency",
                        server,
                        f"executed {_show(request)} as {zxid:#x}, elsewhere {_show(self.requests.get(zxid))}",
                    )
        else:
            self._extend(server, stamp, blocks)
            self._check_ephemerals(server)
        self._check_digest(server)

    def _extend(self, server: "SimServer", stamp: Stamp, blocks: Any) -> None:
        """It is the first to execute this batch."""
        before = self.model.zxid
        if stamp.first_zxid >> 32 == before >> 32 and stamp.first_zxid != before + 1:
            self.violated("TotalOrder", server, f"executed {stamp.first_zxid:#x} after {before:#x}")
        for zxid, request in enumerate(_requests_of(blocks), stamp.first_zxid):
            self.requests[zxid] = request
            _, session_id, xid, op, body, is_local = request
            if xid > 0 and op != OP_REFUSED:
                self._check_order(server, session_id, xid)
            if op in (OP_REFUSED, CHANGE_MEMBERSHIP):
                self._check_change(server, zxid, session_id, xid, op, body)
            self._last_xid[session_id] = max(xid, self._last_xid.get(session_id, 0))
            self._world.trace("execute", server.sid, (zxid, session_id, xid, op))
            before_change = self.configuration
            self.model.execute(zxid, session_id, xid, op, body, stamp.wall_ms, is_local=is_local)
            if op == CHANGE_MEMBERSHIP:
                self._check_copies("JointCommit", server, zxid, before_change)
        self._check_copies("CommitQuorum", server, self.model.zxid, self.configuration)

    @property
    def configuration(self) -> Configuration:
        configurations = self.model.configurations
        return configurations[-1] if configurations else Configuration(0, 0, self._world.first_roles, "")

    def _check_copies(self, law: str, server: "SimServer", zxid: int, configuration: Configuration) -> None:
        """Of a server whose disk is damaged nobody knows."""
        nodes = self._world.nodes.values()
        copies = {node.sid for node in nodes if node.durable_zxid >= zxid or node.is_damaged}
        if not configuration.is_quorum(copies):
            self.violated(law, server, f"{zxid:#x} is durable on {sorted(copies)} of {configuration.roles}")

    def _check_change(
        self, server: "SimServer", zxid: int, session_id: int, xid: int, op: int, body: bytes
    ) -> None:
        asked = self.asked_changes.get((session_id, xid))
        now = self.configuration
        if op == OP_REFUSED:
            code = int.from_bytes(body[:4], "big", signed=True)
            if asked is not None and code == BAD_VERSION and asked.version in (ANY_VERSION, now.version):
                self.violated("ChangeAsAsked", server, f"refuses {asked} on version {now.version:#x}")
            return
        wanted = self._world.first_roles
        if asked is not None:
            wanted = asked.applied_to(now.roles)
            if asked.version not in (ANY_VERSION, now.version):
                self.violated("ChangeAsAsked", server, f"carries out {asked} on version {now.version:#x}")
        elif self.model.configurations:
            self.violated(
                "ChangeAsAsked", server, f"changes the ensemble at {zxid:#x}, which nobody asked for"
            )
        found = roles_in(body[8:].decode())
        if found != wanted:
            self.violated("ChangeAsAsked", server, f"{asked} has led to {found}, from {now.roles}")

    def _check_order(self, server: "SimServer", session_id: int, xid: int) -> None:
        last = self._last_xid.get(session_id, 0)
        predecessor = self.predecessors.get((session_id, xid))
        if predecessor is None or xid <= last or (predecessor and predecessor != last):
            self.violated(
                "SessionOrder",
                server,
                f"executed request {xid} of {session_id:#x} after {last}, sent after {predecessor}",
            )

    def _check_ephemerals(self, server: "SimServer") -> None:
        found = {
            owner: {path.decode() for path in paths.values()}
            for owner, paths in server.tree.ephemerals.items()
        }
        wanted = self.model.ephemerals()
        if found != wanted:
            self.violated("EphemeralWithSession", server, f"has {_differ(found, wanted)}")

    def _check_digest(self, server: "SimServer") -> None:
        zxid, digest = server.tree.last_zxid, server.tree.state_digest()
        if self.digests.setdefault(zxid, digest) != digest:
            self.violated("StateDigest", server, f"another state as of {zxid:#x} than elsewhere")

    # Sessions.

    def heard(self, server: "SimServer", session_ids: tuple[int, ...]) -> None:
        for session_id in session_ids:
            self._heard[server.sid, session_id] = self._heard_anywhere[session_id] = self._world.now_us

    def _on_expiry(self, server: "SimServer", session_ids: list[int]) -> None:
        now_us = self._world.now_us
        mended_us = self._world.faults.mended_us
        for session_id in session_ids:
            client = self._world.client_of(session_id)
            if client is None:
                continue
            self.expired += 1
            heard_us = max(self._heard.get((server.sid, session_id), 0), self._leads_since.get(server.sid, 0))
            if now_us - heard_us < (client.timeout_ms - 1) * 1000:
                self.violated(
                    "SessionNotEarly", server, f"ends {session_id:#x}, heard of {_ago(now_us, heard_us)}"
                )
            anywhere_us = self._heard_anywhere.get(session_id, 0)
            is_calm = mended_us is not None and anywhere_us > mended_us + CALM_MS * 1000
            if is_calm and now_us - anywhere_us < client.timeout_ms * 500:
                self.violated(
                    "SessionNotEarly",
                    server,
                    f"ends {session_id:#x}, heard elsewhere {_ago(now_us, anywhere_us)}",
                )

    def told_expired(self, server: "SimServer", session_id: int) -> None:
        is_local = self._world.local_sessions and session_id not in self.model.sessions
        if session_id not in self.model.ended and not is_local:
            self.violated(
                "SessionKept", server, f"told the client of {session_id:#x} that its session is over"
            )

    # The end.

    def check_end(self) -> None:
        """All servers have executed all there is, and it has led to the state of the model."""
        wanted = {path: node for path, node in self.model.nodes.items() if path not in ("/", CONFIG)}
        for server in self._world.nodes.values():
            found = {
                path.decode(): node
                for path, node in server.tree.nodes.items()
                if path not in (b"/", b"") and not path.startswith(b"/zookeeper")
            }
            if found.keys() != wanted.keys():
                self.violated(
                    "Durability", server, f"nodes differ: {sorted(found.keys() ^ wanted.keys())[:5]}"
                )
            for path, node in found.items():
                if node.data[4:] != wanted[path].data or node.mzxid != wanted[path].mzxid:
                    self.violated("Durability", server, f"{path} holds {node.data[4:]!r}")


def _requests_of(blocks: Any) -> list[tuple[int, int, int, int, bytes, bool]]:
    """Of each request of a batch: owner, session, xid, operation, body, whether its session is local."""
    return [
        (block.owner, session_id, xid, op, bytes(body), block.is_local)
        for block in blocks
        for session_id, xid, op, body in zip(block.sessions, block.xids, block.ops, block.bodies, strict=True)
    ]


def _show(request: Any) -> str:
    return "nothing" if request is None else f"{request[1]:#x} {request[2:]}"


def _ago(now_us: int, then_us: int) -> str:
    return f"{(now_us - then_us) / 1000:.0f} ms ago"


def _differ(found: dict[int, set[str]], wanted: dict[int, set[str]]) -> str:
    return "; ".join(
        f"{owner:#x}: {sorted(found.get(owner, set()) ^ wanted.get(owner, set()))}"
        for owner in found.keys() | wanted.keys()
        if found.get(owner) != wanted.get(owner)
    )
