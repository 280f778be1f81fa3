"""The syntax of zoo.cfg (specification 19.9)."""

from pathlib import Path

import pytest

from coord.server.properties import parse_properties, read_properties


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a=b", {"a": "b"}),
        ("a : b", {"a": "b"}),
        ("a b", {"a": "b"}),
        ("  a =  b  ", {"a": "b"}),
        ("# c\n! d\n\na=b", {"a": "b"}),
        ("a=1\na=2", {"a": "2"}),
        ("a=b\\\n   c\nd=e", {"a": "bc", "d": "e"}),
        ("server.1=h:1:2;3", {"server.1": "h:1:2;3"}),
        ("a\\=b=c", {"a=b": "c"}),
        ("a=\\u0041\\t.", {"a": "A\t."}),
        ("a", {"a": ""}),
        ("a=b\r\nc=d\r\n", {"a": "b", "c": "d"}),
        ("a=b\\\\\nc=d", {"a": "b\\", "c": "d"}),
        ("a=b\\", {"a": "b"}),
    ],
)
def test_a_properties_file_reads_as_java_reads_it(text: str, pairs: dict[str, str]) -> None:
    assert parse_properties(text) == pairs


def test_a_broken_unicode_escape_names_its_line() -> None:
    with pytest.raises(ValueError, match="line 2"):
        parse_properties("a=b\nc=\\u12")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "iso-8859-1"])
def test_a_file_may_have_any_of_the_usual_encodings(tmp_path: Path, encoding: str) -> None:
    """A comment in Latin-1 must not keep a server from starting: Java reads it so."""
    path = tmp_path / "zoo.cfg"
    path.write_bytes("dataDir=/données\n# für alle\n".encode(encoding))
    assert read_properties(str(path)) == {"dataDir": "/données"}
