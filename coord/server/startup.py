"""From a configuration and a data directory to what a server starts with: its state, Zab's peer, and the
judge of changes of the ensemble.
"""

import os
import resource
from collections.abc import Callable
from typing import Final

from coord import eventlog
from coord.protocol import batch
from coord.reactor import CONNECTIONS_MAX
from coord.server.changes import Changes
from coord.server.config import ServerConfig
from coord.server.durable import proposals_of
from coord.server.members import Members, membership_in
from coord.server.state import State
from coord.storage import DataDirectory, DataDirectoryError, RecoveredState
from coord.tree import DataTree
from coord.zab import Config, FeatureLevelError, Membership, Mismatch, Peer, Recovered, Sid
from coord.zab.ready import no_membership

log = eventlog.get("coord.server")

STANDALONE_LIMIT = 10
"""Ticks, where an ensemble's limits are not configured and mean nothing."""

FILES_RESERVED: Final = 256
"""Descriptors that clients cannot have: log, checkpoint, epochs and peers must find one when they need it, or
a crowd of clients would stop the server.
"""


def connections_wanted(config: ServerConfig) -> int:
    """More than usual where `maxCnxns` says so; a smaller one is the client port's affair, which says why."""
    return max(CONNECTIONS_MAX, config.limits.connections_max)


def raise_file_limit(connections: int = CONNECTIONS_MAX) -> None:
    """As many descriptors for this process as it may have: the usual soft limit is made for others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + FILES_RESERVED
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_max(wanted: int = CONNECTIONS_MAX) -> int:
    """How many clients may be connected at once: what is wanted, as far as descriptors allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, soft - FILES_RESERVED))


def check_directories(config: ServerConfig) -> None:
    """With `datadir.autocreate=false` a missing directory is a disk that is not mounted; else it is made, for
    which what is above it must be a directory that may be written.

    Raises:
        DataDirectoryError: one cannot be used.
    """
    for key, path in (("dataDir", config.data_dir), ("dataLogDir", config.data_log_dir)):
        if not config.storage.creates_directories and not os.path.isdir(path):
            raise DataDirectoryError(f"{key}: {path} does not exist, and datadir.autocreate is false")
        found = os.path.abspath(path)
        while not os.path.exists(found):
            found = os.path.dirname(found)
        if not os.path.isdir(found):
            raise DataDirectoryError(f"{key}: {found} is not a directory")
        if not os.access(found, os.W_OK | os.X_OK):
            raise DataDirectoryError(f"{key}: {found} cannot be written by this user")


def check_level(directory: DataDirectory, level: int) -> None:
    """Raises: FeatureLevelError: the level is that of a later release."""
    if level > batch.FEATURE_LEVEL:
        raise FeatureLevelError(
            f"{directory.root}: the state is at feature level {level}, and this release knows up to "
            f"{batch.FEATURE_LEVEL}: run the release that raised it"
        )


def report_recovery(recovered: RecoveredState[DataTree]) -> None:
    """Tells the operator what start-up found and repaired."""
    for warning in recovered.warnings:
        log.warning("at start-up", what=warning)
    if recovered.torn_tail is not None:
        log.info("cut the torn end of the log", where=recovered.torn_tail)
    if recovered.history_lost:
        log.error(
            "this server has lost its history and does not vote until it has it back",
            do="nothing: it fetches the state from its leader",
        )


def members_of(config: ServerConfig, tree: DataTree) -> Members:
    """Who belongs to the ensemble: by the state, and before it says anything by zoo.cfg."""
    return Members.of_state(tree) or Members.of_config(config)


def membership_of(config: ServerConfig, tree: DataTree) -> Membership:
    """As `members_of`, for the protocol; a standalone server is alone."""
    if config.standalone:
        return Membership.of([config.sid])
    return members_of(config, tree).membership()


def make_peer(
    config: ServerConfig,
    recovered: RecoveredState[DataTree],
    directory: DataDirectory,
    now_ms: int,
    *,
    diverged: Mismatch | None = None,
) -> Peer:
    """Zab's view of this server. Standalone, it is an ensemble of one.

    Raises:
        FeatureLevelError: the state is of a later release.
    """
    check_level(directory, recovered.state.feature_level)
    view = Config(
        sid=Sid(config.sid),
        membership=membership_of(config, recovered.state),
        feature_level_max=batch.FEATURE_LEVEL,
        tick_ms=config.tick_ms,
        init_limit=config.init_limit or STANDALONE_LIMIT,
        sync_limit=config.sync_limit or STANDALONE_LIMIT,
        membership_of=no_membership if config.standalone else membership_in,
        peers=config.detectors.of_peers(),
        observers=config.detectors.of_observers(),
    )
    history = Recovered(
        accepted_epoch=directory.epochs.accepted,
        current_epoch=directory.epochs.current,
        executed_zxid=recovered.executed_zxid,
        after_zxid=recovered.after_zxid,
        batches=proposals_of(recovered.batches),
        history_lost=recovered.history_lost,
        diverged=diverged,
    )
    peer = Peer(view, history, now_ms)
    peer.note_level(recovered.state.feature_level)
    return peer


def make_changes(
    config: ServerConfig, state: State, peer: Peer, has_checkpoint: Callable[[int], bool]
) -> Changes:
    """Who judges changes of the ensemble; `has_checkpoint`: whether there is one as of a zxid or later."""
    return Changes(
        tree=lambda: state.tree,
        ensemble=peer,
        configured=Members.of_config(config),
        standalone=config.standalone,
        checkpoint=has_checkpoint,
        enabled=config.ensemble.reconfig_enabled,
        voters_min=2 if config.ensemble.standalone_enabled else 1,
        several_addresses=config.ensemble.several_addresses,
        skip_acl=config.security.skip_acl,
    )
