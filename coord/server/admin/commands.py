"""The commands of the admin server and their answers, with ZooKeeper's names and keys (specification 17.3).

What may be long is collected with pauses for others, so an answer is not of one moment.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from coord.clock import Clock
from coord.server.admin.membership import voting_view, zab_state
from coord.server.config import ServerConfig
from coord.server.figures import spread
from coord.server.settings import STATE_DIRECTORY, directory_sizes, environment_pairs
from coord.server.slices import Pace
from coord.server.view import Viewer, line_of
from coord.server.words import NOT_SERVING, ConnectionLine, version_text
from coord.zab import Role

Keys = dict[str, Any]
Query = Mapping[str, Iterable[str]]


class CommandError(Exception):
    """The command cannot be done; the text is its `error`."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command by its primary name; `is_always` also while the server is not in service."""

    name: str
    aliases: tuple[str, ...]
    keys: "Callable[[AdminCommands, Query], Awaitable[Keys]]"
    is_always: bool = False


class AdminCommands:
    """Carries commands out.

    Args:
        last_checkpoint: zxid and seconds since 1970 of the newest; None where there is none.
    """

    def __init__(
        self,
        config: ServerConfig,
        viewer: Viewer,
        clock: Clock,
        *,
        last_checkpoint: Callable[[], tuple[int, int] | None],
    ) -> None:
        self._config = config
        self._viewer = viewer
        self._clock = clock
        self._last_checkpoint = last_checkpoint

    async def answer(self, name: str, query: Query) -> Keys:
        """The whole object that is answered; a failure is its `error`."""
        command = COMMANDS.get(name)
        if command is None:
            return {"command": name, "error": f"Unknown command: {name}"}
        if self._viewer.mode is None and not command.is_always:
            return {"command": name, "error": NOT_SERVING.rstrip("\n")}
        try:
            keys = await command.keys(self, query)
        except CommandError as error:
            return {"command": command.name, "error": str(error)}
        return keys | {"command": command.name, "error": None}

    # -- what the server is ----------------------------------------------------------------------------------

    async def configuration(self, query: Query) -> Keys:
        config = self._config
        return {
            "client_port": -1 if config.client_port is None else config.client_port,
            "data_dir": os.path.join(config.data_dir, STATE_DIRECTORY),
            "data_log_dir": os.path.join(config.data_log_dir, STATE_DIRECTORY),
            "tick_time": config.tick_ms,
            "max_client_cnxns": config.max_client_connections,
            "min_session_timeout": config.session_timeout_ms_min,
            "max_session_timeout": config.session_timeout_ms_max,
            "server_id": 0 if config.standalone else config.sid,
            "client_port_listen_backlog": config.listen_backlog,
        }

    async def dirs(self, query: Query) -> Keys:
        data_bytes, log_bytes = directory_sizes(self._config)
        return {"datadir_size": data_bytes, "logdir_size": log_bytes}

    async def environment(self, query: Query) -> Keys:
        return dict(environment_pairs())

    async def system_properties(self, query: Query) -> Keys:
        """What Java calls so: facts of the process, never its environment, which may hold secrets."""
        return {**environment_pairs(), "pid": str(os.getpid()), "file.separator": os.sep}

    async def initial_configuration(self, query: Query) -> Keys:
        return {"initial_configuration": self._config.shown_text}

    async def is_read_only(self, query: Query) -> Keys:
        return {"read_only": self._viewer.mode == "read-only"}

    async def last_snapshot(self, query: Query) -> Keys:
        zxid, seconds = self._last_checkpoint() or (-1, -1)
        return {"zxid": f"{zxid & ((1 << 64) - 1):x}", "timestamp": seconds}

    async def ruok(self, query: Query) -> Keys:
        return {}

    # -- figures ---------------------------------------------------------------------------------------------

    async def monitor(self, query: Query) -> Keys:
        view = self._viewer.view()
        keys: Keys = {"version": version_text(), "server_state": view.mode}
        return keys | dict(view.monitor())

    async def server_stats(self, query: Query) -> Keys:
        view = self._viewer.view()
        figures = spread(self._viewer.figures())
        data_bytes, log_bytes = directory_sizes(self._config)
        unknown = {"last_buffer_size": -1, "min_buffer_size": -1, "max_buffer_size": -1}
        keys: Keys = {
            "version": version_text(),
            "read_only": view.mode == "read-only",
            "server_stats": {
                "packets_sent": view.sent,
                "packets_received": view.received,
                "fsync_threshold_exceed_count": figures["fsync_threshold_exceed_count"],
                "client_response_stats": unknown,
                "uptime": figures["uptime"],
                "provider_null": False,
                "data_dir_size": data_bytes,
                "log_dir_size": log_bytes,
                "last_processed_zxid": view.zxid,
                "outstanding_requests": view.outstanding,
                "server_state": view.mode,
                "avg_latency": figures["avg_latency"],
                "max_latency": view.latency_ms_max,
                "min_latency": view.latency_ms_min,
                "num_alive_client_connections": view.connections,
                "auth_failed_count": figures["auth_failed_count"],
                "non_mtlsremote_conn_count": figures["non_mtls_remote_conn_count"],
                "non_mtlslocal_conn_count": figures["non_mtls_local_conn_count"],
            },
            "client_response": unknown,
            "node_count": view.node_count,
        }
        if view.mode == "leader":
            last, smallest, largest = view.proposal_bytes
            keys["proposal_stats"] = {
                "last_buffer_size": last,
                "min_buffer_size": smallest,
                "max_buffer_size": largest,
            }
        return keys

    async def stats(self, query: Query) -> Keys:
        return await self.server_stats(query) | await self._connection_lists(_brief)

    async def hash(self, query: Query) -> Keys:
        digests = [
            {"zxid": zxid, "digest": digest, "digest_version": 1} for zxid, digest in self._viewer.digests()
        ]
        return {"digests": digests}

    # -- clients ---------------------------------------------------------------------------------------------

    async def connections(self, query: Query) -> Keys:
        return await self._connection_lists(_full)

    async def _connection_lists(self, show: Callable[[ConnectionLine], Keys]) -> Keys:
        pace = Pace(self._clock)
        lists: tuple[list[Keys], list[Keys]] = ([], [])
        for client in self._viewer.clients():
            line = line_of(client)
            lists[line.is_secure].append(show(line))
            await pace.step()
        return {"connections": lists[False], "secure_connections": lists[True]}

    async def dump(self, query: Query) -> Keys:
        pace = Pace(self._clock)
        sessions = self._viewer.sessions()
        expiry: Keys = {}
        for wall_ms, members in sessions.buckets or ():
            expiry[str(wall_ms)] = sorted(members)
            await pace.step(len(expiry[str(wall_ms)]))
        ephemerals: Keys = {}
        for owner in list(self._viewer.ephemerals):
            paths = self._viewer.ephemerals.get(owner, {}).values()
            ephemerals[str(owner)] = [_text(path) for path in paths]
            await pace.step(len(paths))
        return {"expiry_time_to_session_ids": expiry, "session_id_to_ephemeral_paths": ephemerals}

    async def watches(self, query: Query) -> Keys:
        pace = Pace(self._clock)
        paths_of: dict[str, list[str]] = {}
        for path, watching in list(self._viewer.data_watches.items()):
            for watcher in list(watching):
                paths_of.setdefault(str(self._viewer.session_of(watcher)), []).append(_text(path))
            await pace.step(len(watching))
        return {"session_id_to_watched_paths": paths_of}

    async def watches_by_path(self, query: Query) -> Keys:
        pace = Pace(self._clock)
        sessions_of: dict[str, list[int]] = {}
        for path, watching in list(self._viewer.data_watches.items()):
            sessions_of[_text(path)] = [self._viewer.session_of(watcher) for watcher in watching]
            await pace.step(len(watching))
        return {"path_to_session_ids": sessions_of}

    async def watch_summary(self, query: Query) -> Keys:
        pace = Pace(self._clock)
        watchers: set[Any] = set()
        total = 0
        tables = list(self._viewer.data_watches.values())
        for watching in tables:
            watchers.update(watching)
            total += len(watching)
            await pace.step(len(watching))
        return {
            "num_connections": len(watchers),
            "num_paths": len(tables),
            "num_total_watches": total,
        }

    # -- the ensemble ----------------------------------------------------------------------------------------

    async def leader(self, query: Query) -> Keys:
        if self._config.standalone:
            raise CommandError("server is not initialized")
        leader = self._viewer.status.leader
        found = [peer.host for peer in self._viewer.members().servers if peer.sid == leader]
        return {
            "is_leader": self._viewer.status.role == Role.LEADING,
            "leader_id": -1 if leader is None else leader,
            "leader_ip": found[0] if found else "",
        }

    async def observers(self, query: Query) -> Keys:
        sids = self._viewer.observers
        peers = [peer for peer in self._viewer.members().servers if peer.sid in sids]
        lists = [
            {"sid": peer.sid, "remote_socket_address": f"{peer.host}:{peer.quorum_port}"} for peer in peers
        ]
        return {"synced_observers": len(sids), "observers": lists}

    async def voting_view(self, query: Query) -> Keys:
        return {"current_config": voting_view(self._config, self._viewer.members().servers)}

    async def zab_state(self, query: Query) -> Keys:
        return zab_state(self._config, self._viewer)

    # -- changes ---------------------------------------------------------------------------------------------

    async def reset_connections(self, query: Query) -> Keys:
        self._viewer.reset_connections()
        return {}

    async def reset_server(self, query: Query) -> Keys:
        self._viewer.reset_server()
        return {}

    async def get_trace_mask(self, query: Query) -> Keys:
        return {"tracemask": self._viewer.trace_mask}

    async def set_trace_mask(self, query: Query) -> Keys:
        try:
            self._viewer.trace_mask = _long(next(iter(query.get("traceMask", ())), ""))
        except ValueError:
            raise CommandError("setTraceMask requires long traceMask argument") from None
        return {"tracemask": self._viewer.trace_mask}


