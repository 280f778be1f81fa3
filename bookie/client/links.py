"""One rpc link per bookie incarnation, made on demand, made again after a pause when it breaks.

A connection begins with Hello: a bookie that is another incarnation than the one meant is not it (R-I3), and
every request to it fails as unreachable. Requests made while a connection is being made wait for it, bounded;
within the pause after a failure they fail at once. Every request gets exactly one answer, never from within
`request`: the reply, or an outcome code of `bookie.ledger.errors`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from bookie.ledger.errors import BAD_ANSWER, UNREACHABLE
from bookie.ledger.metadata import Member
from bookie.ledger.wire import BOOKIE_PROTOCOL, FRAME_BYTES_MAX, PROTOCOL_VERSION, Code, Hello, HelloReply
from coord import eventlog, rpc
from coord.clock import Clock

REQUESTS_MAX = 65_536
"""Unanswered requests per bookie; above it a request is answered TooManyRequests, nothing was sent. It is
far above what a bookie reads ahead, since a refusal costs a writer its bookie."""

OUTGOING_BYTES_MAX = 64 * 1024 * 1024
"""Bytes that one bookie has not taken yet; above it likewise."""

PAUSE_FIRST_MS = 100
"""After a failed connection; doubles up to PAUSE_LAST_MS, ends at once when the bookie registers anew."""

PAUSE_LAST_MS = 5_000

HELLO_MS_MAX = 5_000

SUSPECT_MS = 10_000
"""A bookie that failed is chosen for ensembles only after the others for this long."""

log = eventlog.get("bookie.client")

OnAnswer = Callable[[rpc.Reply | None, int], None]
"""Called once with (reply, OK) or (None, outcome code). It must not raise."""


@dataclass(slots=True)
class _Place:
    """One bookie incarnation: its link, or what waits for one."""

    member: Member
    link: rpc.Link | None = None
    waiting: list[tuple[object, tuple[bytes, ...], OnAnswer]] = field(default_factory=list)
    waiting_bytes: int = 0
    work: trio.Event = field(default_factory=trio.Event)
    retry_ms: int = 0
    pause_ms: int = PAUSE_FIRST_MS
    failed_ms: int | None = None


class BookieLinks:
    """Links to all bookies a client talks to.

    Args:
        nursery: runs one task per bookie; its cancellation ends all links.
        resolve: address of a member, or None while nothing is known (or another incarnation is there).
        on_connected: called when a member can be reached (again).
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        clock: Clock,
        resolve: Callable[[Member], tuple[str, int] | None],
        on_connected: Callable[[Member], None],
    ) -> None:
        self._nursery = nursery
        self._clock = clock
        self._resolve = resolve
        self._on_connected = on_connected
        self._places: dict[Member, _Place] = {}

    def request(self, member: Member, message: object, *body: bytes, on_answer: OnAnswer) -> None:
        """Send a request, connecting first where needed."""
        place = self._place(member)
        if place.link is not None:
            self._send(place.link, message, body, on_answer)
            return
        if len(place.waiting) >= REQUESTS_MAX or place.waiting_bytes >= OUTGOING_BYTES_MAX:
            self._later(on_answer, Code.TOO_MANY_REQUESTS)
            return
        place.waiting.append((message, body, on_answer))
        place.waiting_bytes += sum(map(len, body))
        place.work.set()

    def reset(self, member: Member, reason: str) -> None:
        """Give a link up that does not answer; its open requests fail."""
        place = self._places.get(member)
        if place is not None and place.link is not None:
            place.failed_ms = self._clock.monotonic_ms()
            place.link.close(reason)

    def retry_soon(self, bookie_id: str) -> None:
        """The bookie registered anew: whatever pause there was is over."""
        for member, place in self._places.items():
            if member.bookie_id == bookie_id:
                place.retry_ms, place.pause_ms, place.failed_ms = 0, PAUSE_FIRST_MS, None

    def suspects(self) -> set[Member]:
        """Members that failed a short while ago."""
        late = self._clock.monotonic_ms() - SUSPECT_MS
        return {
            m for m, place in self._places.items() if place.failed_ms is not None and place.failed_ms > late
        }

    def suspect(self, member: Member) -> None:
        """Note a failure that the link itself does not show (an error answer, silence)."""
        self._place(member).failed_ms = self._clock.monotonic_ms()

    def _place(self, member: Member) -> _Place:
        place = self._places.get(member)
        if place is None:
            place = self._places[member] = _Place(member)
            self._nursery.start_soon(self._serve, place)
        return place

    def _send(self, link: rpc.Link, message: object, body: tuple[bytes, ...], on_answer: OnAnswer) -> None:
        def on_reply(answer: rpc.Reply | rpc.RpcError) -> None:
            if type(answer) is rpc.Reply:
                on_answer(answer, Code.OK)
            elif isinstance(answer, rpc.RemoteError):
                on_answer(None, answer.code)
            else:
                on_answer(None, UNREACHABLE)

        try:
            link.request(message, *body, on_reply=on_reply)
        except rpc.LinkFullError:
            self._later(on_answer, Code.TOO_MANY_REQUESTS)
        except rpc.LinkClosedError:
            self._later(on_answer, UNREACHABLE)

    def _later(self, on_answer: OnAnswer, code: int) -> None:
        # Callers hold state half changed while they send; an answer from within would find it so.
        trio.lowlevel.current_trio_token().run_sync_soon(on_answer, None, code)

    async def _serve(self, place: _Place) -> None:
        while True:
            await place.work.wait()
            place.work = trio.Event()
            if self._clock.monotonic_ms() >= place.retry_ms:
                link = await self._connect(place)
                if link is not None:
                    await self._use(place, link)
                    continue
            self._fail_waiting(place)

    async def _connect(self, place: _Place) -> rpc.Link | None:
        """A link whose bookie is the member meant, or None after noting the failure."""
        member = place.member
        address = self._resolve(member)
        reason = "not registered"
        if address is not None:
            try:
                link = await rpc.open_link(
                    self._nursery,
                    *address,
                    BOOKIE_PROTOCOL,
                    frame_bytes_max=FRAME_BYTES_MAX,
                    inflight_max=REQUESTS_MAX,
                    outgoing_bytes_max=OUTGOING_BYTES_MAX,
                )
                hello = await self._hello(link, member)
                if isinstance(hello, HelloReply) and (hello.bookie_id, hello.incarnation) == member:
                    return link
                reason = "another bookie or incarnation answered, or none"
                link.close(reason)
            except rpc.RemoteError as error:
                reason = str(error)
                link.close("hello refused")
            except rpc.RpcError as error:
                reason = str(error)
        now_ms = self._clock.monotonic_ms()
        place.failed_ms = now_ms
        place.retry_ms = now_ms + place.pause_ms
        place.pause_ms = min(2 * place.pause_ms, PAUSE_LAST_MS)
        log.debug("bookie cannot be reached", bookie=member.bookie_id, reason=reason)
        return None

    async def _hello(self, link: rpc.Link, member: Member) -> object:
        """The answer to Hello, or None from a bookie that hangs."""
        with trio.move_on_after(HELLO_MS_MAX / 1000):
            reply = await link.call(Hello(PROTOCOL_VERSION, member.bookie_id, member.incarnation))
            return reply.message
        return None

    async def _use(self, place: _Place, link: rpc.Link) -> None:
        """Hand the link what waits, then let it be used until it ends."""
        place.link = link
        place.pause_ms = PAUSE_FIRST_MS
        waiting, place.waiting, place.waiting_bytes = place.waiting, [], 0
        for message, body, on_answer in waiting:
            self._send(link, message, body, on_answer)
        self._on_connected(place.member)
        await link.closed.wait()
        place.link = None
        place.failed_ms = self._clock.monotonic_ms()
        log.debug("link to bookie ended", bookie=place.member.bookie_id, reason=link.close_reason)

    def _fail_waiting(self, place: _Place) -> None:
        waiting, place.waiting, place.waiting_bytes = place.waiting, [], 0
        for _, _, on_answer in waiting:
            on_answer(None, UNREACHABLE)


def expect(reply: rpc.Reply | None, code: int, kind: type) -> int:
    """The outcome code of an answer that should be a message of this kind."""
    if reply is None:
        return code
    return int(Code.OK) if isinstance(reply.message, kind) else BAD_ANSWER
