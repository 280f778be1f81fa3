"""The examples of docs/formats.md, decoded."""

import re
from pathlib import Path

from coord.message import decode_message, encode_message
from coord.server.introduction import Hello
from coord.server.link import encode_frame
from coord.server.wire import PEER_PROTOCOL, Attach

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"


def example(name: str) -> bytes:
    found = re.search(rf"<!-- {name} example -->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return b"".join(bytes.fromhex(line[6:53]) for line in found[1].splitlines())


def test_the_hello_of_the_page_is_what_a_dialler_sends() -> None:
    data = example("hello")
    hello = decode_message(Hello, data[4:])
    assert hello == Hello(1, "zoolog", 3, 1, "messages", bytes(range(32)))
    assert data == (len(data) - 4).to_bytes(4, "big") + encode_message(hello)


def test_the_frame_of_the_page_is_what_a_link_carries() -> None:
    data = example("attach")
    message = PEER_PROTOCOL.decode(int.from_bytes(data[4:6], "big"), data[10:])
    assert message == Attach(2, 7, 0x100000000000001, 10_000, bytes(16))
    assert b"".join(encode_frame(*PEER_PROTOCOL.encode(message))) == data
