"""One load generator as a process of its own; see the package's docstring."""

import dataclasses
import json
import os
import sys
from typing import Any

import trio

from pubsub.command.load import coord as coord_load
from pubsub.command.load import ledger as ledger_load
from pubsub.command.load import topic as topic_load
from pubsub.command.load.latency import LoadResult


def main() -> int:
    """Runs what the specification on the command line says; exit status 0 with a result, else 1."""
    fields: dict[str, Any] = json.loads(sys.argv[1])
    kind = fields.pop("load")
    try:
        result = _run(kind, fields)
    except KeyboardInterrupt:
        return 1
    except Exception as error:  # the process's outermost boundary: whoever started it tells the failure
        _print({"failed": _first_text(error)})
        return 1
    _print({"result": dataclasses.asdict(result)})
    return 0


def _run(kind: str, fields: dict[str, Any]) -> LoadResult:
    if kind == "coord":
        return coord_load.run(coord_load.CoordLoad(**fields), _on_ready, _on_progress)
    if kind == "ledger":
        spec = ledger_load.LedgerLoad(**fields)
        return trio.run(ledger_load.run, spec, _on_ready, _on_progress, strict_exception_groups=True)
    action = topic_load.publish if kind == "publish" else topic_load.subscribe
    topic = topic_load.TopicLoad(**fields)
    return trio.run(action, topic, _on_ready, _on_progress, strict_exception_groups=True)


def _on_ready() -> None:
    _print({"ready": True})


def _on_progress(completed: int, errors: int) -> None:
    _print({"completed": completed, "errors": errors})


def _print(fields: dict[str, object]) -> None:
    try:
        print(json.dumps(fields), flush=True)
    except BrokenPipeError:
        # Whoever started this process has gone, and with it the reason for the load.
        os._exit(1)


def _first_text(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
