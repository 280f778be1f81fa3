"""Keys of sessions."""

from dataclasses import dataclass

from coord.server.config.keys import boolean, key


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """How sessions live."""

    local_sessions: bool = key(
        "localSessionsEnabled",
        boolean,
        False,
        "new sessions live at their server only and cost no transaction; not on a standalone server",
    )
    local_sessions_upgrade: bool = key(
        "localSessionsUpgradingEnabled",
        boolean,
        False,
        "the first ephemeral of a local session makes it global; else ephemerals are refused",
    )
    read_only_mode: bool = key(
        "readonlymode.enabled",
        boolean,
        False,
        "without a quorum, serve reads to clients that ask for it; they need `localSessionsEnabled` as well",
    )
