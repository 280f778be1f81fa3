"""`zoolog zk`: the coordination shell, one command a call, interactively, or reading commands from a pipe."""

import ssl
from pathlib import Path
from typing import Any

import click

from coord.tls import client_context
from pubsub.command.options import check_hosts, coord_option
from pubsub.command.shell.alone import ALONE
from pubsub.command.shell.console import Target
from pubsub.command.shell.prompt import interact
from pubsub.command.shell.table import COMMANDS

CONNECT_TIMEOUT_MS = 10_000


class ShellGroup(click.Group):
    """The shell's commands; their order is that of the help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return COMMANDS.get(cmd_name) or ALONE.get(cmd_name)


def _split_secret(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, str] | None:
    """`NAME:SECRET`, or `NAME:@FILE` with the secret as the file's first line, so that no list of processes
    shows it."""
    if value is None:
        return None
    name, colon, secret = value.partition(":")
    if not (name and colon):
        raise click.BadParameter(f"expected NAME:SECRET, got {value!r}", ctx, param)
    if secret.startswith("@"):
        try:
            secret = Path(secret[1:]).read_text().partition("\n")[0]
        except (OSError, UnicodeError) as error:
            raise click.BadParameter(f"cannot read the secret: {error}", ctx, param) from error
    return name, secret


def _split_secrets(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, bytes], ...]:
    split = [_split_secret(ctx, param, value) for value in values]
    return tuple((one[0], one[1].encode()) for one in split if one is not None)


@click.group("zk", cls=ShellGroup, invoke_without_command=True)
@coord_option
@click.option(
    "--auth",
    multiple=True,
    callback=_split_secrets,
    metavar="SCHEME:DATA",
    help="Credentials, such as digest:user:password, or digest:@FILE; may be repeated.",
)
@click.option(
    "--sasl",
    callback=_split_secret,
    metavar="USER:PASSWORD",
    help="Log in by SASL DIGEST-MD5; USER:@FILE reads the password from a file.",
)
@click.option(
    "-server", "server", callback=check_hosts, metavar="HOSTS", help="As --coord; zkCli's name for it."
)
@click.option("-waitforconnection", "_wait", is_flag=True, expose_value=False, hidden=True)
@click.option("--read-only", "-r", is_flag=True, help="A server that has lost its quorum will do, for reads.")
@click.option(
    "--timeout",
    "-timeout",
    "timeout_ms",
    type=click.IntRange(1),
    default=30_000,
    show_default=True,
    metavar="MS",
    help="Session timeout.",
)
@click.option(
    "--tls-ca",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="TLS: PEM of the authorities that may sign the servers' certificates.",
)
@click.option(
    "--tls-cert",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="TLS: PEM of a certificate of our own, for servers that ask for one.",
)
@click.option(
    "--tls-key",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="TLS: PEM of its key, where it is not in the same file.",
)
@click.option("--tls-no-hostname", is_flag=True, help="TLS: take certificates that do not name the host.")
@click.pass_context
def zk_command(
    ctx: click.Context,
    /,
    hosts: str,
    server: str | None,
    auth: tuple[tuple[str, bytes], ...],
    sasl: tuple[str, str] | None,
    read_only: bool,
    timeout_ms: int,
    **tls: Any,
) -> int | None:
    """The coordination shell, with zkCli's commands; it speaks to Apache ZooKeeper too.

    Without a command it reads commands: from a terminal with history (~/.zoolog_history) and completion, or
    from a pipe, where the exit status is 1 if one of them has failed.
    """
    ctx.obj = Target(
        server or hosts,
        auth=auth,
        sasl=sasl,
        ssl_context=_tls_context(**tls),
        read_only=read_only,
        session_timeout_ms=timeout_ms,
        connect_timeout_ms=CONNECT_TIMEOUT_MS,
    )
    if ctx.invoked_subcommand is None:
        return interact(ctx.obj)
    return None


def _tls_context(
    tls_ca: str | None, tls_cert: str | None, tls_key: str | None, tls_no_hostname: bool
) -> ssl.SSLContext | None:
    if tls_ca is None:
        if tls_cert or tls_key or tls_no_hostname:
            raise click.UsageError("expected --tls-ca with the other --tls options: whom is one to trust?")
        return None
    try:
        return client_context(
            tls_ca, certificate_path=tls_cert, key_path=tls_key, check_hostname=not tls_no_hostname
        )
    except (OSError, ssl.SSLError) as error:
        raise click.UsageError(f"cannot use the --tls files: {error}") from error
