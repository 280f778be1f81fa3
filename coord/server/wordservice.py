"""Answers four-letter words on client ports (specification chapter 16)."""

import struct
from collections.abc import Callable, Iterator
from typing import Final

from coord.reactor import Connection
from coord.server.config import ServerConfig
from coord.server.listings import (
    format_connections,
    format_dump,
    format_watch_summary,
    format_watches_by_connection,
    format_watches_by_path,
)
from coord.server.settings import directory_sizes, format_configuration, format_environment
from coord.server.slices import SlicedAnswers
from coord.server.view import Viewer, line_of
from coord.server.words import (
    NOT_SERVING,
    WORDS_WITHOUT_SERVICE,
    format_monitor,
    format_server,
    not_listed,
)

ALWAYS_LISTED: Final = frozenset({"srvr"})
"""ZooKeeper's own scripts ask for it, whatever the whitelist says."""
_unpack_mask = struct.Struct(">q").unpack


class WordService:
    """Knows the words and who may use them; what they print it asks of the viewer."""

    def __init__(self, config: ServerConfig, viewer: Viewer, sliced: SlicedAnswers) -> None:
        self._config = config
        self._viewer = viewer
        self._words = config.words | ALWAYS_LISTED
        if config.sessions.read_only_mode:
            self._words |= {"isro"}  # clients of a read-only server look for a better one by it
        self._sliced = sliced

    def answer(self, conn: Connection, word: bytes, argument: bytes) -> None:
        """Answers one of `WORD_NAMES` and ends the connection, now or after some slices."""
        name = word.decode("ascii")
        if name not in self._words:
            conn.send(not_listed(name))
            conn.close(reason="four-letter word")
            return
        self._sliced.answer(conn, self.pieces(name, argument))

    def pieces(self, name: str, argument: bytes = b"") -> Iterator[str]:
        """The answer to a word that is listed."""
        if self._viewer.mode is None and name not in WORDS_WITHOUT_SERVICE:
            return iter([NOT_SERVING.rstrip("\n") if name == "hash" else NOT_SERVING])
        if name == "stmk":
            return self._set_mask(argument)
        return _ANSWERS[name](self)

    def _mode(self) -> Iterator[str]:
        mode = self._viewer.mode
        yield "null" if mode is None else "ro" if mode == "read-only" else "rw"

    def _server(self) -> Iterator[str]:
        return format_server(self._viewer.view(), clients=False)

    def _server_and_clients(self) -> Iterator[str]:
        return format_server(self._viewer.view(), clients=True)

    def _monitor(self) -> Iterator[str]:
        view = self._viewer.view()
        yield format_monitor(view.mode, view.monitor())

    def _connections(self) -> Iterator[str]:
        return format_connections(self._viewer.lines())

    def _reset_connections(self) -> Iterator[str]:
        self._viewer.reset_connections()
        yield "Connection stats reset.\n"

    def _reset_server(self) -> Iterator[str]:
        self._viewer.reset_server()
        yield "Server stats reset.\n"

    def _configuration(self) -> Iterator[str]:
        yield format_configuration(self._config, self._viewer.own_line(), self._viewer.membership())

    def _environment(self) -> Iterator[str]:
        yield format_environment()

    def _dump(self) -> Iterator[str]:
        viewer = self._viewer
        clients = viewer.clients()
        buckets = viewer.connection_buckets(clients)
        return format_dump(
            viewer.sessions(),
            viewer.ephemerals,
            buckets,
            lambda place: (line_of(clients[place]).address, clients[place].session_id),
            viewer.date,
        )

    def _watch_summary(self) -> Iterator[str]:
        return format_watch_summary(self._viewer.data_watches)

    def _watches_by_connection(self) -> Iterator[str]:
        return format_watches_by_connection(self._viewer.data_watches, self._viewer.session_of)

    def _watches_by_path(self) -> Iterator[str]:
        return format_watches_by_path(self._viewer.data_watches, self._viewer.session_of)

    def _directories(self) -> Iterator[str]:
        data_bytes, log_bytes = directory_sizes(self._config)
        yield f"datadir_size: {data_bytes}\nlogdir_size: {log_bytes}\n"

    def _digests(self) -> Iterator[str]:
        for zxid, digest in self._viewer.digests():
            yield f"{zxid:x}: {digest}\n"

    def _mask(self) -> Iterator[str]:
        yield str(self._viewer.trace_mask)

    def _set_mask(self, argument: bytes) -> Iterator[str]:
        (self._viewer.trace_mask,) = _unpack_mask(argument)
        return self._mask()


_ANSWERS: Final[dict[str, Callable[[WordService], Iterator[str]]]] = {
    "ruok": lambda service: iter(["imok"]),
    "isro": WordService._mode,
    "srvr": WordService._server,
    "stat": WordService._server_and_clients,
    "cons": WordService._connections,
    "crst": WordService._reset_connections,
    "srst": WordService._reset_server,
    "conf": WordService._configuration,
    "envi": WordService._environment,
    "dump": WordService._dump,
    "wchs": WordService._watch_summary,
    "wchc": WordService._watches_by_connection,
    "wchp": WordService._watches_by_path,
    "mntr": WordService._monitor,
    "dirs": WordService._directories,
    "hash": WordService._digests,
    "gtmk": WordService._mask,
}
