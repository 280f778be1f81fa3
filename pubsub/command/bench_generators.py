"""Load generators as processes: started, watched, their results taken in."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from coord.clock import SYSTEM_CLOCK
from pubsub.command.load.latency import Latencies, LoadResult

READ_BYTES = 1 << 16
#: A generator may take so long beyond its run: to prepare, to drain, to clean up.
SLACK_S = 120.0


class GeneratorError(Exception):
    """A load generator failed; the text is its own."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one generator measured, with requests of `size` bytes; `lost` were published and not delivered."""

    name: str
    result: LoadResult
    size: int
    lost: int = 0

    def facts(self) -> dict[str, Any]:
        """For people and for --json; latencies in milliseconds."""
        result = self.result
        per_second = result.completed / result.seconds
        return {
            "name": self.name,
            "per_second": round(per_second),
            "mb_per_second": round(per_second * self.size / 1e6, 2),
            **Latencies(result.latencies).facts(),
            "completed": result.completed,
            "errors": result.errors,
            "lost": self.lost,
            "seconds": round(result.seconds, 3),
            "generator_cpu": round(result.generator_cpu, 2),
        }


class Watcher:
    """A progress bar on standard error, where that is a terminal."""

    def __init__(self, title: str, seconds: float, console: Console) -> None:
        self._console = console
        self._seconds = seconds
        self._title = title
        self._begun_ms: int | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._progress.add_task(title, total=seconds)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.update(self._task, description=f"{self._title}: {text}")

    def note(self, line: str) -> None:
        """Something that stays on the screen."""
        self._console.print(line, highlight=False)

    def show(self, completed: int, errors: int) -> None:
        """Takes a generator's report."""
        now_ms = SYSTEM_CLOCK.monotonic_ms()
        if self._begun_ms is None:
            self._begun_ms = now_ms
        text = f"{completed:,} done" + (f", {errors:,} errors" if errors else "")
        done = min(self._seconds, (now_ms - self._begun_ms) / 1000)
        self._progress.update(self._task, completed=done, description=f"{self._title}: {text}")


async def run_generators(specs: Sequence[tuple[str, dict[str, Any]]], watcher: Watcher) -> list[LoadResult]:
    """Runs generators together; each begins once those before it are ready. The last one's reports are shown.

    Cancelled, their processes are killed.

    Raises:
        GeneratorError: one of them failed, or did not end in time.
    """
    results: list[LoadResult | None] = [None] * len(specs)
    longest = max(spec["seconds"] + spec["warm_up_s"] for _, spec in specs)
    with trio.move_on_after(longest + SLACK_S):
        failures: list[GeneratorError] = []
        async with trio.open_nursery() as nursery:

            async def run(
                number: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
            ) -> None:
                kind, spec = specs[number]
                shown = watcher if number == len(specs) - 1 else None
                try:
                    results[number] = await _run_one({"load": kind, **spec}, shown, task_status)
                except GeneratorError as error:
                    # Noted, not raised: the nursery would wrap it, and one reason is enough.
                    failures.append(error)
                    nursery.cancel_scope.cancel()
                    task_status.started()

            for number in range(len(specs)):
                await nursery.start(run, number)
        if failures:
            raise failures[0]
        return [result for result in results if result is not None]
    raise GeneratorError(f"a load generator did not end within {longest + SLACK_S:.0f} s")


async def _run_one(
    fields: dict[str, Any], watcher: Watcher | None, task_status: "trio.TaskStatus[None]"
) -> LoadResult:
    """Runs one generator's process to its end."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "pubsub.command.load", json.dumps(fields)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # Its own group: Ctrl-C comes to this process, which ends the generator.
        start_new_session=True,
    )
    output = process.stdout
    assert output is not None
    lines = _Lines()
    started = False
    try:
        async with output:
            while data := await output.receive_some(READ_BYTES):
                for line in lines.take(bytes(data)):
                    if "result" in line:
                        return _decode_result(line["result"])
                    if "failed" in line:
                        raise GeneratorError(line["failed"])
                    if "ready" in line and not started:
                        started = True
                        task_status.started()
                    elif "completed" in line and watcher is not None:
                        watcher.show(line["completed"], line["errors"])
        status = await process.wait()
        raise GeneratorError(f"the {fields['load']} load generator ended with status {status}")
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def _decode_result(fields: dict[str, Any]) -> LoadResult:
    """JSON's keys are texts."""
    counts = {int(us): count for us, count in fields.pop("latencies").items()}
    return LoadResult(**fields, latencies=counts)


class _Lines:
    """Lines of JSON out of a stream of bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> Iterator[dict[str, Any]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line)
