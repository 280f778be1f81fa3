"""The example bytes of spec chapter 25, in both directions, with the tree answering where it is the tree's to
answer.
"""

import struct

import pytest

from coord.protocol import opcodes
from coord.protocol.jute import DecodeError, Reader
from coord.protocol.records import (
    OPEN_ACL,
    STAT_BYTES,
    Stat,
    decode_connect_request,
    decode_watcher_event,
    encode_connect_response,
    encode_create,
    encode_expired_response,
    encode_multi,
    encode_path_version,
    encode_path_watch,
    read_stat,
)
from coord.tree import encode_event
from tests.coord.tree.machine import Machine


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("|", " "))


_NEW_SESSION = _bytes("00000000 0000000000000000 00002710 0000000000000000 00000010" + "00" * 16)


def test_new_session_request_with_read_only_flag() -> None:
    request = decode_connect_request(_NEW_SESSION + b"\0")
    assert len(_NEW_SESSION) + 1 == 45
    assert (request.last_zxid_seen, request.timeout_ms, request.session_id) == (0, 10_000, 0)
    assert request.password == bytes(16)
    assert request.read_only is False


def test_22_1_8_a_request_without_the_flag_is_answered_without_it() -> None:
    request = decode_connect_request(_NEW_SESSION)
    assert request.read_only is None
    assert len(encode_connect_response(10_000, 1, bytes(16), flag=request.read_only)) == 40


def test_4_1_bytes_behind_the_flag_are_ignored() -> None:
    assert decode_connect_request(_NEW_SESSION + b"\x05abc").read_only is True


@pytest.mark.parametrize("password", ["00000000", "ffffffff"])
def test_4_1_an_empty_or_null_password_is_accepted(password: str) -> None:
    body = _NEW_SESSION[:24] + _bytes(password)
    assert len(body) == 28
    assert decode_connect_request(body).password == b""


@pytest.mark.parametrize("size", range(44))
def test_22_1_7_a_connect_request_cut_anywhere_is_refused(size: int) -> None:
    with pytest.raises(DecodeError):
        decode_connect_request(_NEW_SESSION[:size])


def test_connect_response() -> None:
    password = bytes(range(16))
    expected = _bytes("00000025 00000000 00002710 0100000000000001 00000010") + password + b"\0"
    assert encode_connect_response(10_000, 0x0100000000000001, password, flag=False) == expected


def test_4_1_a_read_write_server_answers_zero_to_a_flag_of_one() -> None:
    assert encode_connect_response(1, 1, bytes(16), flag=True)[-1] == 0


def test_expired_reopen() -> None:
    expected = _bytes("00000025 00000000 00000000 0000000000000000 00000010" + "00" * 16 + "00")
    assert encode_expired_response(False) == expected
    assert encode_expired_response(None) == _bytes("00000024") + expected[4:-1]


def test_exists_request() -> None:
    assert encode_path_watch("/a", True) == _bytes("00000002 2f61 01")


def test_create_request() -> None:
    expected = _bytes(
        "00000002 2f61 00000001 78 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 00000000"
    )
    assert encode_create("/a", b"x", OPEN_ACL, 0) == expected


def test_node_data_changed_event() -> None:
    frame = encode_event(opcodes.NODE_DATA_CHANGED, b"/a", 0x0102030405060708)
    body = _bytes("ffffffff 0102030405060708 00000000 00000003 00000003 00000002 2f61")
    assert frame == struct.pack(">i", len(body)) + body
    assert decode_watcher_event(body[16:]) == (3, 3, "/a")


def test_empty_multi() -> None:
    assert encode_multi([]) == _bytes("ffffffff 01 ffffffff")
    assert Machine().run(opcodes.MULTI, _bytes("ffffffff 01 ffffffff")) == (0, _bytes("ffffffff 01 ffffffff"))


def test_failed_multi_of_check_and_create() -> None:
    machine = Machine()
    machine.create("/a")
    body = encode_multi(
        [
            (opcodes.CHECK, encode_path_version("/a", 7)),
            (opcodes.CREATE, encode_create("/b", b"", OPEN_ACL, 0)),
        ]
    )
    expected = _bytes("ffffffff 00 ffffff99 ffffff99 | ffffffff 00 fffffffe fffffffe | ffffffff 01 ffffffff")
    assert machine.run(opcodes.MULTI, body) == (0, expected)


def test_delete_answers_with_the_header_alone() -> None:
    machine = Machine()
    machine.create("/a")
    assert machine.run(opcodes.DELETE, encode_path_version("/a", -1)) == (0, b"")


def test_errors_have_no_body() -> None:
    assert Machine().read(opcodes.EXISTS, encode_path_watch("/a", False)) == (-101, b"")


def test_stat_is_68_bytes_in_the_order_of_chapter_3() -> None:
    packed = struct.pack(">qqqqiiiqiiq", *range(1, 12))
    assert len(packed) == STAT_BYTES == 68
    assert read_stat(Reader(packed)) == Stat(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
    with pytest.raises(DecodeError):
        read_stat(Reader(packed[:-1]))
