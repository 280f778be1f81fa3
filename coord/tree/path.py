"""Which paths are legal (spec 8.1), judged on the bytes that clients send.

Paths compare as bytes. The rules are ours, in ASCII and code point ranges: no library function whose idea
of a character could change between Python versions decides what every replica must decide alike.
"""

#: What may stand in a name without another thought: printable ASCII.
_PLAIN = bytes(range(0x20, 0x7F)).replace(b"/", b"")
_DOTS = frozenset({b"", b".", b".."})
ROOT = b"/"
ZOOKEEPER = b"/zookeeper"
QUOTA = b"/zookeeper/quota"
CONFIG = b"/zookeeper/config"
#: Paths that nobody can delete.
SPECIAL = frozenset({b"", ROOT, ZOOKEEPER, QUOTA, CONFIG})


def is_valid_name(name: bytes) -> bool:
    """Whether `name`, which holds no `/`, may be one component of a path."""
    if name in _DOTS:
        return False
    return not name.translate(None, _PLAIN) or _is_valid_text(name)


def _is_valid_text(name: bytes) -> bool:
    """No controls, surrogates, private use, specials or anything beyond 16 bits.

    Bytes that are not UTF-8 become U+FFFD, which is among the illegal ones (spec 2.3).
    """
    for character in name.decode("utf-8", "replace"):
        code = ord(character)
        if code <= 0x1F or 0x7F <= code <= 0x9F or 0xD800 <= code <= 0xF8FF or code >= 0xFFF0:
            return False
    return True


def is_valid_path(path: bytes) -> bool:
    """Whether `path` is legal as a whole."""
    if path == ROOT:
        return True
    return path.startswith(b"/") and all(map(is_valid_name, path[1:].split(b"/")))


def split_path(path: bytes) -> tuple[bytes, bytes]:
    """(parent, name); the parent of a top-level path is `/`. The path must hold a `/`."""
    parent, _, name = path.rpartition(b"/")
    return parent or ROOT, name
