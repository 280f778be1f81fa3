"""Commands about who may do what: addauth, getAcl, setAcl, whoami."""

import contextlib

import click

import coord
from pubsub.command.shell.command import command, path_argument
from pubsub.command.shell.console import Console
from pubsub.command.shell.nodes import encode_data, parse_acl, stat_option
from pubsub.command.shell.text import format_acl, format_stat


@command("addauth")
@click.argument("scheme")
@click.argument("auth", default="")
async def add_auth(console: Console, scheme: str, auth: str) -> None:
    """Show credentials, such as: addauth digest user:password."""
    await console.zk.add_auth(scheme, encode_data(auth))


@command("getAcl")
@path_argument()
@stat_option
async def get_acl(console: Console, path: str, with_stat: bool) -> None:
    """Print a node's access control list."""
    acl, stat = await console.zk.get_acl(path)
    console.write(format_acl(acl))
    if with_stat:
        console.write(format_stat(stat))


@command("setAcl")
@path_argument()
@click.argument("acl")
@stat_option
@click.option("-v", "--version", type=int, default=-1, help="Only if the list has this version.")
@click.option("-R", "recursive", is_flag=True, help="The node and everything below it.")
async def set_acl(
    console: Console, path: str, acl: str, with_stat: bool, version: int, recursive: bool
) -> None:
    """Replace a node's access control list: scheme:id:perms,... with the permissions cdrwa."""
    entries = parse_acl(acl)
    if not recursive:
        stat = await console.zk.set_acl(path, entries, version)
        if with_stat:
            console.write(format_stat(stat))
        return
    # Children first: who takes READ away from a node could not find what is below it.
    async with contextlib.aclosing(coord.walk(console.zk, path, bottom_up=True)) as nodes:
        async for node in nodes:
            stat = await console.zk.set_acl(node, entries, version)
            if with_stat:
                console.write(format_stat(stat))


@command("whoami")
async def who_am_i(console: Console) -> None:
    """Print the identities that this session has shown."""
    console.write("Auth scheme: User")
    for scheme, name in sorted(await console.zk.who_am_i()):
        console.write(f"{scheme}: {name}")


COMMANDS = (add_auth, get_acl, set_acl, who_am_i)
