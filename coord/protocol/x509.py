"""The subject of a certificate as ZooKeeper's x509 scheme writes it: RFC 2253 as Java's
`X500Principal.getName()` has it (specification 11.4).

    subject C=US, O=Acme, CN=client     →     CN=client,O=Acme,C=US

The order is that of RFC 2253, most specific first, which is the reverse of the encoding. Nine attributes
have names; every other one is its number, with the DER of its value in hexadecimal. The bytes come from a
certificate that OpenSSL has verified, and are checked all the same.
"""

from collections.abc import Iterator
from typing import Final

from coord.protocol.jute import DecodeError

KEYWORDS: Final = {
    "2.5.4.3": "CN",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
}

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_OBJECT_ID: Final = 0x06
_VERSION: Final = 0xA0
#: UTF8String, PrintableString, T61String, IA5String, GeneralString, BMPString. Java takes the bytes of each
#: for UTF-8, so that is what makes the same identity.
_STRINGS: Final = frozenset((0x0C, 0x13, 0x14, 0x16, 0x1B, 0x1E))
_ESCAPED: Final = frozenset(',=+<>#;"\\')


def subject_name(certificate: bytes) -> str:
    """The subject of a certificate in DER.

    Raises:
        DecodeError: the bytes are no certificate.
    """
    _, outer, _ = _element(certificate, 0)
    _, signed, _ = _element(outer, 0)
    fields = list(_elements(signed))
    if fields and fields[0][0] == _VERSION:
        del fields[0]
    # serial number, signature algorithm, issuer, validity, subject
    if len(fields) < 5 or fields[4][0] != _SEQUENCE:
        raise DecodeError(f"expected a certificate with a subject, got {len(fields)} fields")
    relative_names = [_relative_name(tag, value) for tag, value, _ in _elements(fields[4][1])]
    return ",".join(reversed(relative_names))


def _relative_name(tag: int, content: bytes) -> str:
    if tag != _SET:
        raise DecodeError(f"expected a relative name, got an element of type {tag:#x}")
    return "+".join(_attribute(tag, value) for tag, value, _ in _elements(content))


def _attribute(tag: int, content: bytes) -> str:
    parts = list(_elements(content))
    if tag != _SEQUENCE or len(parts) != 2 or parts[0][0] != _OBJECT_ID:
        raise DecodeError("expected an attribute with a type and a value")
    number = _object_id(parts[0][1])
    value_tag, value, whole = parts[1]
    keyword = KEYWORDS.get(number)
    if keyword is None or value_tag not in _STRINGS:
        return f"{keyword or number}=#{whole.hex()}"
    return f"{keyword}={_escape(value.decode('utf-8', 'replace'))}"


def _escape(text: str) -> str:
    start = len(text) - len(text.lstrip(" \r"))
    end = len(text.rstrip(" \r"))
    out: list[str] = []
    for position, character in enumerate(text):
        if character == "\0":
            out.append("\\00")
        elif character in _ESCAPED or not start <= position < end:
            out.append("\\" + character)
        else:
            out.append(character)
    return "".join(out)


def _object_id(content: bytes) -> str:
    numbers: list[int] = []
    value = 0
    for byte in content:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    if not numbers or content[-1] & 0x80:
        raise DecodeError(f"expected an object id, got {content.hex()}")
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _elements(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(type, value, whole encoding) of each element."""
    offset = 0
    while offset < len(content):
        tag, value, end = _element(content, offset)
        yield tag, value, content[offset:end]
        offset = end


def _element(data: bytes, offset: int) -> tuple[int, bytes, int]:
    """(type, value, end) of the element at `offset`; DER only, lengths definite."""
    if len(data) < offset + 2:
        raise DecodeError(f"expected an element at {offset}, got the end")
    tag, length = data[offset], data[offset + 1]
    start = offset + 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or len(data) < start + size:
            raise DecodeError(f"expected a length at {offset + 1}, got {length:#x}")
        length = int.from_bytes(data[start : start + size])
        start += size
    end = start + length
    if tag & 0x1F == 0x1F or end > len(data):
        raise DecodeError(f"expected {length} bytes at {start}, got {len(data) - start}")
    return tag, data[start:end], end
