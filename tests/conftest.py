"""What holds for every test."""

import os
import signal
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.coord_servers import release_ports

# Nothing is judged by how long it takes: how busy the machine is says nothing about the code.
settings.register_profile("zoolog", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("zoolog")

# Tests start hundreds of servers and commands: if each compiled all its modules anew, that would be half of
# what a start costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Who runs the tests in the background of a shell has them start with SIGINT ignored, and every process they
# start inherits that; the tests that press Ctrl-C need it to be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        release_ports()


KILLING = ("tests/crash/", "tests/pubsub/command/", "tests/bookie/client/test_with_processes.py")
"""Tests that start, stop and kill servers all the time. In a run of several processes one has them all: two
of their ensembles at once would take two cores from everybody's deadlines.
"""
SIMULATIONS = ("tests/sim/",)
"""Need a core and nothing else."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a run of several processes (`make test`, by pytest-xdist) what takes long begins."""
    if hasattr(config, "workerinput"):
        items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    if item.nodeid.startswith(KILLING):
        return 0
    if item.nodeid.startswith(SIMULATIONS):
        return 3
    return 1 if item.get_closest_marker("interop") else 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Who runs what: a file's tests stay together, so that what its fixtures start is started once;
    simulations are given out one by one, so that at the end no process waits long for another.
    """
    from xdist.scheduler import LoadFileScheduling

    class Sharing(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(KILLING):
                return "killing"
            return nodeid if nodeid.startswith(SIMULATIONS) else super()._split_scope(nodeid)

    return Sharing(config, log) if config.getvalue("dist") == "loadfile" else None
