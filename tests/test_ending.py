"""A program that is told to end by a signal stops the servers that it has started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.coord_servers import ROOT

WITH_SERVERS = """
import sys, time
from pathlib import Path
from tests.coord_servers import CoordServers
from tests.ending import end_in_order

end_in_order()
with CoordServers(Path(sys.argv[1])) as servers:
    print(servers.servers[0].process.pid, flush=True)
    time.sleep(600)
"""
WITH_TRIO = """
import os, trio
from tests.ending import end_in_order

async def main():
    try:
        print(os.getpid(), flush=True)
        await trio.sleep_forever()
    finally:
        print("ended", flush=True)

end_in_order()
trio.run(main)
"""


def start(script: str, *words: str, ignoring_interrupts: bool = False) -> tuple[subprocess.Popen[str], int]:
    """And the process id that it prints."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, "-c", script, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=ignore if ignoring_interrupts else None,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_servers_are_stopped_when_who_started_them_is_told_to_end(
    tmp_path: Path, number: signal.Signals
) -> None:
    process, server = start(WITH_SERVERS, str(tmp_path))
    with process:
        process.send_signal(number)
        assert process.wait() != 0
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_a_program_in_trio_ends_in_order_too_where_a_shell_has_started_it_in_the_background() -> None:
    process, _ = start(WITH_TRIO, ignoring_interrupts=True)
    with process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.read() == "ended\n"
