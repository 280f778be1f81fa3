"""The shell's loop: a line, its command, the next line; from a terminal with history and completion.

Lines are read in a thread, for reading blocks; readline's completion, which runs in it, asks the client in
trio's thread what there is.
"""

import contextlib
import inspect
import io
import os
import shlex
import signal
import sys
import termios
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import trio

import coord
from pubsub.command.shell.console import HISTORY_MAX, Console, Target
from pubsub.command.shell.table import COMMANDS
from pubsub.command.shell.text import explain

#: Commands of the loop itself, beside COMMANDS.
LOOP_COMMANDS = ("help", "quit", "redo")
COMPLETE_SECONDS_MAX = 2.0
#: Lines with secrets, which the history file does not keep.
SECRET_COMMANDS = ("addauth",)

#: A read that nobody waits for any more is left to itself; trio 0.22 calls that otherwise.
_ABANDONED: dict[str, Any] = (
    {"abandon_on_cancel": True}
    if "abandon_on_cancel" in inspect.signature(trio.to_thread.run_sync).parameters
    else {"cancellable": True}
)

ReadLine = Callable[[str], Awaitable[str | None]]


def history_path() -> Path:
    return Path(os.environ.get("ZOOLOG_HISTORY") or Path.home() / ".zoolog_history")


def interact(target: Target) -> int:
    """Reads commands from standard input until its end or `quit`; returns the exit status: whether every
    command of a program has succeeded, and 0 for a person's."""
    if not sys.stdin.isatty():
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # Data of any bytes passes through, as it does in an argument.
                stream.reconfigure(errors="surrogateescape")
        return trio.run(_run, target, _read_piped, False, strict_exception_groups=True)
    with _terminal():
        trio.run(_run, target, _read_typed, True, strict_exception_groups=True)
    return 0


async def _run(target: Target, read_line: ReadLine, typed: bool) -> int:
    async with trio.open_nursery() as nursery:
        console = Console(target, nursery, interactive=True)
        loop = Loop(console, nursery.cancel_scope, typed=typed)
        try:
            if typed:
                await nursery.start(loop.watch_interrupts)
                loop.complete_with(trio.lowlevel.current_trio_token())
            connected = await loop.attempt(lambda: console.connect(target))
            if connected or typed:
                await loop.run(read_line)
        finally:
            with trio.CancelScope(shield=True):
                await console.close()
            nursery.cancel_scope.cancel()
    return 1 if loop.failures else 0


