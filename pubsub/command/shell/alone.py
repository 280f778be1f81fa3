"""The commands of the shell's loop, given alone (`zoolog zk help`), where there is no loop: as zkCli's."""

import click

from pubsub.command.shell.prompt import tell_commands


@click.command("help", hidden=True)
@click.argument("command", required=False)
def help_alone(command: str | None) -> None:
    """Print the commands, or the help of one."""
    tell_commands(command)


@click.command("quit", hidden=True)
def quit_alone() -> None:
    """End, having done nothing."""


@click.command("redo", hidden=True)
@click.argument("number", required=False)
def redo_alone(number: str | None) -> None:
    """A command that is given alone has none before it."""
    raise click.ClickException("redo: there is no history outside the interactive shell")


ALONE: dict[str, click.Command] = {
    "help": help_alone,
    "quit": quit_alone,
    "exit": quit_alone,
    "redo": redo_alone,
}
