"""Java properties files, the syntax of zoo.cfg (specification 19.9): from text to ordered pairs."""

from pathlib import Path

_BLANKS = " \t\f"
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def read_properties(path: str) -> dict[str, str]:
    """Reads a file: UTF-8, or ISO 8859-1, which Java takes every such file for, where it is none.

    Raises:
        OSError, ValueError: it cannot be read, or not be parsed.
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("iso-8859-1")
    return parse_properties(text)


def parse_properties(text: str) -> dict[str, str]:
    """Parses properties: `=`, `:` or blanks separate, `#` and `!` comment, a trailing backslash continues a
    line.

    A repeated key keeps its last value, as Java does. Blanks around keys and values are dropped.

    Raises:
        ValueError: a `\\u` escape is not followed by four hexadecimal digits; the message names the line.
    """
    pairs: dict[str, str] = {}
    for number, line in _logical_lines(text):
        key, value = _split(line)
        pairs[_unescape(key, number)] = _unescape(value, number).strip()
    return pairs


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Joins continued lines, drops comments and empty lines; each with the number of its first line."""
    lines: list[tuple[int, str]] = []
    held, held_number = "", 0
    for number, raw in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        line = raw.lstrip(_BLANKS)
        if not held_number and (not line or line[0] in "#!"):
            continue
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            held += line[:-1]
            held_number = held_number or number
            continue
        lines.append((held_number or number, held + line))
        held, held_number = "", 0
    if held_number:
        lines.append((held_number, held))
    return lines


def _split(line: str) -> tuple[str, str]:
    """Cuts a logical line at its first unescaped separator."""
    position = 0
    while position < len(line) and line[position] not in "=:" + _BLANKS:
        position += 2 if line[position] == "\\" else 1
    key, rest = line[:position], line[position:].lstrip(_BLANKS)
    if rest[:1] in ("=", ":"):
        rest = rest[1:]
    return key, rest.lstrip(_BLANKS)


def _unescape(text: str, number: int) -> str:
    if "\\" not in text:
        return text
    out: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character != "\\" or position == len(text):
            out.append(character)
            continue
        character = text[position]
        position += 1
        if character == "u":
            digits = text[position : position + 4]
            if len(digits) != 4 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
                raise ValueError(f"line {number}: \\u needs four hexadecimal digits, got {digits!r}")
            out.append(chr(int(digits, 16)))
            position += 4
        else:
            out.append(_ESCAPES.get(character, character))
    return "".join(out)
