"""Requests over real connections: what is answered, when, and with which code (spec 3, 5.5, 5.7, 15.1)."""

import pytest
import trio
from google_crc32c import value as crc32c

from bookie.ledger.extent import ID_MAX, encode_extent
from bookie.ledger.wire import (
    Add,
    AddFlag,
    Code,
    Fence,
    FenceReply,
    Held,
    Hello,
    HelloReply,
    ListLedgers,
    Read,
    ReadFlag,
    ReadLac,
    Stop,
    Tail,
    WriteLac,
)
from coord import rpc
from tests.bookie.server.conftest import KEY, add, add_parts, link_to, read


async def refused(call) -> int:
    with pytest.raises(rpc.RemoteError) as error:
        await call
    return error.value.code


async def test_what_is_added_is_answered_by_range_and_read_back(cluster):
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        reply = await add(link, 1, 0, [b"a", b"", b"c"])
        assert reply.runs == ((0, 2, 0),)
        message, payloads = await read(link, 1, 0, 2)
        assert (message.stop, message.next_entry_id, message.last_entry_id) == (Stop.END, 3, 2)
        assert payloads == [b"a", b"", b"c"]


async def test_another_bookie_or_incarnation_is_served_nothing(cluster):
    """R-I3."""
    async with cluster.bookie() as bookie, link_to(bookie, hello=False) as link:
        assert await refused(link.call(ReadLac(1))) == Code.BAD_REQUEST
        wrong = bookie.incarnation ^ 1
        assert await refused(link.call(Hello(1, bookie.bookie_id, wrong))) == Code.WRONG_BOOKIE
        assert await refused(link.call(Hello(1, "other", bookie.incarnation))) == Code.WRONG_BOOKIE
        assert await refused(link.call(Hello(2, bookie.bookie_id, 0))) == Code.BAD_VERSION
        assert await refused(link.call(ReadLac(1))) == Code.BAD_REQUEST
        reply = (await link.call(Hello(1, bookie.bookie_id, 0))).message
        assert isinstance(reply, HelloReply)
        assert reply.incarnation == bookie.incarnation


async def test_damage_on_the_way_is_found_before_anything_is_stored(cluster):
    """R-M3."""
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        message, body = add_parts(1, 0, [b"abc"])
        assert await refused(link.call(message, body[:-1] + b"x")) == Code.BAD_REQUEST
        assert await refused(link.call(ReadLac(1))) == Code.NO_LEDGER


async def test_malformed_adds_are_refused_before_they_touch_state(cluster):
    """R-N13, 15.3: also unknown flags, which are never ignored."""
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        message, body = add_parts(1, 0, [b"abc"])
        for wrong_message, wrong_body in (
            (Add(2, 0, KEY, message.checksum), body),
            (Add(1, 4, KEY, message.checksum), body),
            (Add(1, 0, b"short", message.checksum), body),
            (Add(1, 0, KEY, crc32c(body + b"more")), body + b"more"),
            (Add(1, 0, KEY, crc32c(b"junk" * 20)), b"junk" * 20),
            (Add(1, 0, KEY, crc32c(b"")), b""),
        ):
            assert await refused(link.call(wrong_message, wrong_body)) == Code.BAD_REQUEST
        assert await refused(link.call(ReadLac(1))) == Code.NO_LEDGER


async def test_negatives_say_which_kind_they_are(cluster):
    """3.3."""
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        assert await refused(link.call(Read(1, 0, 0))) == Code.NO_LEDGER
        await add(link, 1, 0, [b"a"])
        message, payloads = await read(link, 1, 1, 5)
        assert (message.stop, message.next_entry_id, payloads) == (Stop.NO_ENTRY, 1, [])


async def test_a_batch_read_says_where_and_why_it_stopped(cluster):
    """R-N7, 5.5: a limit never looks like an absence, and the first entry always comes."""
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        await add(link, 1, 0, [bytes([k]) * 1000 for k in range(10)])
        await add(link, 1, 10, [b"x" * 1000])
        await add(link, 1, 12, [b"y"])
        message, payloads = await read(link, 1, 0, 20)
        assert (message.stop, message.next_entry_id, len(payloads)) == (Stop.NO_ENTRY, 11, 11)
        message, payloads = await read(link, 1, 0, 10, max_count=3)
        assert (message.stop, message.next_entry_id, len(payloads)) == (Stop.LIMIT, 3, 3)
        message, payloads = await read(link, 1, 2, 10, max_bytes=3500)
        assert (message.stop, len(payloads)) == (Stop.LIMIT, 3)
        assert payloads[0] == b"\x02" * 1000
        message, payloads = await read(link, 1, 2, 10, max_bytes=1)
        assert (message.stop, message.next_entry_id, len(payloads)) == (Stop.LIMIT, 3, 1)
        message, payloads = await read(link, 1, 3, 4)
        assert (message.stop, len(payloads)) == (Stop.END, 2)


