"""How a key of zoo.cfg is declared: one field of a dataclass says name, form, default and meaning.

    @dataclass(frozen=True, slots=True)
    class LimitsConfig:
        connections_max: int = key("maxCnxns", count, 0, "clients at once on this server; 0 is unlimited")

`read_fields(LimitsConfig, values)` fills it; `docs/configuration.md` has its row from the same line. Every
name is accepted with and without ZooKeeper's `zookeeper.`. A form is a function from the text of a value to
the value; its ValueError says what was expected. What concerns several fields of one subject is checked in
the `__post_init__` of its dataclass, which raises `ConfigError`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final, TypeVar

PREFIX: Final = "zookeeper."

_DIGITS_MAX: Final = 18

T = TypeVar("T")


class ConfigError(Exception):
    """The configuration cannot be used; the text is one line for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key, or a family of keys when `name` ends in a dot (`server.1`, `server.2`, …).

    `default` is the text of the table in the documentation, `form` turns a value's text into the value.
    """

    name: str
    form: Callable[[str], Any]
    default: str
    meaning: str
    aliases: tuple[str, ...] = ()

    @property
    def is_family(self) -> bool:
        return self.name.endswith(".")


def key(
    name: str,
    form: Callable[[str], T],
    default: T,
    meaning: str,
    *,
    aliases: tuple[str, ...] = (),
    shown: str | None = None,
) -> T:
    """Declares the key of a dataclass's field.

    Args:
        shown: the default as the documentation says it, where `default` does not say it.
    """
    text = _show(default) if shown is None else shown
    declared: T = field(default=default, metadata={"key": Key(name, form, text, meaning, aliases)})
    return declared


def required_key(name: str, form: Callable[[str], T], meaning: str, *, shown: str) -> T:
    """As `key`, for a field that has no default."""
    declared: T = field(metadata={"key": Key(name, form, shown, meaning)})
    return declared


def family(prefix: str, form: Callable[[str], T], meaning: str) -> tuple[tuple[str, T], ...]:
    """Declares all keys that begin with `prefix` (which ends in a dot): pairs of what follows it, and the
    value, in the order of the names.
    """
    declared: tuple[tuple[str, T], ...] = field(default=(), metadata={"key": Key(prefix, form, "", meaning)})
    return declared


class Values:
    """The pairs of a file without ZooKeeper's prefix, found by any of a key's names."""

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.pairs: dict[str, str] = {}
        for name, text in pairs.items():
            bare = name.removeprefix(PREFIX)
            if self.pairs.get(bare, text) != text:
                raise ConfigError(f"{bare} and {PREFIX}{bare} differ: {self.pairs[bare]!r} and {text!r}")
            self.pairs[bare] = text

    @property
    def names(self) -> tuple[str, ...]:
        """All names, without their prefix, in order."""
        return tuple(sorted(self.pairs))

    def text(self, wanted: Key) -> str | None:
        """The text of a key that is no family; None where the file does not have it."""
        found = {name: self.pairs[name] for name in (wanted.name, *wanted.aliases) if name in self.pairs}
        if len(set(found.values())) > 1:
            raise ConfigError(f"{' and '.join(found)} mean the same and differ")
        return next(iter(found.values()), None)

    def members(self, wanted: Key) -> list[tuple[str, str]]:
        """The keys of a family: what follows the prefix, and the text."""
        return [
            (name.removeprefix(wanted.name), self.pairs[name])
            for name in self.names
            if name.startswith(wanted.name) and name != wanted.name
        ]


def keys_of(record: type) -> dict[str, Key]:
    """The declared keys of a dataclass by its fields' names, in their order."""
    return {one.name: one.metadata["key"] for one in fields(record) if "key" in one.metadata}


def read_fields(record: type, values: Values) -> dict[str, Any]:
    """What the file says about the fields of a dataclass; a field it does not mention is left out.

    Raises:
        ConfigError: a value has the wrong form.
    """
    read: dict[str, Any] = {}
    for name, wanted in keys_of(record).items():
        if wanted.is_family:
            members = values.members(wanted)
            if members:
                read[name] = tuple((rest, _parse(wanted, wanted.name + rest, text)) for rest, text in members)
            continue
        text = values.text(wanted)
        if text is not None:
            read[name] = _parse(wanted, wanted.name, text)
    return read


def sections_of(record: type) -> dict[str, type]:
    """The fields of a dataclass that are records of one subject each: those made by a dataclass."""
    made: dict[str, object] = {one.name: one.default_factory for one in fields(record)}
    return {name: one for name, one in made.items() if isinstance(one, type) and is_dataclass(one)}


def _parse(wanted: Key, name: str, text: str) -> Any:
    try:
        return wanted.form(text)
    except ValueError as error:
        raise ConfigError(f"{name} {error}, got {text!r}") from None


def _show(default: object) -> str:
    match default:
        case bool():
            return "true" if default else "false"
        case None:
            return ""
        case frozenset() | tuple():
            return ",".join(sorted(str(one) for one in default))
        case _:
            return str(default)


# -- forms -------------------------------------------------------------------------------------------------


def integer(text: str) -> int:
    """Decimal digits with an optional sign; never Python's own wider notion of a number."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not digits or any(digit not in "0123456789" for digit in digits) or len(digits) > _DIGITS_MAX:
        raise ValueError("must be a number")
    return int(text)


def between(least: int, most: int) -> Callable[[str], int]:
    """A number within bounds, both included; of Java's properties also `0x` and hexadecimal digits."""

    def form(text: str) -> int:
        digits = text[2:].lower() if text[:2] in ("0x", "0X") else ""
        is_hexadecimal = 0 < len(digits) <= 8 and all(digit in "0123456789abcdef" for digit in digits)
        number = int(digits, 16) if is_hexadecimal else integer(text)
        if not least <= number <= most:
            raise ValueError(f"must be from {least} to {most}")
        return number

    return form


def fraction(text: str) -> float:
    """A number from 0 to 1, in decimal digits."""
    whole, _, rest = text.partition(".")
    digits = whole + rest
    if digits and len(digits) <= _DIGITS_MAX and all(digit in "0123456789" for digit in digits):
        number = float(f"{whole or 0}.{rest or 0}")
        if number <= 1:
            return number
    raise ValueError("must be a number from 0 to 1")


def positive(text: str) -> int:
    number = integer(text)
    if number <= 0:
        raise ValueError("must be positive")
    return number


def count(text: str) -> int:
    """A number that is not negative."""
    number = integer(text)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def port(text: str) -> int:
    """1 to 65535, or 0 for a port that the system gives."""
    try:
        number = integer(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise ValueError("must be a port")
    return number


def optional_port(text: str) -> int | None:
    return port(text)


def boolean(text: str) -> bool:
    """ZooKeeper takes true and false in any case, and nothing else (specification 19.9)."""
    match text.lower():
        case "true":
            return True
        case "false":
            return False
    raise ValueError("must be true or false")


def string(text: str) -> str:
    return text


def names(text: str) -> tuple[str, ...]:
    """A list with commas between its members, blanks around them dropped."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
