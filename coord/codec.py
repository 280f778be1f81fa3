"""One dataclass and its CBOR array: worked out once from the annotations, then checked and converted by that.

What it understands and refuses is said in `coord.message`, which declares messages and protocols on top.
"""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

import cbor2

DEPTH_MAX = 16
"""Arrays and maps inside each other."""

Convert = Callable[[Any], Any]

_PLAIN = frozenset((int, bytes, str, bool, float, NoneType))
# Every tag cbor2 would act on: regular expressions, decimals, shared references and the like are traps here.
_TAGS = (*range(6), 25, *range(28, 31), *range(35, 38), 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)


class MessageError(Exception):
    """Bytes that are not the message they should be. The sender is at fault; nothing was acted upon."""


class Codec:
    """Both directions of one class, worked out once from its annotations."""

    __slots__ = ("_cls", "_decoders", "_encoders", "_get", "_least", "_names", "_plain_types")

    def __init__(self, cls: type) -> None:
        if not is_dataclass(cls):
            raise TypeError(f"expected a dataclass as message, got {cls.__name__}")
        hints = get_type_hints(cls)
        declared = [field for field in fields(cls) if field.init]
        kinds = [_kind(hints[field.name], f"{cls.__name__}.{field.name}") for field in declared]
        self._cls = cls
        self._names = tuple(field.name for field in declared)
        required = [f.default is MISSING and f.default_factory is MISSING for f in declared]
        self._least = max((index + 1 for index, needed in enumerate(required) if needed), default=0)
        self._get: Callable[[Any], tuple[Any, ...]] = _getter(self._names)
        self._decoders = tuple(kind.decode for kind in kinds)
        convert = tuple(kind.encode for kind in kinds)
        self._encoders = convert if any(convert) else None
        plain = tuple(kind.plain for kind in kinds)
        self._plain_types = plain if all(plain) else None

    def encode(self, record: object) -> bytes:
        return cbor2.dumps(self.to_plain(record))

    def to_plain(self, record: object) -> tuple[Any, ...]:
        values = self._get(record)
        if self._encoders is None:
            return values
        return tuple(
            value if convert is None else convert(value)
            for convert, value in zip(self._encoders, values, strict=True)
        )

    def decode(self, data: bytes) -> object:
        return self.from_plain(_loads(data))

    def from_plain(self, values: object) -> object:
        if type(values) is not list or len(values) < self._least:
            raise MessageError(f"{self._cls.__name__}: expected an array of {self._least} fields or more")
        # Comparing the types is the whole validation of a message whose fields are all plain.
        if tuple(map(type, values)) != self._plain_types:
            values = self._checked(values)
        try:
            return self._cls(*values)
        except (ValueError, TypeError) as error:  # the class's own checks in __post_init__
            raise MessageError(f"{self._cls.__name__}: {error}") from error

    def _checked(self, values: list[Any]) -> list[Any]:
        checked = []
        for name, decode, value in zip(self._names, self._decoders, values, strict=False):
            try:
                checked.append(decode(value))
            except MessageError as error:
                raise MessageError(f"{self._cls.__name__}.{name}: {error}") from None
        return checked


codec_of: Callable[[type], Codec] = cache(Codec)


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda record: ()
    get = attrgetter(*names)
    return lambda record: (get(record),)


def _refuse_tag(value: object, immutable: bool) -> object:
    raise ValueError("tags are not part of our protocols")


_REFUSED_TAGS = dict.fromkeys(_TAGS, _refuse_tag)