class Loop:
    """Runs one command after the other.

    Attributes:
        failures: how many have failed.
    """

    def __init__(self, console: Console, scope: trio.CancelScope, *, typed: bool) -> None:
        self.failures = 0
        self._console = console
        self._scope = scope
        self._typed = typed
        self._number = 0
        self._running: trio.CancelScope | None = None

    async def run(self, read_line: ReadLine) -> None:
        console = self._console
        while True:
            hosts = console.target.hosts
            line = await read_line(f"[zk: {hosts}({console.state}) {self._number}] ")
            if line is None:
                return
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            if line.split()[0] in ("quit", "exit"):
                return
            await self.attempt(lambda line=line: self._execute(line))  # type: ignore[misc]
            sys.stdout.flush()

    async def attempt(self, action: Callable[[], Awaitable[None]]) -> bool:
        """Carries out a command; whether it has succeeded. A failure is told in one line."""
        failure: str | None = None
        try:
            with trio.CancelScope() as self._running:
                await action()
            if self._running.cancelled_caught:
                failure = "interrupted"
        except click.exceptions.Exit as error:
            failure = None if error.exit_code == 0 else "failed"
        except click.UsageError as error:
            where = f"{error.ctx.info_name}: " if error.ctx is not None and error.ctx.info_name else ""
            failure = f"{where}{' '.join(error.format_message().split())}"
        except click.ClickException as error:
            failure = error.format_message()
        except coord.CoordError as error:
            failure = explain(error)
        except ValueError as error:
            failure = str(error)
        finally:
            self._running = None
        if failure is None:
            return True
        self.failures += 1
        sys.stdout.flush()
        click.echo(failure, err=True)
        return False

    async def _execute(self, line: str) -> None:
        words = shlex.split(line)
        if words[0] == "redo":
            line = self._line_of(words)
            self._console.write(line)
            words = shlex.split(line)
        self._console.history.append((self._number, line))
        self._number += 1
        if words[0] == "help":
            tell_commands(words[1] if len(words) > 1 else None)
            return
        command = COMMANDS.get(words[0])
        if command is None:
            raise click.ClickException(f"Command not found: {words[0]} (help lists the commands)")
        with command.make_context(words[0], words[1:], obj=self._console) as ctx:
            await command.invoke(ctx)

    def _line_of(self, words: list[str]) -> str:
        """The line that a redo names."""
        lines = dict(self._console.history)
        if len(words) != 2 or not words[1].isdigit() or int(words[1]) not in lines:
            raise click.ClickException("redo: expected the number of a command in the history")
        return lines[int(words[1])]

    async def watch_interrupts(self, task_status: trio.TaskStatus[None]) -> None:
        """Ctrl-C ends the command that runs, or else the shell."""
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                (self._running or self._scope).cancel()

    # Completion

    def complete_with(self, token: trio.lowlevel.TrioToken) -> None:
        """Lets readline ask for what may come next."""
        readline = _readline()
        if readline is None:
            return
        found: list[str] = []

        def complete(text: str, state: int) -> str | None:
            if state == 0:
                before = readline.get_line_buffer()[: readline.get_begidx()]
                with contextlib.suppress(Exception):  # a failure here would end up in the middle of a line
                    found[:] = trio.from_thread.run(self.complete, before, text, trio_token=token)
            return found[state] if state < len(found) else None

        readline.set_completer(complete)
        readline.set_completer_delims(" ")
        readline.parse_and_bind("tab: complete")

    async def complete(self, before: str, text: str) -> list[str]:
        """What `text` may become: the first word a command, others a path or an option."""
        words = before.split()
        if not words:
            return [f"{name} " for name in sorted({*COMMANDS, *LOOP_COMMANDS}) if name.startswith(text)]
        command = COMMANDS.get(words[0])
        if text.startswith("-") and command is not None:
            options = [name for param in command.params for name in param.opts if name.startswith("-")]
            return [f"{name} " for name in sorted(options) if name.startswith(text)]
        if not text.startswith("/"):
            return []
        parent, _, start = text.rpartition("/")
        with (
            trio.move_on_after(COMPLETE_SECONDS_MAX),
            contextlib.suppress(coord.CoordError, click.ClickException),
        ):
            names = await self._console.zk.get_children(parent or "/")
            return [f"{parent}/{name}" for name in names if name.startswith(start)]
        return []


def tell_commands(name: str | None) -> None:
    """One line a command, or the help of one."""
    command = COMMANDS.get(name or "")
    if command is not None:
        with command.make_context(name, [], resilient_parsing=True) as ctx:
            click.echo(ctx.get_help())
        return
    rows = [(command.usage, command.get_short_help_str(70)) for _, command in sorted(COMMANDS.items())]
    rows += [
        ("help [command]", "Print this, or the help of one command."),
        ("redo number", "Carry out a command of the history again."),
        ("quit", "End the shell."),
    ]
    for usage, text in rows:
        click.echo(f"\t{usage}\n\t    {text}")


async def _read_piped(prompt: str) -> str | None:
    line = await trio.to_thread.run_sync(sys.stdin.readline, **_ABANDONED)
    return line or None


async def _read_typed(prompt: str) -> str | None:
    try:
        return await trio.to_thread.run_sync(input, prompt, **_ABANDONED)
    except EOFError:
        return None


def _readline() -> ModuleType | None:
    """The module, where Python has it."""
    try:
        import readline
    except ImportError:
        return None
    return readline


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """Reads and writes the history, and leaves the terminal as it was: a read that is abandoned does not."""
    settings = termios.tcgetattr(sys.stdin.fileno())
    readline = _readline()
    if readline is not None:
        readline.set_history_length(HISTORY_MAX)
        with contextlib.suppress(OSError):
            readline.read_history_file(history_path())
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, settings)
        if readline is not None:
            _write_history(readline)


def _write_history(readline: Any) -> None:
    lines = [
        readline.get_history_item(number) for number in range(1, readline.get_current_history_length() + 1)
    ]
    kept = [line for line in lines if line and line.split()[:1] and line.split()[0] not in SECRET_COMMANDS]
    with contextlib.suppress(OSError):
        path = history_path()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{line}\n" for line in kept[-HISTORY_MAX:])
