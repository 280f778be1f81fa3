"""The example programs of coordination run as they are."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.coord_servers import ROOT, CoordServers

SECONDS_MAX = 60


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with CoordServers(Path(tmp_path_factory.mktemp("examples"))) as servers:
        yield servers.hosts


@contextlib.contextmanager
def running(hosts: str, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """An example as a process, which does not outlive the block."""
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    environment = {"ZOOLOG_COORD": hosts, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def output_of(process: subprocess.Popen[str]) -> list[str]:
    output, _ = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0
    return output.splitlines()


def test_the_parties_of_the_tutorial_s_barrier_begin_and_end_together(hosts: str) -> None:
    with running(hosts, "barrier.py", "4") as parties:
        lines = output_of(parties)
    assert len(lines) == 16
    first_begun = next(at for at, line in enumerate(lines) if "has begun" in line)
    assert all("has come" in line for line in lines[:4])
    assert first_begun >= 4
    assert all("leaves" in line for line in lines[-4:])


def test_the_tutorial_s_consumer_takes_what_the_producer_puts_in_order(hosts: str) -> None:
    with (
        running(hosts, "producer_consumer.py", "consume", "20") as consumer,
        running(hosts, "producer_consumer.py", "produce", "20") as producer,
    ):
        assert output_of(producer) == []
        assert output_of(consumer) == [str(number) for number in range(20)]


def test_the_first_example_leads(hosts: str) -> None:
    with running(hosts, "coordination.py") as example:
        assert "I lead; my fencing token is" in output_of(example)[-1]