def _loads(data: bytes) -> object:
    try:
        return cbor2.loads(
            data,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            max_depth=DEPTH_MAX,
            semantic_decoders=_REFUSED_TAGS,
            tag_hook=_refuse_tag,
        )
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise MessageError(f"not CBOR as we use it: {error}") from error


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one annotation is checked and converted."""

    decode: Convert
    encode: Convert | None = None
    """None: the value goes to CBOR as it is."""
    plain: type | None = None
    """Set when `type(value) is plain` is the whole check."""


def _kind(annotation: Any, where: str) -> _Kind:
    """Work out an annotation; `where` names the field for whoever declared one we do not support."""
    while isinstance(annotation, NewType):
        annotation = annotation.__supertype__
    if annotation is None:
        annotation = NoneType
    if annotation in _PLAIN:
        return _Kind(_exactly(frozenset((annotation,))), plain=annotation)
    if annotation in (object, Any):
        return _Kind(_anything)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _union(arguments, where)
    if origin is list:
        return _sequence(arguments[0], list, where)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _sequence(arguments[0], tuple, where)
    if origin is tuple:
        return _fixed_tuple(arguments, where)
    if origin is dict:
        return _mapping(arguments[0], arguments[1], where)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _enumeration(annotation)
    if isinstance(annotation, type) and is_dataclass(annotation):
        # Looked up at use, so that classes may contain each other.
        cls = annotation
        return _Kind(
            lambda value: codec_of(cls).from_plain(value), lambda value: codec_of(cls).to_plain(value)
        )
    raise TypeError(f"{where}: {annotation} has no place in a message")


def _exactly(types: frozenset[type]) -> Convert:
    expected = " or ".join(sorted(cls.__name__ for cls in types))

    def decode(value: object) -> object:
        if type(value) not in types:
            raise MessageError(f"expected {expected}, got {type(value).__name__}")
        return value

    return decode


def _anything(value: object) -> object:
    if type(value) is list:
        for item in value:
            _anything(item)
    elif type(value) is dict:
        for key, item in value.items():
            _anything(key)
            _anything(item)
    elif type(value) not in _PLAIN:
        raise MessageError(f"expected a plain value, got {type(value).__name__}")
    return value


def _union(arguments: tuple[Any, ...], where: str) -> _Kind:
    kinds = [_kind(argument, where) for argument in arguments]
    plain = [kind.plain for kind in kinds if kind.plain is not None]
    if len(plain) == len(kinds):
        return _Kind(_exactly(frozenset(plain)))
    if len(kinds) != 2 or plain != [NoneType]:
        raise TypeError(f"{where}: a union is of plain types, or of one other type and None")
    (other,) = (kind for kind in kinds if kind.plain is not NoneType)
    encode = other.encode
    return _Kind(
        lambda value: None if value is None else other.decode(value),
        None if encode is None else lambda value: None if value is None else encode(value),
    )


def _sequence(item: Any, build: type, where: str) -> _Kind:
    kind = _kind(item, where)
    plain = frozenset((kind.plain,)) if kind.plain else None

    def decode(value: object) -> object:
        if type(value) is not list:
            raise MessageError(f"expected an array, got {type(value).__name__}")
        if plain is not None and plain.issuperset(map(type, value)):
            return value if build is list else tuple(value)
        return build(map(kind.decode, value))

    encode = kind.encode
    return _Kind(decode, None if encode is None else lambda value: list(map(encode, value)))


def _fixed_tuple(items: tuple[Any, ...], where: str) -> _Kind:
    kinds = [_kind(item, where) for item in items]

    def decode(value: object) -> object:
        if type(value) is not list or len(value) != len(kinds):
            raise MessageError(f"expected an array of {len(kinds)}")
        return tuple(kind.decode(item) for kind, item in zip(kinds, value, strict=True))

    def encode(value: Sequence[Any]) -> object:
        return [
            item if kind.encode is None else kind.encode(item)
            for kind, item in zip(kinds, value, strict=True)
        ]

    return _Kind(decode, encode if any(kind.encode for kind in kinds) else None)


def _mapping(key: Any, item: Any, where: str) -> _Kind:
    keys, items = _kind(key, where), _kind(item, where)
    if keys.plain is None:
        raise TypeError(f"{where}: keys of a map are plain")

    def decode(value: object) -> object:
        if type(value) is not dict:
            raise MessageError(f"expected a map, got {type(value).__name__}")
        return {keys.decode(key): items.decode(item) for key, item in value.items()}

    encode = items.encode
    return _Kind(
        decode,
        None if encode is None else lambda value: {key: encode(item) for key, item in value.items()},
    )


def _enumeration(cls: type[Enum]) -> _Kind:
    def decode(value: object) -> object:
        try:
            member = cls(value)
        except (ValueError, TypeError):  # TypeError: a list or map, which has no hash
            raise MessageError(f"expected a {cls.__name__}, got {value!r:.40}") from None
        if type(member.value) is not type(value):
            raise MessageError(f"expected a {cls.__name__}, got {value!r:.40}")
        return member

    return _Kind(decode, lambda value: value.value)
