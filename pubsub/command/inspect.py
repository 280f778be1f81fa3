"""`zoolog inspect`: what a file of ours holds, a row a line, without changing it."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from pubsub.command.options import json_option, print_facts

KINDS = ("txnlog", "checkpoint", "segment", "index")
DIRECTORIES = ("checkpoint", "index")


@click.command("inspect")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("path", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@json_option
@click.pass_context
def inspect_command(ctx: click.Context, kind: str, path: Path, as_json: bool) -> None:
    """Show the rows of a coordination server's txnlog or checkpoint, or of a bookie's segment or index.

    A checkpoint and an index are directories. The server that owns them must not be running. Exit status 1
    where a row tells of damage.
    """
    if path.is_dir() != (kind in DIRECTORIES):
        expected, got = ("directory", "file") if kind in DIRECTORIES else ("file", "directory")
        raise click.BadParameter(f"expected the {expected} of a {kind}, got a {got}", ctx, param_hint="FILE")
    if kind in DIRECTORIES and not (path / "data.mdb").exists():
        # Opening it would create it.
        raise click.BadParameter(f"there is no {kind} in {path}", ctx, param_hint="FILE")
    damaged = False
    rows = []
    for row in _rows(kind, path):
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


def _rows(kind: str, path: Path) -> Iterable[Any]:
    if kind in ("txnlog", "checkpoint"):
        from coord import inspection as coord_files

        return (
            coord_files.read_txnlog(str(path)) if kind == "txnlog" else coord_files.read_checkpoint(str(path))
        )
    from bookie import inspection as bookie_files

    return bookie_files.read_segment(str(path)) if kind == "segment" else bookie_files.read_index(str(path))
