"""What a command of the shell is: click's options and arguments around an async function.

The same command runs alone, with a session of its own, and in the shell, with that of the shell.
"""

import dataclasses
import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import click
import trio

from pubsub.command.options import check_hosts
from pubsub.command.shell.console import Console, Target, run_once

Handler = Callable[..., Awaitable[None]]


class ShellCommand(click.Command):
    """A command whose callback takes the console and returns something to await.

    Invoked with a Target it connects (unless it is `offline`), runs and closes; with a Console it returns
    what is to be awaited.
    """

    def __init__(self, *arguments: Any, offline: bool = False, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._offline = offline

    @property
    def usage(self) -> str:
        """The command with its flags and arguments, as zkCli shows it."""
        flags, arguments = [], []
        for param in self.params:
            if isinstance(param, click.Argument):
                arguments.append(f"{param.name}" if param.required else f"[{param.name}]")
            elif isinstance(param, click.Option) and param.expose_value:
                flag = min(param.opts, key=len)
                flags.append(f"[{flag}]" if param.is_flag else f"[{flag} {param.name}]")
        return " ".join([self.name or "", *flags, *arguments])

    def invoke(self, ctx: click.Context) -> Any:
        handler = self.callback
        assert handler is not None
        bound: Callable[[Console], Awaitable[None]] = functools.partial(_call, handler, ctx.params)
        if isinstance(ctx.obj, Target):
            return trio.run(
                functools.partial(run_once, offline=self._offline),
                ctx.obj,
                bound,
                strict_exception_groups=True,
            )
        return bound(ctx.obj)


async def _call(handler: Handler, params: Mapping[str, Any], console: Console) -> None:
    await handler(console, **params)


def command(name: str, **settings: Any) -> Callable[[Handler], ShellCommand]:
    """Makes a command of an async function."""

    def make(handler: Handler) -> ShellCommand:
        made = click.command(name, cls=ShellCommand, **settings)(handler)
        made.params.append(
            click.Option(
                ["--coord"],
                metavar="HOSTS",
                expose_value=False,
                callback=_take_hosts,
                help="Coordination servers; here or before the command.",
            )
        )
        return made

    return make


def _take_hosts(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not isinstance(ctx.obj, Target):
        raise click.BadParameter("the shell is connected already: use connect", ctx, param)
    check_hosts(ctx, param, value)
    ctx.obj = dataclasses.replace(ctx.obj, hosts=value)


def check_path(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A path begins with / and does not end with one."""
    if value is not None and not value.startswith("/"):
        raise click.BadParameter(f"expected a path that begins with /, got {value!r}", ctx, param)
    return value


def path_argument(**settings: Any) -> Callable[[Handler], Handler]:
    return click.argument("path", callback=check_path, **settings)
