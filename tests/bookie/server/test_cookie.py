"""The table of 10.1, line by line (R-I1), and the cookie's two forms."""

import pytest

from bookie.server.cookie import Cookie, DirectoryCookie, IdentityError, judge

MINE = Cookie("b1", 7, "cluster")
PROPOSED = Cookie("b1", 8, "cluster")


def verdict(directory=None, *, has_data=False, stored=None, proposed=PROPOSED, configured_id=None):
    return judge(directory, has_data=has_data, stored=stored, proposed=proposed, configured_id=configured_id)


def test_an_empty_directory_without_a_cookie_is_a_new_bookie():
    """R-I2: with a new incarnation."""
    assert verdict() == verdict().__class__(PROPOSED, fresh=True)


def test_an_empty_directory_of_a_bookie_that_exists_is_refused():
    with pytest.raises(IdentityError, match="this directory is empty"):
        verdict(stored=MINE)


def test_data_without_a_cookie_is_refused():
    with pytest.raises(IdentityError, match="no cookie"):
        verdict(has_data=True)
    with pytest.raises(IdentityError, match="no cookie"):
        verdict(has_data=True, stored=MINE)


def test_equal_cookies_start():
    found = verdict(DirectoryCookie(MINE, creating=False), has_data=True, stored=MINE)
    assert (found.cookie, found.fresh) == (MINE, False)


def test_an_interrupted_first_start_goes_on_with_its_own_identity():
    for stored in (None, MINE):
        found = verdict(DirectoryCookie(MINE, creating=True), has_data=True, stored=stored)
        assert (found.cookie, found.fresh) == (MINE, True)


def test_a_cookie_that_the_service_lacks_is_refused():
    """#2308: decommissioned, or the wrong cluster."""
    with pytest.raises(IdentityError, match="decommissioned"):
        verdict(DirectoryCookie(MINE, creating=False), has_data=True)


@pytest.mark.parametrize("creating", [False, True])
def test_another_incarnation_is_refused(creating):
    with pytest.raises(IdentityError, match="incarnation"):
        verdict(DirectoryCookie(MINE, creating=creating), has_data=True, stored=Cookie("b1", 9, "cluster"))


def test_another_cluster_is_refused():
    """Formatted again: R-G4's danger begins here."""
    with pytest.raises(IdentityError, match="cluster"):
        verdict(DirectoryCookie(Cookie("b1", 7, "old"), creating=False), has_data=True, stored=MINE)


def test_a_directory_of_another_id_than_asked_for_is_refused():
    with pytest.raises(IdentityError, match="belongs to bookie b1"):
        verdict(DirectoryCookie(MINE, creating=False), stored=MINE, configured_id="b2")


def test_both_forms_come_back_as_they_were():
    assert Cookie.decode(MINE.encode()) == MINE
    for creating in (False, True):
        kept = DirectoryCookie(MINE, creating)
        assert DirectoryCookie.from_words(kept.words()) == kept


@pytest.mark.parametrize("data", [b"", b"x", b"\xa0", b"\x80", MINE.encode()[:-3], b"\xff" * 50])
def test_a_damaged_cookie_is_refused(data):
    with pytest.raises(IdentityError):
        Cookie.decode(data)


@pytest.mark.parametrize("words", [(), ("ready", "b"), ("done", "b", "1", "i"), ("ready", "b", "zz", "i")])
def test_a_damaged_file_is_refused(words):
    with pytest.raises(IdentityError):
        DirectoryCookie.from_words(words)
