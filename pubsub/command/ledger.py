"""`zoolog ledger`: ledgers from the shell."""

import sys
import time
from typing import Any, BinaryIO

import click
import trio

import bookie
from pubsub.command.arrivals import Chunks, Lines
from pubsub.command.options import ClientGroup, Command, coord_option, json_option, print_facts
from pubsub.command.progress import Progress


@click.group("ledger", cls=ClientGroup)
@coord_option
@click.pass_context
def ledger_command(ctx: click.Context, hosts: str) -> None:
    """Write, read, list, recover and delete ledgers."""
    ctx.obj = hosts


def _run(hosts: str, action: Any, *arguments: Any) -> Any:
    async def call() -> Any:
        async with bookie.connect(hosts) as ledgers:
            return await action(ledgers, *arguments)

    return trio.run(call, strict_exception_groups=True)


def quorum_options(command: Command) -> Command:
    """--ensemble, --write-quorum and --ack-quorum."""
    for name, default, text in (
        ("--ack-quorum", 2, "Copies that are durable before an entry counts."),
        ("--write-quorum", 3, "Copies of each entry."),
        ("--ensemble", 3, "Bookies that hold the ledger."),
    ):
        command = click.option(name, type=click.IntRange(1), default=default, show_default=True, help=text)(
            command
        )
    return command


@ledger_command.command("write")
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--chunk",
    type=click.IntRange(1, bookie.ENTRY_BYTES_MAX),
    help="Entries of so many bytes instead of lines.",
)
@quorum_options
@click.pass_obj
def write(
    hosts: str, file: BinaryIO, chunk: int | None, ensemble: int, write_quorum: int, ack_quorum: int
) -> None:
    """Write each line of FILE or standard input as an entry; print the ledger's id once it is closed."""

    async def action(ledgers: bookie.Ledgers) -> int:
        options = {"ensemble": ensemble, "write_quorum": write_quorum, "ack_quorum": ack_quorum}
        async with ledgers.create(**options) as ledger:
            with Progress("entries written") as progress:
                source = Lines(file, bookie.ENTRY_BYTES_MAX) if chunk is None else Chunks(file, chunk)
                while payloads := await source.take():
                    await ledger.append_many(payloads)
                    progress.add(len(payloads))
            return ledger.ledger_id

    click.echo(_run(hosts, action))


@ledger_command.command("read")
@click.argument("ledger_id", type=click.IntRange(0))
@click.option("--first", type=click.IntRange(0), default=0, help="First entry; default: the ledger's first.")
@click.option("--last", type=click.IntRange(0), help="Last entry; default: the ledger's last.")
@click.option("--raw", is_flag=True, help="All bytes run together instead of an entry a line.")
@click.pass_obj
def read(hosts: str, ledger_id: int, first: int, last: int | None, raw: bool) -> None:
    """Print the entries of a ledger; of one that is not closed those acknowledged so far."""

    async def action(ledgers: bookie.Ledgers) -> None:
        reader = await ledgers.read(ledger_id)
        end = b"" if raw else b"\n"
        with Progress("entries read") as progress:
            async for chunk in reader.read_chunks(first, last):
                sys.stdout.buffer.write(b"".join(bytes(payload) + end for payload in chunk.payloads))
                progress.add(len(chunk.payloads))
        sys.stdout.buffer.flush()

    _run(hosts, action)


@ledger_command.command("create")
@quorum_options
@click.pass_obj
def create(hosts: str, ensemble: int, write_quorum: int, ack_quorum: int) -> None:
    """Create an empty, closed ledger and print its id."""

    async def action(ledgers: bookie.Ledgers) -> int:
        options = {"ensemble": ensemble, "write_quorum": write_quorum, "ack_quorum": ack_quorum}
        async with ledgers.create(**options) as ledger:
            return ledger.ledger_id

    click.echo(_run(hosts, action))


@ledger_command.command("list")
@json_option
@click.pass_obj
def list_ledgers(hosts: str, as_json: bool) -> None:
    """Print the ids of all ledgers."""

    async def action(ledgers: bookie.Ledgers) -> list[int]:
        return [ledger_id async for ledger_id in ledgers.list()]

    ids = _run(hosts, action)
    if ids or as_json:
        print_facts(ids, as_json, "\n".join(map(str, ids)))


@ledger_command.command("info")
@click.argument("ledger_id", type=click.IntRange(0))
@json_option
@click.pass_obj
def info(hosts: str, ledger_id: int, as_json: bool) -> None:
    """Print a ledger's state, quorums, end and fragments."""

    async def action(ledgers: bookie.Ledgers) -> bookie.LedgerMetadata:
        return await ledgers.metadata(ledger_id)

    metadata = _run(hosts, action)
    schedule = metadata.schedule
    facts = {
        "ledger": ledger_id,
        "state": metadata.state.name.lower(),
        "ensemble": schedule.ensemble_size,
        "write_quorum": schedule.write_quorum,
        "ack_quorum": schedule.ack_quorum,
        "last_entry": metadata.last_entry_id,
        "length": metadata.length,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(metadata.created_ms / 1000)),
        "fragments": [
            {
                "first_entry": fragment.first_entry_id,
                "bookies": [member.bookie_id for member in fragment.ensemble],
            }
            for fragment in metadata.fragments
        ],
    }
    text = "\n".join(f"{name:13} {value}" for name, value in facts.items() if name != "fragments")
    for fragment in metadata.fragments:
        names = ", ".join(member.bookie_id for member in fragment.ensemble)
        text += f"\nfrom entry {fragment.first_entry_id}: {names}"
    print_facts(facts, as_json, text)


@ledger_command.command("recover")
@click.argument("ledger_id", type=click.IntRange(0))
@click.pass_obj
def recover(hosts: str, ledger_id: int) -> None:
    """Fence and close a ledger whose writer has gone; print its last entry's id."""

    async def action(ledgers: bookie.Ledgers) -> int:
        async with ledgers.open(ledger_id) as reader:
            return reader.last_entry_id

    click.echo(_run(hosts, action))


@ledger_command.command("delete")
@click.argument("ledger_ids", metavar="LEDGER_ID...", type=click.IntRange(0), nargs=-1, required=True)
@click.pass_obj
def delete(hosts: str, ledger_ids: tuple[int, ...]) -> None:
    """Delete ledgers, open or closed; one that is not there is no error."""

    async def action(ledgers: bookie.Ledgers) -> None:
        for ledger_id in ledger_ids:
            await ledgers.delete(ledger_id)

    _run(hosts, action)
