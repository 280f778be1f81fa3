"""`zoolog up` as a process, reliably stopped."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.coord_servers import ROOT, wait_for

COMMAND = [sys.executable, "-m", "pubsub.command"]
END_SECONDS_MAX = 60.0


def zoolog(*arguments: str, data: bytes = b"", status: int = 0) -> str:
    """Runs the command; its standard output. A failure must be one line on standard error."""
    done = subprocess.run([*COMMAND, *arguments], input=data, capture_output=True, cwd=ROOT, timeout=60)
    error = done.stderr.decode()
    assert done.returncode == status, error
    assert "Traceback" not in error
    assert len(error.splitlines()) == (1 if status else 0), error
    return done.stdout.decode()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Up:
    """One run of `zoolog up`."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        with (directory.parent / f"{directory.name}.out").open("ab") as output:
            self._output = Path(output.name)
            self._skip = output.tell()
            self.process = subprocess.Popen(
                [*COMMAND, "up", "--dir", str(directory), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self._output.read_bytes()[self._skip :].decode()

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.output()
            return "\nready\n" in "\n" + self.output()

        wait_for(ready, "the cluster is ready", 60)

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.directory / "cluster.json").read_text())
        return facts

    @property
    def hosts(self) -> str:
        return ",".join(self.facts()["coord"])

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(END_SECONDS_MAX)

    def kill_all(self) -> None:
        """Whatever is left of it, whatever has failed."""
        pids = self.facts()["pids"] if (self.directory / "cluster.json").exists() else {}
        self.process.kill()
        self.process.wait()
        for pid in pids.values():
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def up(directory: Path, *options: str) -> Iterator[Up]:
    """A cluster that is ready; stopped, or killed if need be, when the block ends."""
    cluster = Up(directory, *options)
    try:
        cluster.wait_ready()
        yield cluster
        cluster.end()
    finally:
        cluster.kill_all()
