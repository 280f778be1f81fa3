"""Carries out the cookie check against a directory and the coordination service, and lays out `/ledgers`."""

import os
import uuid
from collections.abc import Callable
from typing import Final

from bookie.client.store import Coord
from bookie.ledger import layout
from bookie.server.cookie import Cookie, DirectoryCookie, IdentityError, Verdict, judge
from coord.disk import DamagedFileError, Disk, read_checked, replace_checked
from coord.errors import NodeExistsError, NoNodeError

COOKIE_FILE: Final = "cookie"
_KIND: Final = "zoolog-bookie"
_NOT_DATA: Final = {COOKIE_FILE, COOKIE_FILE + ".new", "lock", "session", "session.new"}


async def prepare_layout(zk: Coord) -> str:
    """Make what is missing of the tree under `/ledgers`, and return the cluster's instance id.

    Raises:
        IdentityError: the tree there has another layout.
    """
    for path in (layout.ROOT, layout.AVAILABLE, layout.READONLY, layout.COOKIES):
        await _create_if_absent(zk, path, b"")
    await _create_if_absent(zk, layout.LAYOUT, layout.LAYOUT_VALUE)
    await _create_if_absent(zk, layout.INSTANCE_ID, str(uuid.uuid4()).encode())
    found, _ = await zk.get(layout.LAYOUT)
    if found != layout.LAYOUT_VALUE:
        raise IdentityError(f"{layout.LAYOUT} is {found!r:.100}, expected {layout.LAYOUT_VALUE!r}")
    return await read_instance_id(zk)


async def read_instance_id(zk: Coord) -> str:
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
    zk: Coord,
    disk: Disk,
    directory: str,
    *,
    configured_id: str | None,
    default_id: Callable[[int], str],
    new_incarnation: Callable[[], int],
) -> Verdict:
    """Check who this directory is, and note in it that a new bookie is being created.

    Args:
        configured_id: the id an operator asked for.
        default_id: id of a new bookie by its incarnation, where none was asked for.
        new_incarnation: random, not 0.

    Raises:
        IdentityError: it must not be served from; nothing was changed.
    """
    instance_id = await prepare_layout(zk)
    mine = read_directory_cookie(disk, directory)
    has_data = bool(set(disk.list(directory)) - _NOT_DATA)
    incarnation = new_incarnation()
    bookie_id = mine.cookie.bookie_id if mine is not None else configured_id or default_id(incarnation)
    proposed = Cookie(layout.check_bookie_id(bookie_id), incarnation, instance_id)
    stored = await read_cookie(zk, bookie_id)
    verdict = judge(mine, has_data=has_data, stored=stored, proposed=proposed, configured_id=configured_id)
    if verdict.fresh and mine is None:
        _write(disk, directory, DirectoryCookie(verdict.cookie, creating=True))
    return verdict


async def confirm(zk: Coord, disk: Disk, directory: str, cookie: Cookie) -> None:
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


async def read_cookie(zk: Coord, bookie_id: str) -> Cookie | None:
    try:
        data, _ = await zk.get(layout.cookie_path(bookie_id))
    except NoNodeError:
        return None
    return Cookie.decode(data or b"")


def _write(disk: Disk, directory: str, cookie: DirectoryCookie) -> None:
    replace_checked(disk, os.path.join(directory, COOKIE_FILE), _KIND, cookie.words())


async def _create_if_absent(zk: Coord, path: str, data: bytes) -> None:
    try:
        await zk.create(path, data)
    except NodeExistsError:
        pass