async def test_reads_go_to_the_segments_when_nothing_is_in_memory(cluster):
    async with cluster.bookie(cache_bytes_max=0) as bookie, link_to(bookie) as link:
        for first in range(0, 40, 4):
            await add(link, 1, first, [b"%d" % k for k in range(first, first + 4)])
        message, payloads = await read(link, 1, 5, 37)
        assert message.stop == Stop.END
        assert payloads == [b"%d" % k for k in range(5, 38)]


async def test_a_fencing_read_fences_also_where_it_finds_nothing(cluster):
    """R-F2, R-B4."""
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        message, payloads = await read(link, 1, 0, 0, flags=int(ReadFlag.FENCE), master_key=KEY)
        assert (message.stop, payloads) == (Stop.NO_ENTRY, [])
        assert await refused(add(link, 1, 0, [b"a"])) == Code.FENCED
        reply = await add(link, 1, 0, [b"a"], flags=int(AddFlag.RECOVERY))
        assert reply.runs == ((0, 0, 0),)
        assert await refused(link.call(Read(1, 0, 0, flags=1, master_key=b"x" * 20))) == Code.UNAUTHORIZED


async def test_a_fenced_bookie_names_exactly_what_it_holds(cluster):
    """R-N8 (b), (c): after the fence, holes included, above the larger of floor and LAC."""
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        await add(link, 1, 0, [b"0", b"1", b"2"])
        await add(link, 1, 3, [b"3"], lac=1)
        await add(link, 1, 6, [b"6", b"7"])
        reply = (await link.call(Fence(1, KEY, -1))).message
        assert reply == FenceReply(lac=1, floor=1, held=((2, 3), (6, 7)), through=ID_MAX)
        reply = (await link.call(Fence(1, KEY, 6))).message
        assert (reply.floor, reply.held) == (6, ((7, 7),))
        assert await refused(add(link, 1, 8, [b"8"])) == Code.FENCED
        assert (await link.call(Fence(2, KEY, -1))).message == FenceReply(-1, -1, ())
        assert (await link.call(ReadLac(2))).message.fenced


async def test_a_list_that_is_cut_says_how_far_it_is_complete(cluster, monkeypatch):
    """R-N8: `through`."""
    monkeypatch.setattr("bookie.ledger.wire.RANGES_MAX", 3)
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        for entry_id in range(0, 12, 2):
            await add(link, 1, entry_id, [b"x"])
        reply = (await link.call(Fence(1, KEY, -1))).message
        assert (reply.held, reply.through) == (((0, 0), (2, 2), (4, 4)), 5)
        reply = (await link.call(Held(1, 6, 100))).message
        assert (reply.held, reply.through) == (((6, 6), (8, 8), (10, 10)), 100)


async def test_an_explicit_lac_is_stored_and_never_sinks(cluster):
    """4.8."""
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        await add(link, 1, 0, [b"a", b"b"])
        assert (await link.call(WriteLac(1, KEY, 1))).message.lac == 1
        assert (await link.call(WriteLac(1, KEY, 0))).message.lac == 1
        reply = (await link.call(ReadLac(1))).message
        assert (reply.lac, reply.last_entry_id, reply.fenced) == (1, 1, False)


def tail(link):
    """Has a request for news on its way, ahead of whatever is requested next; its answers to come."""
    answers = []
    link.request(Tail(1, previous_lac=-1, timeout_ms=60_000, first=0), on_reply=answers.append)
    return answers


async def test_a_tail_request_waits_for_the_lac_and_gets_entries_up_to_it(cluster):
    """5.7: nothing above the LAC."""
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        await add(link, 1, 0, [b"0", b"1"])
        answers = tail(link)
        await link.call(ReadLac(1))
        assert answers == []
        await add(link, 1, 2, [b"2"], lac=1)
        await link.call(ReadLac(1))
        assert [(a.message.stop, a.message.lac, a.message.next_entry_id) for a in answers] == [
            (Stop.END, 1, 2)
        ]


