"""A server from its configuration to its end, and another one where a snapshot is restored meanwhile, or a
damaged log repaired.
"""

import trio

from coord import eventlog
from coord.clock import SYSTEM_CLOCK, Clock
from coord.disk import RealDisk
from coord.server.admin.snapshots import Rates
from coord.server.config import ServerConfig, with_guess
from coord.server.server import Server
from coord.server.startup import check_directories
from coord.storage import LmdbEnvironments, Owner, bind_directory, open_data_directory

log = eventlog.get("coord.server")


async def serve(
    config: ServerConfig,
    *,
    clock: Clock = SYSTEM_CLOCK,
    task_status: trio.TaskStatus[tuple[str, int] | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs a coordination server until cancelled; what it acknowledged is durable whatever happens.

    Args:
        config: from `load_config`.
        task_status: gets the (host, port) of the client port once it listens; without one that of the TLS
            port, without either None.

    Raises:
        DataDirectoryError, RecoveryError, LogDamagedError: it must not start from what is on disk.
        DiskLockedError: another server runs on the directory.
        ConfigError: a file that the configuration names cannot be used.
        ListenError: a port cannot be listened on.
        OSError: the disk failed.
        HistoryConflictError: the ensemble's history contradicts this server's.
    """
    if config.unknown_keys or config.keys_without_effect:
        log.warning(
            "keys that mean nothing here",
            do="correct or remove them",
            unknown=" ".join(map(with_guess, config.unknown_keys)),
            without_effect=" ".join(config.keys_without_effect),
        )
    for warning in config.warnings:
        log.warning("configuration", what=warning)
    check_directories(config)
    directory = open_data_directory(RealDisk(), config.data_dir, config.data_log_dir)
    rates = Rates(config)
    try:
        if not config.standalone:
            bind_directory(directory, Owner(config.sid, config.ensemble_id))
        server = Server(config, directory, LmdbEnvironments(), clock, rates)
        await server.run(task_status=task_status)
    finally:
        directory.close()
    while server.begins_again:
        config = server.config_with_ports()
        directory = open_data_directory(RealDisk(), config.data_dir, config.data_log_dir)
        try:
            server = Server(
                config,
                directory,
                LmdbEnvironments(),
                clock,
                rates,
                restored=server.leaves_restored,
                repaired_batches=server.repaired_batches,
            )
            await server.run(task_status=trio.TASK_STATUS_IGNORED)
        finally:
            directory.close()
