"""A coordination server's configuration: zoo.cfg with ZooKeeper's key names becomes one frozen record.

A mistake is a `ConfigError` with one line that names key, value and what was expected; the command exits
with status 2. Keys that are not known are no error: `ServerConfig.unknown_keys` has them, and the server
names them in one warning.
"""

from coord.server.config.keys import ConfigError
from coord.server.config.members import PeerAddress
from coord.server.config.reading import known_keys, load_config, parse_config, with_guess
from coord.server.config.record import WORDS_ALL, ServerConfig
from coord.server.config.secret import write_ensemble_secret

__all__ = [
    "WORDS_ALL",
    "ConfigError",
    "PeerAddress",
    "ServerConfig",
    "known_keys",
    "load_config",
    "parse_config",
    "with_guess",
    "write_ensemble_secret",
]
