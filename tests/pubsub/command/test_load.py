"""The load generators' own arithmetic: histograms, the ring of requests, the counting of replies."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pubsub.command.load.coord import (
    CREATE,
    GET_DATA,
    REPLY_BYTES_MIN,
    SET_DATA,
    CoordLoad,
    Ring,
    buffer,
    count_each,
    make_ring,
)
from pubsub.command.load.latency import Latencies


@given(st.lists(st.integers(0, 100_000_000), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_as_exact_as_its_bucket(times_us: list[int], quantile: float) -> None:
    latencies = Latencies()
    for us in times_us:
        latencies.add(us / 1e6 + 1e-9)
    wanted = quantile * len(times_us)
    exact = next(us for rank, us in enumerate(sorted(times_us), 1) if rank >= wanted)
    found = latencies.quantile_ms(quantile)
    assert found is not None
    assert exact * (1 - 1 / 256) - 1 <= found * 1000 <= exact


def test_nothing_measured_has_no_quantile() -> None:
    assert Latencies().facts() == {"p50_ms": None, "p99_ms": None, "p99_9_ms": None, "max_ms": None}


def test_memory_is_bounded_by_the_range_of_latencies() -> None:
    latencies = Latencies()
    for us in range(0, 2_000_000, 7):
        latencies.add(us / 1e6)
    assert len(latencies.counts) < 5000


def test_histograms_of_several_processes_are_one() -> None:
    one, other = Latencies(), Latencies()
    one.add(0.001, 3)
    other.add(0.001, 2)
    other.add(1.0, 5)
    one.merge(other)
    assert one.total == 10
    assert one.quantile_ms(0.5) == 1.0


def reply(error: int, body: int) -> bytes:
    return struct.pack(">iiqi", 16 + body, 1, 9, error) + b"\x05" * body


@given(
    errors=st.lists(st.sampled_from([0, 0, 0, -101]), max_size=30),
    cut=st.integers(0, 100),
    body=st.sampled_from([0, 68, 200]),
)
def test_replies_are_counted_with_their_refusals_however_they_are_cut(
    errors: list[int], cut: int, body: int
) -> None:
    """Column by column where all replies have one size, reply by reply elsewhere: the same counts."""
    ring = Ring([b"request"], REPLY_BYTES_MIN + body, 1)
    stream = b"".join(reply(error, 0 if error else body) for error in errors)
    data = stream[: max(0, len(stream) - cut)]
    fast, slow = ring.count_replies(data), count_each(data)
    assert fast == slow
    if cut == 0:
        assert fast == (len(errors), sum(error != 0 for error in errors), len(stream))


def test_a_ring_gives_slices_across_its_end() -> None:
    ring = Ring([b"a", b"bb", b"ccc"], None, 4)
    assert bytes(ring.take(2, 4)) == b"cccabbccc"
    assert bytes(ring.take(0, 1)) == b"a"


@pytest.mark.parametrize(("ratio", "share"), [(0.0, 0.0), (0.5, 0.5), (0.9, 0.9), (1.0, 1.0)])
def test_reads_and_writes_have_the_ratio_asked_for(ratio: float, share: float) -> None:
    spec = CoordLoad("h", read_ratio=ratio, size=10, outstanding=1)
    ring = make_ring([b"/n%06d" % number for number in range(1000)], spec)
    ops = [struct.unpack_from(">i", ring.take(number, 1), 8)[0] for number in range(ring.count)]
    assert set(ops) <= {GET_DATA, SET_DATA}
    assert abs(ops.count(GET_DATA) / len(ops) - share) < 0.03


def test_creates_make_numbered_children_of_all_nodes() -> None:
    spec = CoordLoad("h", size=10, outstanding=1, creates=True)
    ring = make_ring([b"/n%06d" % number for number in range(10)], spec)
    requests = [bytes(ring.take(number, 1)) for number in range(ring.count)]
    assert [request[16:27] for request in requests] == [b"/n%06d/c-" % number for number in range(10)]
    assert {request[8:12] + request[-4:] for request in requests} == {struct.pack(">ii", CREATE, 2)}
    assert ring.reply_bytes == REPLY_BYTES_MIN + len(buffer(b"/n000000/c-0000000000"))
