"""Access control lists as people write them (spec 11)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import coord

words = st.text(
    st.characters(codec="ascii", exclude_characters=":, ", categories=["L", "N", "P"]), min_size=1
)
entries = st.builds(coord.Acl, st.integers(0, 31), words, st.lists(words, min_size=1).map(":".join))


def test_a_digest_is_zookeeper_s() -> None:
    """Spec 11.4's vector."""
    assert coord.digest_id("super", "test") == "super:D/InIHSb7yEEbrWz8b9l71RjZJU="
    assert coord.digest_acl("super", "test", "rw") == coord.Acl(3, "digest", coord.digest_id("super", "test"))


@given(st.lists(entries, min_size=1, max_size=4))
def test_a_list_is_read_as_it_was_written(acl: list[coord.Acl]) -> None:
    assert coord.parse_acl(coord.format_acl(acl)) == acl


def test_letters_stand_in_zkcli_s_order() -> None:
    assert coord.format_perms(31) == "cdrwa"
    assert coord.parse_perms("awrdc") == 31
    assert coord.format_acl(coord.OPEN_ACL) == "world:anyone:cdrwa"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("world:anyone", "expected scheme:id:perms"),
        ("", "expected scheme:id:perms"),
        ("world:anyone:r,", "expected scheme:id:perms"),
        ("world:anyone:rx", "expected permissions out of cdrwa, got 'x'"),
    ],
)
def test_what_is_no_list_says_what_was_expected(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        coord.parse_acl(text)
