"""Four-letter words (specification chapter 16): what they are called, and the texts of the short answers; the
long ones are in `coord.server.listings`. Pure.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from coord.protocol import opcodes

WORDS: Final = frozenset(
    {"ruok", "isro", "srvr", "stat", "cons", "crst", "srst", "conf", "envi", "dump", "wchs", "wchc", "wchp"}
    | {"mntr", "dirs", "hash", "gtmk", "stmk"}
)
WORD_NAMES: Final = frozenset(word.encode("ascii") for word in WORDS)
WORDS_WITHOUT_SERVICE: Final = frozenset({"ruok", "isro", "envi", "gtmk", "stmk"})
"""Answered also while the server is not in service."""
SET_MASK: Final = b"stmk"
SET_MASK_BYTES: Final = 12
"""The word and its argument, a long."""
NOT_SERVING: Final = "This ZooKeeper instance is not currently serving requests\n"
COMPATIBLE_VERSION: Final = "3.9.5"
"""The ZooKeeper release whose behaviour this server has; tools read the leading X.Y.Z of the version."""
MASK_64: Final = (1 << 64) - 1
"""Ids print as 64 bits without a sign."""

_OPERATION_NAMES: Final[Mapping[int, str]] = {
    opcodes.CREATE_SESSION: "SESS",
    opcodes.PING: "PING",
    opcodes.CREATE: "CREA",
    opcodes.CREATE2: "CREA",
    opcodes.CREATE_CONTAINER: "CREA",
    opcodes.CREATE_TTL: "CREA",
    opcodes.DELETE: "DELE",
    opcodes.DELETE_CONTAINER: "DELE",
    opcodes.SET_DATA: "SETD",
    opcodes.SET_ACL: "SETA",
    opcodes.GET_DATA: "GETD",
    opcodes.GET_ACL: "GETA",
    opcodes.GET_CHILDREN: "GETC",
    opcodes.GET_CHILDREN2: "GETC",
    opcodes.GET_ALL_CHILDREN_NUMBER: "GETACN",
    opcodes.EXISTS: "EXIS",
    opcodes.SYNC: "SYNC",
    opcodes.CHECK: "CHEC",
    opcodes.MULTI: "MULT",
    opcodes.MULTI_READ: "MLTR",
    opcodes.RECONFIG: "RECO",
    opcodes.SET_WATCHES: "SETW",
    opcodes.SET_WATCHES2: "STW2",
    opcodes.ADD_WATCH: "ADDW",
    opcodes.CHECK_WATCHES: "CHKW",
    opcodes.REMOVE_WATCHES: "REMW",
    opcodes.GET_EPHEMERALS: "GETE",
    opcodes.WHO_AM_I: "HOMI",
    opcodes.CLOSE_SESSION: "CLOS",
}


def operation_name(op: int | None) -> str:
    """An operation as `cons` names it; NA where there was none, or none that has a name."""
    return "NA" if op is None else _OPERATION_NAMES.get(op, "NA")


@dataclass(frozen=True, slots=True)
class ConnectionLine:
    """One client connection as `stat` and `cons` print it (16.6).

    Attributes:
        interest: epoll's: 1 while it is read, 0 while it is not.
        session_id: 0 before it has a session; what follows means nothing then.
        last_xid: negative where there was none.
        last_response_ms: of a clock whose origin means nothing.
    """

    host: str
    port: int
    interest: int
    queued: int
    received: int
    sent: int
    session_id: int = 0
    last_operation: str = "NA"
    established_ms: int = 0
    timeout_ms: int = 0
    last_xid: int = -1
    last_zxid: int = -1
    last_response_ms: int = 0
    latency_ms_last: int = 0
    latency_ms_min: int = 0
    latency_ms_average: int = 0
    latency_ms_max: int = 0
    is_secure: bool = False

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"/{host}:{self.port}"

    def text(self, *, long: bool = False) -> str:
        text = f" {self.address}[{self.interest:x}](queued={self.queued},recved={self.received}"
        text += f",sent={self.sent}"
        if long and self.session_id:
            last_xid = f"lcxid=0x{self.last_xid:x}," if self.last_xid >= 0 else ""
            text += (
                f",sid={hexadecimal(self.session_id)},lop={self.last_operation},est={self.established_ms},"
                f"to={self.timeout_ms},{last_xid}lzxid={hexadecimal(self.last_zxid)},"
                f"lresp={self.last_response_ms},llat={self.latency_ms_last},minlat={self.latency_ms_min},"
                f"avglat={self.latency_ms_average},maxlat={self.latency_ms_max}"
            )
        return text + ")\n"


Figures = Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True)
class ServerView:
    """The facts the words print, taken at one moment. `mode` is None while the server is not in service."""

    mode: str | None
    zxid: int = 0
    node_count: int = 0
    received: int = 0
    sent: int = 0
    connections: int = 0
    outstanding: int = 0
    latency_ms_min: int = 0
    latency_ms_average: float = 0.0
    latency_ms_max: int = 0
    proposal_bytes: tuple[int, int, int] = (-1, -1, -1)
    lines: Callable[[], Iterable[ConnectionLine]] = tuple
    monitor: Callable[[], Figures] = dict


def hexadecimal(value: int) -> str:
    return f"0x{value & MASK_64:x}"


def not_listed(word: str) -> bytes:
    return f"{word} is not executed because it is not in the whitelist.\n".encode("ascii")


def version_text() -> str:
    try:
        ours = metadata.version("zoolog")
    except metadata.PackageNotFoundError:
        ours = "0"
    return f"{COMPATIBLE_VERSION}-zoolog-{ours}, built on 2026-11-23 00:00 UTC"


def format_number(value: int | float) -> str:
    """Integers plain, other numbers as Java's decimals with at most four digits: 0.0, 0.25, 1.6183."""
    if isinstance(value, int):
        return str(value)
    text = f"{value:.4f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def format_server(view: ServerView, *, clients: bool) -> Iterator[str]:
    """`srvr`, or `stat` with the block of clients (16.5)."""
    yield f"Zookeeper version: {version_text()}\n"
    if view.mode == "read-only":
        yield "READ-ONLY mode; serving only read-only clients\n"
    if clients:
        yield "Clients:\n"
        for line in view.lines():
            yield line.text()
        yield "\n"
    latency = f"{view.latency_ms_min}/{format_number(view.latency_ms_average)}/{view.latency_ms_max}"
    yield (
        f"Latency min/avg/max: {latency}\nReceived: {view.received}\nSent: {view.sent}\n"
        f"Connections: {view.connections}\nOutstanding: {view.outstanding}\nZxid: 0x{view.zxid:x}\n"
        f"Mode: {view.mode}\nNode count: {view.node_count}\n"
    )
    if view.mode == "leader":
        last, smallest, largest = view.proposal_bytes
        yield f"Proposal sizes last/min/max: {last}/{smallest}/{largest}\n"


def format_monitor(mode: str | None, figures: Figures) -> str:
    """`mntr` (16.10): version and state first, then the keys in the order given, which puts the classical
    ones first.
    """
    pairs: dict[str, int | float | str] = {"version": version_text(), "server_state": mode or "unknown"}
    pairs.update(figures)
    return "".join(
        f"zk_{key}\t{value if isinstance(value, str) else format_number(value)}\n"
        for key, value in pairs.items()
    )
