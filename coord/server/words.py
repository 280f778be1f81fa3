"""Four-letter words (specification chapter 16): exact text answers to `ruok srvr stat mntr isro`. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata

WORD_NAMES = (b"ruok", b"srvr", b"stat", b"mntr", b"isro")
NOT_SERVING = b"This ZooKeeper instance is not currently serving requests\n"
COMPATIBLE_VERSION = "3.9.5"
"""The ZooKeeper release whose behaviour this server has; tools read the leading X.Y.Z of the version."""


@dataclass(frozen=True, slots=True)
class ConnectionLine:
    """One client connection as `stat` prints it; `interest` is epoll's: 1 while it is read, 0 while it is
    not.
    """

    host: str
    port: int
    interest: int
    queued: int
    received: int
    sent: int

    def text(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        counts = f"(queued={self.queued},recved={self.received},sent={self.sent})"
        return f" /{host}:{self.port}[{self.interest:x}]{counts}\n"


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
    monitor: dict[str, int | float | str] = field(default_factory=dict)
    lines: Callable[[], list[ConnectionLine]] = list


def answer_word(word: bytes, allowed: frozenset[str], view: Callable[[], ServerView]) -> bytes | None:
    """The whole answer to one of `WORD_NAMES`; None when the bytes are no word (a bad frame length, then)."""
    if word not in WORD_NAMES:
        return None
    name = word.decode("ascii")
    if name not in allowed:
        return f"{name} is not executed because it is not in the whitelist.\n".encode()
    if name == "ruok":
        return b"imok"
    facts = view()
    if name == "isro":
        return b"null" if facts.mode is None else b"rw"
    if facts.mode is None:
        return NOT_SERVING
    if name == "mntr":
        return format_monitor(facts).encode()
    return format_server(facts, clients=name == "stat").encode()


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


def format_server(view: ServerView, *, clients: bool) -> str:
    """`srvr`, or `stat` with the block of clients (16.5)."""
    latency = f"{view.latency_ms_min}/{format_number(view.latency_ms_average)}/{view.latency_ms_max}"
    parts = [f"Zookeeper version: {version_text()}\n"]
    if clients:
        parts.append("Clients:\n")
        parts += [line.text() for line in view.lines()]
        parts.append("\n")
    parts.append(
        f"Latency min/avg/max: {latency}\nReceived: {view.received}\nSent: {view.sent}\n"
        f"Connections: {view.connections}\nOutstanding: {view.outstanding}\nZxid: 0x{view.zxid:x}\n"
        f"Mode: {view.mode}\nNode count: {view.node_count}\n"
    )
    if view.mode == "leader":
        last, smallest, largest = view.proposal_bytes
        parts.append(f"Proposal sizes last/min/max: {last}/{smallest}/{largest}\n")
    return "".join(parts)


def format_monitor(view: ServerView) -> str:
    """`mntr` (16.10): version and state first, then the keys in the order given, which puts the classical
    ones first.
    """
    pairs: dict[str, int | float | str] = {"version": version_text(), "server_state": view.mode or "unknown"}
    pairs.update(view.monitor)
    return "".join(
        f"zk_{key}\t{value if isinstance(value, str) else format_number(value)}\n"
        for key, value in pairs.items()
    )
