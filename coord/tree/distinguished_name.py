"""Whether a text is a distinguished name, as an x509 entry of an ACL must be (specification 11.4).

The rules are those of Java's `X500Principal(String)`, which ZooKeeper asks: `TYPE=value` pairs with commas or
semicolons between them (`+` within one relative name), values plain with escapes, in quotes, or `#` and
hexadecimal. Replicas must agree, so this is our own ASCII code.
"""

from typing import Final

_TYPES: Final = frozenset(
    (
        *(
            "C",
            "CN",
            "DC",
            "DNQ",
            "DNQUALIFIER",
            "EMAIL",
            "EMAILADDRESS",
            "GENERATION",
            "GIVENNAME",
            "INITIALS",
        ),
        *("IP", "L", "O", "OU", "S", "SERIALNUMBER", "ST", "STREET", "SURNAME", "T", "UID"),
    )
)
_BLANKS: Final = " \n"
_ENDS: Final = ",;+"
_BARE: Final = frozenset('<>"')
_ESCAPABLE: Final = frozenset(',=\n+<>#;\\" ')
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_DIGITS: Final = frozenset("0123456789")


def is_distinguished_name(text: str) -> bool:
    if not text:
        return True
    offset: int | None = 0
    while offset is not None:
        equals = text.find("=", offset)
        if equals < 0 or not _is_type(text[offset:equals].strip(_BLANKS)):
            return False
        end = _end_of_value(text, equals + 1)
        if end is None:
            return False
        offset = end + 1 if end < len(text) else None
    return True


def _is_type(text: str) -> bool:
    """A keyword, or an object id with or without `OID.`."""
    if text.upper() in _TYPES:
        return True
    number = text[4:] if text[:4].upper() == "OID." else text
    parts = number.split(".")
    return (
        len(parts) >= 2
        and all(part and _DIGITS.issuperset(part) for part in parts)
        and _is_below(parts[0], 3)
        and (parts[0].lstrip("0") == "2" or _is_below(parts[1], 40))
    )


def _is_below(digits: str, limit: int) -> bool:
    significant = digits.lstrip("0")
    return len(significant) <= 2 and int(significant or "0") < limit


def _end_of_value(text: str, offset: int) -> int | None:
    """Where the separator behind a value stands, or the text ends; None for what is no value."""
    while offset < len(text) and text[offset] in _BLANKS:
        offset += 1
    if text[offset : offset + 1] == "#":
        return _end_of_hex(text, offset + 1)
    if text[offset : offset + 1] == '"':
        return _end_of_quoted(text, offset + 1)
    while offset < len(text):
        character = text[offset]
        if character in _ENDS:
            return offset
        if character in _BARE:
            return None
        if character == "\\":
            width = _escape_width(text, offset + 1)
            if not width:
                return None
            offset += width
        offset += 1
    return offset


def _end_of_hex(text: str, offset: int) -> int | None:
    start = offset
    while offset < len(text) and text[offset] in _HEX:
        offset += 1
    if (offset - start) % 2 or not _is_one_element(bytes.fromhex(text[start:offset])):
        return None
    return offset if offset == len(text) or text[offset] in _ENDS else None


def _is_one_element(value: bytes) -> bool:
    """Whether the bytes are one value in DER: type, length, content."""
    if len(value) < 2:
        return False
    if value[1] < 0x80:
        return len(value) == 2 + value[1]
    size = value[1] & 0x7F
    return 1 <= size <= 4 and len(value) == 2 + size + int.from_bytes(value[2 : 2 + size])


def _end_of_quoted(text: str, offset: int) -> int | None:
    while offset < len(text):
        character = text[offset]
        if character == '"':
            return _end_behind(text, offset + 1)
        if character == "\\":
            width = _escape_width(text, offset + 1)
            if not width:
                return None
            offset += width
        offset += 1
    return None


def _end_behind(text: str, offset: int) -> int | None:
    while offset < len(text) and text[offset] in _BLANKS:
        offset += 1
    return offset if offset == len(text) or text[offset] in _ENDS else None


def _escape_width(text: str, offset: int) -> int:
    """Characters that belong to the backslash before `offset`; 0 where none may."""
    if len(text) >= offset + 2 and text[offset] in _HEX and text[offset + 1] in _HEX:
        return 2
    return 1 if text[offset : offset + 1] in _ESCAPABLE and offset < len(text) else 0
