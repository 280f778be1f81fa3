"""Carries out the cookie check against a directory and the coordination service, and lays out `/ledgers`."""

import os
from collections.abc import Callable
from typing import Final

import coord
from bookie.ledger import layout
from bookie.server.cookie import Cookie, DirectoryCookie, IdentityError, Verdict, judge
from bookie.server.session import Session
from coord.disk import DamagedFileError, Disk, read_checked, replace_checked
from coord.errors import NodeExistsError, NoNodeError

COOKIE_FILE: Final = "cookie"
_KIND: Final = "zoolog-bookie"
_NOT_DATA: Final = {COOKIE_FILE, COOKIE_FILE + ".new", "lock", "session", "session.new"}


async def prepare_layout(zk: Session, new_instance_id: Callable[[], str]) -> str:
    """Make the tree under `/ledgers` where there is none, all of it or nothing, and return its instance id.

    Nothing that is missing from an existing tree is made again: a new id generator beside old ledgers would
    give their ids away a second time.

    Raises:
        IdentityError: the tree there has another layout, or is not whole.
    """
    if await zk.exists(layout.LAYOUT) is None:
        content = {
            layout.ROOT: b"",
            layout.AVAILABLE: b"",
            layout.READONLY: b"",
            layout.COOKIES: b"",
            layout.UNDERREPLICATION: b"",
            layout.LAYOUT: layout.LAYOUT_VALUE,
            layout.INSTANCE_ID: new_instance_id().encode(),
            layout.ID_GENERATOR: b"0",
        }
        try:
            await zk.multi([coord.Create(path, data) for path, data in content.items()])
        except NodeExistsError:
            pass  # another bookie was first, or the tree is broken: the next look tells
    try:
        found, _ = await zk.get(layout.LAYOUT)
        if found != layout.LAYOUT_VALUE:
            raise IdentityError(f"{layout.LAYOUT} is {found!r:.100}, expected {layout.LAYOUT_VALUE!r}")
        return await read_instance_id(zk)
    except NoNodeError as error:
        raise IdentityError(f"{error.path} is missing from the tree under {layout.ROOT}") from error


async def read_instance_id(zk: Session) -> str:
    """The cluster's instance id.

    Raises:
        IdentityError: it is not one.
    """
    data, _ = await zk.get(layout.INSTANCE_ID)
    text = (data or b"").decode("ascii", "replace")
    if not text.isprintable() or not text or " " in text or len(text) > 100:
        raise IdentityError(f"{layout.INSTANCE_ID} is {data!r:.100}, expected an id")
    return text


async def establish(
    zk: Session,
    disk: Disk,
    directory: str,
    *,
    configured_id: str | None,
    default_id: Callable[[int], str],
    new_incarnation: Callable[[], int],
    new_instance_id: Callable[[], str],
) -> Verdict:
    """Check who this directory is, and note in it that a new bookie is being created.

    Args:
        configured_id: the id an operator asked for.
        default_id: id of a new bookie by its incarnation, where none was asked for.
        new_incarnation: random, not 0.
        new_instance_id: random, for a cluster that is not there yet.

    Raises:
        IdentityError: it must not be served from; nothing was changed.
    """
    instance_id = await prepare_layout(zk, new_instance_id)
    mine = read_directory_cookie(disk, directory)
    # A process that was killed may have left a cookie that says "ready" without having synced its name; after
    # the next power loss this would be taken for a new bookie.
    disk.fsync_directory(directory)
    has_data = bool(set(disk.list(directory)) - _NOT_DATA)
    incarnation = new_incarnation()
    bookie_id = mine.cookie.bookie_id if mine is not None else configured_id or default_id(incarnation)
    proposed = Cookie(layout.check_bookie_id(bookie_id), incarnation, instance_id)
    stored = await read_cookie(zk, bookie_id)
    verdict = judge(mine, has_data=has_data, stored=stored, proposed=proposed, configured_id=configured_id)
    if verdict.fresh and mine is None:
        _write(disk, directory, DirectoryCookie(verdict.cookie, creating=True))
    return verdict


async def confirm(zk: Session, disk: Disk, directory: str, cookie: Cookie) -> None:
    """The store of a new bookie exists: write the cookie to the service, then end the creation.

    Raises:
        IdentityError: somebody else took the id meanwhile.
    """
    try:
        await zk.create(layout.cookie_path(cookie.bookie_id), cookie.encode())
    except NodeExistsError as error:
        if await read_cookie(zk, cookie.bookie_id) != cookie:
            raise IdentityError(f"another bookie took the id {cookie.bookie_id} meanwhile") from error
    _write(disk, directory, DirectoryCookie(cookie, creating=False))


def read_directory_cookie(disk: Disk, directory: str) -> DirectoryCookie | None:
    """The cookie in a data directory, None if it has none.

    Raises:
        IdentityError: what is there is damaged.
    """
    try:
        words = read_checked(disk, os.path.join(directory, COOKIE_FILE), _KIND)
    except DamagedFileError as error:
        raise IdentityError(str(error)) from error
    return None if words is None else DirectoryCookie.from_words(words)


async def read_cookie(zk: Session, bookie_id: str) -> Cookie | None:
    try:
        data, _ = await zk.get(layout.cookie_path(bookie_id))
    except NoNodeError:
        return None
    return Cookie.decode(data or b"")


def _write(disk: Disk, directory: str, cookie: DirectoryCookie) -> None:
    replace_checked(disk, os.path.join(directory, COOKIE_FILE), _KIND, cookie.words())
