"""What a server tells of its configuration, its machine and its disk (specification 16.7, 16.8)."""

import getpass
import os
import platform
import socket
import sys
from pathlib import Path

from coord.server.config import PeerAddress, ServerConfig
from coord.server.words import version_text

STATE_DIRECTORY = "version-2"
"""What ZooKeeper keeps its files in, which is how it names its directories; ours are in `zoolog`."""


def configuration_pairs(config: ServerConfig, mine: PeerAddress | None) -> dict[str, int | str]:
    """The keys of `conf` in their order, without the membership; `mine` is this server's line of it."""
    data_bytes, log_bytes = directory_sizes(config)
    pairs: dict[str, int | str] = {
        "clientPort": -1 if config.client_port is None else config.client_port,
        "secureClientPort": -1 if config.tls.secure_port is None else config.tls.secure_port,
        "dataDir": os.path.join(config.data_dir, STATE_DIRECTORY),
        "dataDirSize": data_bytes,
        "dataLogDir": os.path.join(config.data_log_dir, STATE_DIRECTORY),
        "dataLogSize": log_bytes,
        "tickTime": config.tick_ms,
        "maxClientCnxns": config.max_client_connections,
        "minSessionTimeout": config.session_timeout_ms_min,
        "maxSessionTimeout": config.session_timeout_ms_max,
        "clientPortListenBacklog": config.listen_backlog,
        "serverId": 0 if config.standalone else config.sid,
    }
    if mine is not None:
        pairs |= {
            "initLimit": config.init_limit,
            "syncLimit": config.sync_limit,
            "electionAlg": 3,
            "electionPort": "|".join(str(one.election_port) for one in mine.addresses),
            "quorumPort": "|".join(str(one.quorum_port) for one in mine.addresses),
            "peerType": int(mine.is_observer),
        }
    return pairs


def format_configuration(config: ServerConfig, mine: PeerAddress | None, membership: str) -> str:
    """`conf`: the configuration text of an ensemble ends it, without a newline."""
    text = "".join(f"{key}={value}\n" for key, value in configuration_pairs(config, mine).items())
    return text if mine is None else f"{text}membership: \n{membership}"


def environment_pairs() -> dict[str, str]:
    """The keys of `envi` that mean something without a Java machine, and ours for Python beside them."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    free_pages = os.sysconf("SC_AVPHYS_PAGES")
    system = platform.uname()
    return {
        "zookeeper.version": version_text(),
        "host.name": socket.gethostname(),
        "python.version": platform.python_version(),
        "python.implementation": platform.python_implementation(),
        "python.executable": sys.executable,
        "os.name": system.system,
        "os.arch": system.machine,
        "os.version": system.release,
        "user.name": _user_name(),
        "user.home": str(Path("~").expanduser()),
        "user.dir": str(Path.cwd()),
        "os.memory.free": f"{free_pages * page_bytes >> 20}MB",
        "os.memory.max": f"{pages * page_bytes >> 20}MB",
        "os.memory.total": f"{pages * page_bytes >> 20}MB",
    }


def format_environment() -> str:
    return "Environment:\n" + "".join(f"{key}={value}\n" for key, value in environment_pairs().items())


def directory_sizes(config: ServerConfig) -> tuple[int, int]:
    """Bytes of checkpoints and of the transaction log."""
    return (
        _size_of(Path(config.data_dir, "zoolog"), "generation-*"),
        _size_of(Path(config.data_log_dir, "zoolog"), "log-*"),
    )


def _size_of(directory: Path, pattern: str) -> int:
    total = 0
    for root in directory.glob(pattern):
        for path in root.rglob("*"):
            try:
                total += path.stat().st_size if path.is_file() else 0
            except OSError:
                continue  # removed meanwhile
    return total


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without an entry, as in containers
        return str(os.getuid())
