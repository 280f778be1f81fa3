"""The root of the `zoolog` command: which module holds which subcommand, and how failures are told.

Exit status: 0 done, 1 failed, 2 wrong usage. A failure is one line on standard error, never a traceback; with
ZOOLOG_DEBUG set the traceback comes too.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Iterator

import click

#: Subcommand → (module, help line). Modules are imported only when asked for: a server starts without rich
#: or bench.
COMMANDS = {
    "up": ("pubsub.command.up", "Run a local cluster, one process per server."),
    "coord": ("pubsub.command.serve", "Coordination servers."),
    "bookie": ("pubsub.command.serve", "Ledger storage servers."),
    "hub": ("pubsub.command.serve", "Topic servers."),
    "zk": ("pubsub.command.zk", "The coordination shell, with zkCli's commands."),
    "ledger": ("pubsub.command.ledger", "Write, read, list, recover and delete ledgers."),
    "topic": ("pubsub.command.topic", "Create, list, describe and delete topics."),
    "publish": ("pubsub.command.topic", "Publish each line of a file or of standard input."),
    "subscribe": ("pubsub.command.topic", "Print the messages of a topic, one a line."),
    "bench": ("pubsub.command.bench", "Measure a running cluster or a local one."),
    "inspect": ("pubsub.command.inspect", "Show what a file of ours holds."),
}


class LazyGroup(click.Group):
    """A group whose subcommands are attributes `<name>_command` of the modules in COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zoolog", prog_name="zoolog")
def root() -> None:
    """zoolog: a coordination ensemble, replicated ledgers and topics.

    Client commands take --coord HOSTS (default: $ZOOLOG_COORD, then 127.0.0.1:2181).
    """


def main() -> None:
    """Runs the command and exits with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs the command with `arguments`; returns the exit status, having told any failure in one line."""
    try:
        result = root.main(args=arguments, prog_name="zoolog", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        return _tell_usage(error)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone (`zoolog ... | head`): nothing is left to say, nor anywhere to
        # say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the command's outermost boundary: whatever failed is told in one line
        return _tell(error)
    except BaseExceptionGroup as error:
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in _leaves(error)):
            return 130
        return _tell(error)


def _tell_usage(error: click.ClickException) -> int:
    """Wrong usage is one line too; a group without a subcommand shows its help."""
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return error.exit_code
    where = ctx.command_path if ctx is not None else "zoolog"
    hint = f" (see `{where} --help`)" if ctx is not None else ""
    print(f"{where}: {' '.join(error.format_message().split())}{hint}", file=sys.stderr)
    return error.exit_code


def _tell(error: BaseException) -> int:
    """Prints the failure that matters most; a usage error found late keeps its exit status."""
    if os.environ.get("ZOOLOG_DEBUG"):
        traceback.print_exception(error)
    leaves = list(_leaves(error))
    usage = next((leaf for leaf in leaves if isinstance(leaf, click.ClickException)), None)
    if usage is not None:
        return _tell_usage(usage)
    if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    first = leaves[0]
    text = " ".join(str(first).split()) or type(first).__name__
    print(f"zoolog: {text}", file=sys.stderr)
    return 1


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions of a (nested) group, or the one exception itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
