"""What the commands read: lines and pieces as they arrive, from pipes and from files."""

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pubsub.command.arrivals import READ_BYTES, Chunks, Lines, TooLongError

LINE_BYTES_MAX = 1000


async def take_all(take: Callable[[], Awaitable[list[bytes]]]) -> list[bytes]:
    found: list[bytes] = []
    while taken := await take():
        found += taken
    assert await take() == []
    return found


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, int]]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        try:
            yield file, writing
        finally:
            os.close(writing)


async def test_a_line_is_taken_when_it_arrives_not_when_more_does(pipe: tuple[BinaryIO, int]) -> None:
    file, writing = pipe
    lines = Lines(file, LINE_BYTES_MAX)
    os.write(writing, b"one\ntwo\nthr")
    with trio.fail_after(60):
        assert await lines.take() == [b"one", b"two"]
        os.write(writing, b"ee\n")
        assert await lines.take() == [b"three"]


async def test_waiting_for_a_line_ends_when_it_is_cancelled_and_holds_nobody_up(
    pipe: tuple[BinaryIO, int],
) -> None:
    lines = Lines(pipe[0], LINE_BYTES_MAX)
    with trio.fail_after(60), trio.move_on_after(0.01) as scope:
        await lines.take()
    assert scope.cancelled_caught


async def test_an_endless_line_is_refused_after_the_lines_before_it(pipe: tuple[BinaryIO, int]) -> None:
    file, writing = pipe
    lines = Lines(file, LINE_BYTES_MAX)
    os.write(writing, b"good\n" + bytes(LINE_BYTES_MAX + 1))
    assert await lines.take() == [b"good"]
    with pytest.raises(TooLongError, match="more than 1000 bytes"):
        await lines.take()


@given(data=st.lists(st.sampled_from([b"", b"\n", b"\r\n", b"\0", b"\xff" * 7, b"text"])).map(b"".join))
def test_the_lines_of_a_file_are_those_between_its_newlines(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "lines"
    path.write_bytes(data)
    with path.open("rb") as file:
        lines = trio.run(take_all, Lines(file, LINE_BYTES_MAX).take)
    assert b"".join(line + b"\n" for line in lines) == data + (
        b"" if data.endswith(b"\n") or not data else b"\n"
    )


@pytest.mark.parametrize("size", [1, 7, READ_BYTES - 1, READ_BYTES + 1])
def test_pieces_have_the_size_asked_for_and_only_the_last_is_shorter(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (READ_BYTES // 256) + b"the rest"
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        pieces = trio.run(take_all, Chunks(file, size).take)
    assert b"".join(pieces) == data
    assert {len(piece) for piece in pieces[:-1]} == {size}
    assert 0 < len(pieces[-1]) <= size


def test_an_empty_input_has_no_lines_and_no_pieces() -> None:
    with open(os.devnull, "rb") as file:
        assert trio.run(take_all, Lines(file, LINE_BYTES_MAX).take) == []
        assert trio.run(take_all, Chunks(file, 10).take) == []
