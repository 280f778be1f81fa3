"""The coordination server: ZooKeeper's client protocol on one side, Zab on the other, a znode tree between.

await serve(load_config("zoo.cfg"))          python -m coord.server zoo.cfg          zoolog coord serve
zoo.cfg
"""

from coord.server.config import (
    ConfigError,
    ServerConfig,
    load_config,
    parse_config,
    with_guess,
    write_ensemble_secret,
)
from coord.server.config.table import key_tables
from coord.server.lifetime import serve
from coord.server.main import main
from coord.server.startup import check_directories
from coord.storage import DataDirectoryError

__all__ = [
    "ConfigError",
    "DataDirectoryError",
    "ServerConfig",
    "check_directories",
    "key_tables",
    "load_config",
    "main",
    "parse_config",
    "serve",
    "with_guess",
    "write_ensemble_secret",
]
