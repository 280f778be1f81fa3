"""`zoolog coord serve`, `zoolog bookie serve`, `zoolog hub serve`: one server in the foreground.

A server stops in order on SIGTERM and SIGINT: it closes its session and says goodbye to its clients; exit
status 0. A configuration that cannot be used is one line and exit status 2.
"""

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from coord import eventlog
from coord.reactor import run_hosted
from pubsub.command.apache import export_apache, import_apache
from pubsub.command.level import raise_feature_level
from pubsub.command.options import coord_option
from pubsub.command.state import json_to_state, state_to_json

if TYPE_CHECKING:
    from coord.server import ServerConfig

log_level_option = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)


@click.group("coord")
def coord_command() -> None:
    """Coordination servers."""


@coord_command.command("serve")
@click.argument("config_path", metavar="ZOO.CFG", type=click.Path(dir_okay=False))
@log_level_option
def serve_coord(config_path: str, log_level: str) -> None:
    """Run one coordination server with ZooKeeper's configuration file.

    Without server.N lines it runs standalone. The servers of an ensemble share a secret: write it once with
    `zoolog coord secret FILE` and name it as ensemble.secretFile in each zoo.cfg.
    """
    from coord.server import serve

    eventlog.configure(level=log_level)
    run_hosted(_serve_until_signal, serve, _load(config_path))


@coord_command.command("check")
@click.argument("config_path", metavar="ZOO.CFG", type=click.Path(dir_okay=False))
def check_config(config_path: str) -> None:
    """Check a configuration file, and say what a server would make of it.

    Exit status 0 if a server could start with it, 2 if not: a value that cannot be used, a file or directory
    that is missing or cannot be used, a port given twice. Nothing is opened or changed: a server may run with
    it meanwhile, and what its directories hold is not looked at (`zoolog inspect --verify` does that).
    """
    from coord.server import DataDirectoryError, check_directories, with_guess

    config = _load(config_path)
    try:
        check_directories(config)
    except DataDirectoryError as error:
        raise _UnusableConfigError(f"{config_path}: {error}") from error
    for name in config.unknown_keys:
        click.echo(f"unknown: {with_guess(name)}")
    for name in config.keys_without_effect:
        click.echo(f"without effect: {name}")
    for warning in config.warnings:
        click.echo(f"warning: {warning}")
    members = f"server {config.sid} of {len(config.servers)}" if config.servers else "standalone"
    click.echo(f"ok: {members}, dataDir {config.data_dir}")


@coord_command.command("keys")
def show_keys() -> None:
    """All keys of the configuration file, with their defaults: those that work, and ZooKeeper's others."""
    from coord.server import key_tables

    click.echo(key_tables())


@coord_command.command("secret")
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False))
def write_secret(path: str) -> None:
    """Write a new random secret for the servers of one ensemble; copy FILE to each of them."""
    from coord.server import write_ensemble_secret

    write_ensemble_secret(path)


def _load(config_path: str) -> "ServerConfig":
    from coord.server import ConfigError, load_config

    try:
        return load_config(config_path)
    except ConfigError as error:
        raise _UnusableConfigError(str(error)) from error


class _UnusableConfigError(click.ClickException):
    """Exit status 2, and where the keys are told: the command's help has nothing about them."""

    exit_code = 2

    def format_message(self) -> str:
        return f"{self.message} (see `zoolog coord keys`)"


coord_command.add_command(import_apache)
coord_command.add_command(export_apache)
coord_command.add_command(state_to_json)
coord_command.add_command(json_to_state)
coord_command.add_command(raise_feature_level)


@click.group("bookie")
def bookie_command() -> None:
    """Ledger storage servers."""


@bookie_command.command("serve")
@coord_option
@click.option("--dir", "directory", type=click.Path(path_type=Path), required=True, help="Data directory.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=3181, show_default=True, help="0: any free port."
)
@click.option("--id", "bookie_id", help="Identity in ensembles; default: from the directory, then HOST:PORT.")
@log_level_option
def serve_bookie(
    hosts: str, directory: Path, host: str, port: int, bookie_id: str | None, log_level: str
) -> None:  # fmt: skip
    """Run one bookie."""
    from bookie.server import BookieConfig, serve

    eventlog.configure(level=log_level)
    settings = BookieConfig(
        directory=directory.resolve(), coord=hosts, host=host, port=port, bookie_id=bookie_id
    )
    run_hosted(_serve_until_signal, serve, settings)


@click.group("hub")
def hub_command() -> None:
    """Topic servers."""


@hub_command.command("serve")
@coord_option
@click.option("--dir", "directory", type=click.Path(path_type=Path), required=True, help="Data directory.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=4080, show_default=True, help="0: any free port."
)
@click.option("--id", "hub_id", help="Name of this hub in logs and metrics; default: HOST:PORT.")
@log_level_option
def serve_hub(
    hosts: str, directory: Path, host: str, port: int, hub_id: str | None, log_level: str
) -> None:  # fmt: skip
    """Run one hub."""
    from pubsub.hub import HubConfig, serve

    eventlog.configure(level=log_level)
    settings = HubConfig(directory=directory.resolve(), coord=hosts, host=host, port=port, hub_id=hub_id)
    trio.run(_serve_until_signal, serve, settings, strict_exception_groups=True)


async def _serve_until_signal(serve: Callable[..., Awaitable[Any]], config: object) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, config)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break
