"""`zoolog coord import`, `zoolog coord export`: coming from Apache ZooKeeper, and going back
(`docs/migrate.md`).
"""

import dataclasses
import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pubsub.command.progress import Progress

json_option = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")


@contextmanager
def collecting_nothing() -> Iterator[None]:
    """Nothing of what is read is garbage before the end: to look for some takes a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@click.command("import")
@click.argument("source", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option("--log-dir", metavar="DIR", help="ZooKeeper's dataLogDir, where it has one of its own.")
@click.option("--to", "target", metavar="DATADIR", help="dataDir of zoolog's server; may be DIR itself.")
@click.option("--to-log", "target_log", metavar="DIR", help="dataLogDir of zoolog's server, if it has one.")
@click.option("--dry-run", is_flag=True, help="Read and check everything, write nothing.")
@click.option("--snapshot", metavar="FILE", help="Begin with this snapshot instead of the newest.")
@click.option("--skip-digests", is_flag=True, help="Do not compare ZooKeeper's digests with the tree.")
@json_option
def import_apache(
    source: str,
    log_dir: str | None,
    target: str | None,
    target_log: str | None,
    dry_run: bool,
    snapshot: str | None,
    skip_digests: bool,
    as_json: bool,
) -> None:
    """Take over the state of a stopped Apache ZooKeeper server.

    DIR is its dataDir. Nodes, ACLs, sessions and zxid become the first state of a zoolog server with the
    dataDir DATADIR, whose epochs go on above ZooKeeper's. DIR is only read. Damage is named and refused.

    For an ensemble, import the same copy of one server's DIR on every server: that of the server with the
    highest zxid (--dry-run prints it). The digest printed must then be the same everywhere.
    """
    from coord.apache import import_directory

    if target is None and not dry_run:
        raise click.UsageError("--to DATADIR is missing (or --dry-run, to check only)")
    with collecting_nothing(), Progress("nodes and transactions read") as progress:
        report = import_directory(
            source,
            None if dry_run else target,
            source_log_dir=log_dir,
            target_log_dir=target_log,
            snapshot=snapshot,
            check_digests=not skip_digests,
            tell=progress.add,
        )
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
        return
    click.echo(
        f"{report.nodes} nodes ({report.ephemerals} ephemeral), {report.sessions} sessions, "
        f"zxid {report.zxid:#x}, epoch {report.epoch}, digest {report.digest:016x}"
    )
    click.echo(
        f"from {report.snapshot or 'no snapshot'} and {report.transactions} transactions, "
        f"{report.digests} digests compared"
    )


@click.command("export")
@click.argument("data_dir", metavar="DATADIR", type=click.Path(exists=True, file_okay=False))
@click.option("--log-dir", metavar="DIR", help="dataLogDir, where the server has one of its own.")
@click.option(
    "--to", "target", metavar="DIR", required=True, help="dataDir for ZooKeeper, without version-2."
)
@json_option
def export_apache(data_dir: str, log_dir: str | None, target: str, as_json: bool) -> None:
    """Write the state of a stopped zoolog server as Apache ZooKeeper's files.

    DATADIR is its dataDir. ZooKeeper 3.5 to 3.9 starts from DIR with all nodes, ACLs and zxids. Clients whose
    session began on zoolog are told that it has expired, and begin a new one.

    For an ensemble, export from the server with the highest zxid, and put the same files on every server.
    """
    from coord.apache import export_directory

    with collecting_nothing():
        report = export_directory(data_dir, target, data_log_dir=log_dir)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
        return
    click.echo(
        f"{report.nodes} nodes, {report.sessions} sessions ({report.lost_sessions} that ZooKeeper cannot "
        f"take up), zxid {report.zxid:#x}, epoch {report.epoch}"
    )
    click.echo(f"in {report.snapshot}")
