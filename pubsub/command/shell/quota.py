"""Commands about quotas, which are nodes below /zookeeper/quota (spec 12): setquota, listquota, delquota."""

import contextlib
import re
from collections.abc import Mapping

import click

import coord
from pubsub.command.shell.command import command, path_argument
from pubsub.command.shell.console import Console

QUOTA_ROOT = "/zookeeper/quota"
LIMITS = "zookeeper_limits"
STATS = "zookeeper_stats"
#: Options of setquota and delquota, and the keys of a limits text.
KEYS = {"n": "count", "b": "bytes", "N": "countHardLimit", "B": "byteHardLimit"}
UNLIMITED = -1


def parse_limits(text: str) -> dict[str, int]:
    """A limits or statistics text, `count=N,bytes=M=;byteHardLimit=X;countHardLimit=Y` (spec 12.2).

    Raises:
        ValueError: it is none.
    """
    limits: dict[str, int] = {}
    for part in re.split(r"[,;]", text):
        if part in ("", "="):
            continue
        key, equals, value = part.rstrip("=").partition("=")
        if not equals:
            raise ValueError(f"expected a quota such as count=1,bytes=2, got {text!r}")
        limits[key] = int(value)
    return limits


def format_limits(limits: Mapping[str, int]) -> str:
    text = f"count={limits.get('count', UNLIMITED)},bytes={limits.get('bytes', UNLIMITED)}"
    others = sorted(set(limits) - {"count", "bytes"})
    return text + "".join(f"{'' if number else '='};{key}={limits[key]}" for number, key in enumerate(others))


def _paths(console: Console, path: str) -> tuple[str, str, str]:
    """The quota's node, its limits and its statistics."""
    if path == "/":
        raise click.UsageError("expected a path other than /, which cannot have a quota")
    if console.zk.hosts.chroot:
        raise click.ClickException("quotas are set from outside a chroot: connect without it")
    node = QUOTA_ROOT + path
    return node, f"{node}/{LIMITS}", f"{node}/{STATS}"


@command("setquota")
@path_argument()
@click.option("-n", "n", type=click.IntRange(-1), help="Soft limit of nodes, the node itself among them.")
@click.option("-b", "b", type=click.IntRange(-1), help="Soft limit of bytes of data.")
@click.option("-N", "hard_n", type=click.IntRange(-1), help="Hard limit of nodes.")
@click.option("-B", "hard_b", type=click.IntRange(-1), help="Hard limit of bytes.")
async def set_quota(
    console: Console, path: str, n: int | None, b: int | None, hard_n: int | None, hard_b: int | None
) -> None:
    """Limit what is below a node. Soft limits are logged; hard ones hold where enforceQuota is on."""
    given = {"count": n, "bytes": b, "countHardLimit": hard_n, "byteHardLimit": hard_b}
    wanted = {key: value for key, value in given.items() if value is not None}
    if not wanted:
        raise click.UsageError("expected at least one of -n, -b, -N and -B")
    zk = console.zk
    node, limits_path, stats_path = _paths(console, path)
    if await zk.exists(path) is None:
        raise coord.NoNodeError(path=path)
    await _check_no_other(zk, path)
    await coord.ensure_path(zk, node)
    try:
        data, stat = await zk.get(limits_path)
        limits = parse_limits((data or b"").decode()) | wanted
        await zk.set(limits_path, format_limits(limits).encode(), stat.version)
    except coord.NoNodeError:
        limits = dict.fromkeys(KEYS.values(), UNLIMITED) | wanted
        await zk.create(limits_path, format_limits(limits).encode())
    # As zkCli, looking first: what fails is a line in the server's audit log.
    if await zk.exists(stats_path) is None:
        with contextlib.suppress(coord.NodeExistsError):
            # The server replaces it by what is there.
            await zk.create(stats_path, b"count=0,bytes=0")


async def _check_no_other(zk: coord.Client, path: str) -> None:
    """Quotas do not nest: only the nearest would be charged."""
    above = path.rpartition("/")[0]
    while above:
        if await zk.exists(f"{QUOTA_ROOT}{above}/{LIMITS}") is not None:
            raise click.ClickException(f"{path} has a parent {above} which has a quota")
        above = above.rpartition("/")[0]
    with contextlib.suppress(coord.NoNodeError):
        async with contextlib.aclosing(coord.walk(zk, QUOTA_ROOT + path)) as nodes:
            async for node in nodes:
                owner = node.removeprefix(QUOTA_ROOT).removesuffix(f"/{LIMITS}")
                if node.endswith(f"/{LIMITS}") and owner != path:
                    raise click.ClickException(f"{path} has a child {owner} which has a quota")


@command("listquota")
@path_argument()
async def list_quota(console: Console, path: str) -> None:
    """Print a node's limits and how much of them is used."""
    _, limits_path, stats_path = _paths(console, path)
    click.echo(f"absolute path is {limits_path}", err=True)
    try:
        limits = (await console.zk.get(limits_path))[0] or b""
        stats = (await console.zk.get(stats_path))[0] or b""
    except coord.NoNodeError:
        raise click.ClickException(f"quota for {path} does not exist.") from None
    console.write(f"Output quota for {path} {limits.decode('utf-8', 'replace')}")
    console.write(f"Output stat for {path} {stats.decode('utf-8', 'replace')}")


@command("delquota")
@path_argument()
@click.option("-n", "n", is_flag=True, help="The soft limit of nodes alone.")
@click.option("-b", "b", is_flag=True, help="The soft limit of bytes alone.")
@click.option("-N", "hard_n", is_flag=True, help="The hard limit of nodes alone.")
@click.option("-B", "hard_b", is_flag=True, help="The hard limit of bytes alone.")
async def delete_quota(console: Console, path: str, n: bool, b: bool, hard_n: bool, hard_b: bool) -> None:
    """Lift a node's limits, all of them or those named."""
    zk = console.zk
    node, limits_path, stats_path = _paths(console, path)
    given = {"count": n, "bytes": b, "countHardLimit": hard_n, "byteHardLimit": hard_b}
    lifted = {key: UNLIMITED for key, value in given.items() if value}
    try:
        if lifted:
            data, stat = await zk.get(limits_path)
            limits = parse_limits((data or b"").decode()) | lifted
            await zk.set(limits_path, format_limits(limits).encode(), stat.version)
            return
        await zk.delete(limits_path)
    except coord.NoNodeError:
        raise click.ClickException(f"quota for {path} does not exist.") from None
    with contextlib.suppress(coord.NoNodeError):
        await zk.delete(stats_path)
    # What is left of the way there goes too, where no other quota needs it.
    with contextlib.suppress(coord.NoNodeError, coord.NotEmptyError):
        while node != QUOTA_ROOT and not await zk.get_children(node):
            await zk.delete(node)
            node = node.rpartition("/")[0]


COMMANDS = (set_quota, list_quota, delete_quota)
