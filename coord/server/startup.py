"""From a configuration and a data directory to what a server starts with: its state, and Zab's peer."""

from coord import eventlog
from coord.server.config import ServerConfig
from coord.server.durable import proposals_of
from coord.storage import DataDirectory, RecoveredState
from coord.tree import DataTree
from coord.zab import Config, Peer, Recovered, Sid

log = eventlog.get("coord.server")

STANDALONE_LIMIT = 10
"""Ticks, where an ensemble's limits are not configured and mean nothing."""


def report_recovery(recovered: RecoveredState[DataTree]) -> None:
    """Tells the operator what start-up found and repaired."""
    for warning in recovered.warnings:
        log.warning("at start-up", what=warning)
    if recovered.torn_tail is not None:
        log.info("cut the torn end of the log", where=recovered.torn_tail)
    if recovered.history_lost:
        log.error("this server has lost its history", do="nothing: it fetches the state from its leader")


def make_peer(
    config: ServerConfig, recovered: RecoveredState[DataTree], directory: DataDirectory, now_ms: int
) -> Peer:
    """Zab's view of this server. Standalone, it is an ensemble of one."""
    participants = frozenset(Sid(peer.sid) for peer in config.servers) or frozenset({Sid(config.sid)})
    view = Config(
        sid=Sid(config.sid),
        participants=participants,
        tick_ms=config.tick_ms,
        init_limit=config.init_limit or STANDALONE_LIMIT,
        sync_limit=config.sync_limit or STANDALONE_LIMIT,
    )
    history = Recovered(
        accepted_epoch=directory.epochs.accepted,
        current_epoch=directory.epochs.current,
        executed_zxid=recovered.executed_zxid,
        after_zxid=recovered.after_zxid,
        batches=proposals_of(recovered.batches),
    )
    return Peer(view, history, now_ms)