def _long(text: str) -> int:
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise ValueError(text)
    return int(text)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "replace")


def _brief(line: ConnectionLine) -> Keys:
    return {
        "remote_socket_address": line.address.removeprefix("/"),
        "interest_ops": line.interest,
        "outstanding_requests": line.queued,
        "packets_received": line.received,
        "packets_sent": line.sent,
    }


def _full(line: ConnectionLine) -> Keys:
    return _brief(line) | {
        "session_id": line.session_id,
        "last_operation": line.last_operation,
        "established": line.established_ms,
        "session_timeout": line.timeout_ms,
        "last_cxid": line.last_xid,
        "last_zxid": line.last_zxid,
        "last_response_time": line.last_response_ms,
        "last_latency": line.latency_ms_last,
        "min_latency": line.latency_ms_min,
        "avg_latency": line.latency_ms_average,
        "max_latency": line.latency_ms_max,
    }


_ALL: Final = (
    Command("configuration", ("conf", "config"), AdminCommands.configuration),
    Command("connection_stat_reset", ("crst",), AdminCommands.reset_connections),
    Command("connections", ("cons",), AdminCommands.connections),
    Command("dirs", (), AdminCommands.dirs),
    Command("dump", (), AdminCommands.dump),
    Command("environment", ("env", "envi"), AdminCommands.environment, is_always=True),
    Command("get_trace_mask", ("gtmk",), AdminCommands.get_trace_mask, is_always=True),
    Command("hash", (), AdminCommands.hash),
    Command("initial_configuration", ("icfg",), AdminCommands.initial_configuration, is_always=True),
    Command("is_read_only", ("isro",), AdminCommands.is_read_only),
    Command("last_snapshot", ("lsnp",), AdminCommands.last_snapshot),
    Command("leader", ("lead",), AdminCommands.leader),
    Command("monitor", ("mntr",), AdminCommands.monitor),
    Command("observer_connection_stat_reset", ("orst",), AdminCommands.ruok),
    Command("observers", ("obsr",), AdminCommands.observers),
    Command("ruok", (), AdminCommands.ruok, is_always=True),
    Command("server_stats", ("srvr",), AdminCommands.server_stats),
    Command("set_trace_mask", ("stmk",), AdminCommands.set_trace_mask, is_always=True),
    Command("stat_reset", ("srst",), AdminCommands.reset_server),
    Command("stats", ("stat",), AdminCommands.stats),
    Command("system_properties", ("sysp",), AdminCommands.system_properties, is_always=True),
    Command("voting_view", (), AdminCommands.voting_view),
    Command("watch_summary", ("wchs",), AdminCommands.watch_summary),
    Command("watches", ("wchc",), AdminCommands.watches),
    Command("watches_by_path", ("wchp",), AdminCommands.watches_by_path),
    Command("zabstate", (), AdminCommands.zab_state, is_always=True),
)
COMMANDS: Final = {name: command for command in _ALL for name in (command.name, *command.aliases)}
"""By every name."""
NAMES: Final = tuple(command.name for command in _ALL)
