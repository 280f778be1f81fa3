"""`zoolog inspect`: what a file of ours holds, a row a line, without changing it."""

import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from pubsub.command.options import json_option, print_facts

KINDS = ("txnlog", "checkpoint", "segment", "index")
DIRECTORIES = ("checkpoint", "index")


@click.command("inspect")
@click.argument("kind", type=click.Choice(KINDS), required=False)
@click.argument("path", metavar="FILE", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--verify",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Check all files of the coordination server with this dataDir.",
)
@click.option("--log-dir", metavar="DIR", help="With --verify: its dataLogDir, where it has one of its own.")
@click.option(
    "--transactions", is_flag=True, help="With txnlog: a line for each transaction, not each batch."
)
@json_option
@click.pass_context
def inspect_command(
    ctx: click.Context,
    kind: str | None,
    path: Path | None,
    verify: str | None,
    log_dir: str | None,
    transactions: bool,
    as_json: bool,
) -> None:
    """Show the rows of a coordination server's txnlog or checkpoint, or of a bookie's segment or index.

    A checkpoint and an index are directories. The server that owns them must not be running. Exit status 1
    where a row tells of damage.

    With txnlog --transactions each line is a transaction: zxid, the leader's time, session, the server that
    owned it, type, path, and bytes of the data; `length` is that of the whole request. `error` is there where
    the leader refused it; what became of the others is known to those who execute them, not to the log.

    With --verify DIR all files of a stopped coordination server are read and compared: each checksum, each
    transaction, and that the log leads on from the checkpoint.
    """
    if verify is not None:
        if kind is not None:
            raise click.UsageError("--verify DIR looks at all files; name no other")
        if _verify(verify, log_dir, as_json):
            ctx.exit(1)
        return
    if transactions and kind != "txnlog":
        raise click.UsageError("--transactions is for a txnlog")
    if kind is None or path is None:
        raise click.UsageError("expected a kind and a FILE, or --verify DIR")
    if path.is_dir() != (kind in DIRECTORIES):
        expected, got = ("directory", "file") if kind in DIRECTORIES else ("file", "directory")
        raise click.BadParameter(f"expected the {expected} of a {kind}, got a {got}", ctx, param_hint="FILE")
    if kind in DIRECTORIES and not (path / "data.mdb").exists():
        # Opening it would create it.
        raise click.BadParameter(f"there is no {kind} in {path}", ctx, param_hint="FILE")
    damaged = False
    rows = []
    for row in _rows(kind, path, transactions):
        facts: dict[str, Any] = {"kind": row.kind}
        for name in ("offset", "number", "length"):
            if hasattr(row, name):
                facts[name] = getattr(row, name)
        facts |= row.facts
        damaged |= row.kind == "damage"
        if as_json:
            rows.append(facts)
        else:
            sys.stdout.write("  ".join(f"{name}={value}" for name, value in facts.items()) + "\n")
    if as_json:
        print_facts(rows, True, "")
    if damaged:
        ctx.exit(1)


def _verify(directory: str, log_dir: str | None, as_json: bool) -> bool:
    """Prints what was found; whether there is damage."""
    from coord.inspection import verify_directory

    findings = list(verify_directory(directory, log_dir))
    if as_json:
        print_facts([dataclasses.asdict(one) for one in findings], True, "")
    else:
        for one in findings:
            where = one.path if one.offset is None else f"{one.path} at {one.offset}"
            sys.stdout.write(f"{one.kind}: {where}: {one.text}\n")
    return any(one.kind == "damage" for one in findings)


def _rows(kind: str, path: Path, transactions: bool) -> Iterable[Any]:
    if kind in ("txnlog", "checkpoint"):
        from coord import inspection as coord_files

        if transactions:
            return coord_files.read_transactions(str(path))
        return (
            coord_files.read_txnlog(str(path)) if kind == "txnlog" else coord_files.read_checkpoint(str(path))
        )
    from bookie import inspection as bookie_files

    return bookie_files.read_segment(str(path)) if kind == "segment" else bookie_files.read_index(str(path))
