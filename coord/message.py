"""Messages of our own protocols: frozen dataclasses on this side, CBOR arrays on the wire.

One declaration is both directions::

    @message(3)
    @dataclass(frozen=True, slots=True)
    class Fence:
        ledger_id: int
        key: bytes
        floor: int = -1

    LEDGERS = Protocol("ledgers", [Fence, ...])
    code, header = LEDGERS.encode(Fence(7, b"k"))       # 3, CBOR of [7, h'6b', -1]
    LEDGERS.decode(3, header)                            # Fence(ledger_id=7, key=b'k', floor=-1)

Fields stand in the array in their order. Understood types: int (64 bits, signed or not), bytes, str, bool,
float, None, enums, NewTypes of these, `X | None`, unions of plain types, list[X], tuple[X, ...], tuple[X, Y],
dict[K, V], other dataclasses (nested as arrays), and object (anything plain).

Protocols grow at the end: fields a decoder does not know are ignored, missing ones take their defaults. What
is decoded was checked: exact types, definite lengths, no tags, no repeated keys, bounded depth. Bytes behind
the array are ignored. The cost for five plain fields is about 1 microsecond either way; payloads belong in
the body of a frame, not in a field.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast, dataclass_transform

from coord.codec import DEPTH_MAX, MessageError, codec_of

MESSAGE_BYTES_MAX = 64 * 1024
"""Bytes of one encoded message, unless its protocol says otherwise."""

CODE_MAX = 0xFFFF

T = TypeVar("T")

__all__ = [
    "CODE_MAX",
    "DEPTH_MAX",
    "MESSAGE_BYTES_MAX",
    "MessageError",
    "Protocol",
    "UnknownMessageError",
    "decode_message",
    "encode_message",
    "message",
]


class UnknownMessageError(MessageError):
    """A message code this protocol does not have, perhaps of a newer peer."""


@dataclass_transform(frozen_default=True)
def message(code: int) -> Callable[[type[T]], type[T]]:
    """Give a dataclass its code, unique within its protocol; a class that is none yet becomes a frozen
    one."""
    if not 0 <= code <= CODE_MAX:
        raise ValueError(f"expected a message code of 0 to {CODE_MAX}, got {code}")

    def declare(cls: type[T]) -> type[T]:
        if "__dataclass_fields__" not in cls.__dict__:
            cls = dataclass(frozen=True, slots=True)(cls)
        cls.message_code = code  # type: ignore[attr-defined]
        return cls

    return declare


def encode_message(record: object) -> bytes:
    """The CBOR array of a dataclass, registered or not."""
    return codec_of(type(record)).encode(record)


def decode_message(cls: type[T], data: bytes, message_bytes_max: int = MESSAGE_BYTES_MAX) -> T:
    """Read one `cls` back.

    Raises:
        MessageError: `data` is not one, or longer than `message_bytes_max`.
    """
    if len(data) > message_bytes_max:
        raise MessageError(f"expected at most {message_bytes_max} bytes of message, got {len(data)}")
    return cast(T, codec_of(cls).decode(data))


class Protocol:
    """A closed set of messages and their codes.

    Args:
        name: for error texts and logs.
        messages: classes declared with `@message`, or a mapping from code to any dataclass (for messages of
            pure cores, which know nothing of encodings).
        message_bytes_max: what one encoded message may take.
    """

    def __init__(
        self,
        name: str,
        messages: Iterable[type] | Mapping[int, type],
        *,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self.name = name
        self.message_bytes_max = message_bytes_max
        if not isinstance(messages, Mapping):
            messages = _by_declared_code(name, messages)
        self._decoders: dict[int, Callable[[bytes], object]] = {}
        self._encoders: dict[type, tuple[int, Callable[[Any], bytes]]] = {}
        for code, cls in messages.items():
            if not 0 <= code <= CODE_MAX or cls in self._encoders:
                raise ValueError(f"{name}: {cls.__name__} has no valid code of its own ({code})")
            codec = codec_of(cls)
            self._decoders[code] = codec.decode
            self._encoders[cls] = (code, codec.encode)

    def __contains__(self, cls: type) -> bool:
        return cls in self._encoders

    def encode(self, record: object) -> tuple[int, bytes]:
        """The message's code and CBOR array.

        Raises:
            TypeError: it is no message of this protocol, or a field is of a type that was not declared.
        """
        try:
            code, encode = self._encoders[type(record)]
        except KeyError:
            raise TypeError(f"{type(record).__name__} is no message of {self.name}") from None
        return code, encode(record)

    def decode(self, code: int, data: bytes) -> object:
        """The message of `code` that `data` encodes.

        Raises:
            UnknownMessageError: this protocol has no such code.
            MessageError: `data` does not encode such a message.
        """
        decode = self._decoders.get(code)
        if decode is None:
            raise UnknownMessageError(f"{self.name} has no message {code}")
        if len(data) > self.message_bytes_max:
            raise MessageError(f"expected at most {self.message_bytes_max} bytes of message, got {len(data)}")
        return decode(data)


def _by_declared_code(name: str, classes: Iterable[type]) -> dict[int, type]:
    by_code: dict[int, type] = {}
    for cls in classes:
        code = getattr(cls, "message_code", -1)
        if code in by_code:
            raise ValueError(f"{name}: {cls.__name__} and {by_code[code].__name__} both have code {code}")
        by_code[code] = cls
    return by_code