async def test_a_fence_alone_is_no_news_to_a_tail_request(cluster):
    """R-R2."""
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        await add(link, 1, 0, [b"0"])
        answers = tail(link)
        await link.call(Fence(1, KEY, -1))
        assert answers == []
        await link.call(WriteLac(1, KEY, 0))
        await link.call(ReadLac(1))
        assert len(answers) == 1


async def test_a_tail_request_expires_with_the_lac_as_it_is(cluster):
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        await add(link, 1, 0, [b"0"])
        reply = await link.call(Tail(1, previous_lac=-1, timeout_ms=1, first=0))
        assert (reply.message.stop, reply.message.lac, bytes(reply.body)) == (Stop.END, -1, b"")


async def test_parked_requests_are_bounded(cluster):
    async with cluster.bookie(long_polls_max=0) as bookie, link_to(bookie) as link:
        await add(link, 1, 0, [b"0"])
        reply = await link.call(Tail(1, previous_lac=-1, timeout_ms=60_000, first=0))
        assert (reply.message.lac, bytes(reply.body)) == (-1, b"")


async def test_a_stopping_bookie_answers_who_waits(cluster):
    """R-R2."""
    answers = []
    async with trio.open_nursery() as nursery:
        bookie_block = cluster.bookie()
        bookie = await bookie_block.__aenter__()

        async def tail(task_status) -> None:
            async with link_to(bookie) as link:
                await add(link, 1, 0, [b"0"])
                task_status.started()
                answers.append(await link.call(Tail(1, previous_lac=-1, timeout_ms=60_000, first=0)))

        await nursery.start(tail)
        async with link_to(bookie) as link:
            await link.call(ReadLac(1))
        await bookie_block.__aexit__(None, None, None)
    assert answers[0].message.lac == -1


async def test_ledgers_are_listed_in_pages(cluster):
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        for ledger_id in (3, 1, 7):
            await add(link, ledger_id, 0, [b"x"])
        reply = (await link.call(ListLedgers(max_count=2))).message
        assert (reply.ledger_ids, reply.more) == ((1, 3), True)
        reply = (await link.call(ListLedgers(after=3))).message
        assert (reply.ledger_ids, reply.more) == ((7,), False)


async def test_a_ledger_keeps_its_order_while_adds_are_pipelined(cluster):
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        done = []
        for first in range(0, 300, 3):
            message, body = add_parts(1, first, [b"a", b"b", b"c"], lac=first - 1)
            link.request(message, body, on_reply=lambda reply: done.append(reply.message.runs[0][:2]))
        reply = (await link.call(Fence(1, KEY, -1))).message
        assert reply.held == ((297, 299),)
        assert done == [(first, first + 2) for first in range(0, 300, 3)]


@pytest.mark.parametrize(
    "request_",
    [
        Read(1, 3, 2), Read(1, -1, 2), Read(-1, 0, 0), Read(1, 0, 0, flags=8), ReadLac(-1),
        Read(1, 0, 0, flags=1, master_key=b""), Tail(1, -1, 10, -5), Fence(1, b"", -1), Fence(1, KEY, -2),
        Fence(-1, KEY, -1), WriteLac(1, KEY, -1), Held(1, 5, 4), ListLedgers(after=-2),
    ],
)  # fmt: skip
async def test_arguments_out_of_range_are_refused(cluster, request_):
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        assert await refused(link.call(request_)) == Code.BAD_REQUEST


async def test_garbage_costs_only_its_own_connection(cluster):
    """15.3."""
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        stream = await trio.open_tcp_stream(bookie.host, bookie.port)
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n" * 10)
        with pytest.raises(trio.BrokenResourceError):
            if not await stream.receive_some():
                raise trio.BrokenResourceError
        await stream.aclose()
        assert (await add(link, 1, 0, [b"a"])).runs == ((0, 0, 0),)


async def test_an_hmac_extent_is_stored_and_cut_without_its_key(cluster):
    """R-N4: a slice of it carries the original head and vectors."""
    from bookie.ledger.extent import Sealer, SealKind, iterate_extents

    sealer = Sealer(SealKind.HMAC_SHA256, b"secret")
    async with cluster.bookie() as bookie, link_to(bookie) as link:
        encoded = encode_extent(1, 0, -1, 0, [b"a", b"bb", b"ccc"], sealer)
        await link.call(Add(1, 0, KEY, encoded.checksum), encoded.data)
        reply = await link.call(Read(1, 1, 1))
        (extent,) = iterate_extents(bytes(reply.body))
        extent.verify_seal(sealer)
        assert extent.verified_payloads() == [b"bb"]
