"""`zoolog coord to-json`, `zoolog coord from-json`: a server's whole state as text, and back."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")


@click.command("to-json")
@click.argument("data_dir", metavar="DATADIR", type=click.Path(exists=True, file_okay=False))
@click.option("--log-dir", metavar="DIR", help="dataLogDir, where the server has one of its own.")
@click.option("--to", "target", metavar="FILE", type=click.Path(dir_okay=False), help="Default: print it.")
def state_to_json(data_dir: str, log_dir: str | None, target: str | None) -> None:
    """Write the whole state of a stopped coordination server as JSON.

    Nodes with data, ACLs and Stats, sessions with their passwords, quotas, epochs: keep FILE as safe as
    DATADIR. Everything in the server's log counts, as if this server became the leader.
    """
    from coord import inspection
    from coord.disk import RealDisk

    pieces = inspection.state_to_json(data_dir, log_dir)
    if target is None:
        sys.stdout.writelines(pieces)
        return
    # Who has a backup may throw away what it is of: it is durable before it takes the place of an older one.
    draft = Path(target + ".draft")
    draft.touch(mode=0o600)
    with draft.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)
    RealDisk().fsync_directory(str(draft.parent))


@click.command("from-json")
@click.argument("source", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@click.option("--to", "target", metavar="DATADIR", required=True, help="dataDir without a state.")
@click.option("--to-log", "target_log", metavar="DIR", help="dataLogDir, if the server has one of its own.")
@json_option
def json_to_state(source: str, target: str, target_log: str | None, as_json: bool) -> None:
    """Make the first state of a coordination server from what `to-json` has written.

    For an ensemble, do it on every server with the same FILE; the digest printed must be the same everywhere.
    """
    from coord import inspection

    text = Path(source).read_text(encoding="utf-8")
    report = inspection.json_to_state(text, target, target_log)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
        return
    facts = f"{report.nodes} nodes, {report.sessions} sessions, zxid {report.zxid:#x}"
    click.echo(f"{facts}, digest {report.digest:016x}")
