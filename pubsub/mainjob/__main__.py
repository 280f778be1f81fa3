"""Runs the main job; exit status 0 only if everything that was written came back, in order and unchanged."""

import argparse
import shutil
import signal
import sys
from pathlib import Path

import trio

import bookie
import coord
import pubsub
from coord.clock import SYSTEM_CLOCK
from pubsub.cluster import ClusterError, ClusterPlan, LocalCluster, failing_on_signals, run_cluster
from pubsub.mainjob.corpus import Corpus, load_corpus
from pubsub.mainjob.faults import kill_in_turn
from pubsub.mainjob.report import Outcome, Status, check, print_report
from pubsub.mainjob.work import Elections, LedgerJob, Probe, Publisher, Subscriber, WrongError

DEADLINE_S = 115.0
TOPIC = "stdlib-lines"
SUBSCRIBERS = ("first", "second")
CANDIDATES = ("anna", "ben", "carla")


def main() -> int:
    """Runs the job in a directory of its own; what an earlier run left there is removed first."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument(
        "--dir", type=Path, default=Path("run"), help="where the cluster lives (default: run)"
    )
    directory: Path = parser.parse_args().dir.resolve()
    if directory.exists():
        if any(directory.iterdir()) and not (directory / "cluster.json").exists():
            sys.stderr.write(f"{directory} is not a cluster of ours; choose another --dir\n")
            return 2
        shutil.rmtree(directory)
    try:
        outcome = trio.run(_run, directory, strict_exception_groups=True)
    except (ClusterError, WrongError, trio.TooSlowError) as error:
        return _tell(error, directory)
    except BaseExceptionGroup as group:
        expected, others = group.split((ClusterError, WrongError, trio.TooSlowError))
        if expected is None or others is not None:
            raise
        return _tell(expected, directory)
    return print_report(outcome)


def _tell(error: BaseException, directory: Path) -> int:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = str(error) or f"not done within {DEADLINE_S:.0f} s"
    sys.stderr.write(f"main job failed: {text}; the servers' logs are in {directory}\n")
    return 1


async def _run(directory: Path) -> Outcome:
    corpus = load_corpus()
    status = Status(f"{len(corpus.files)} files, {len(corpus.lines)} lines, {corpus.byte_count / 1e6:.1f} MB")
    with trio.fail_after(DEADLINE_S), status:
        status.say("starting 3 coordination servers, 3 bookies and 2 hubs")
        async with (
            failing_on_signals(signal.SIGTERM, signal.SIGINT),
            run_cluster(ClusterPlan(directory), on_event=status.say) as cluster,
        ):
            return await _work(cluster.coord_hosts, cluster, corpus, status)


async def _work(hosts: str, cluster: LocalCluster, corpus: Corpus, status: Status) -> Outcome:
    publisher = Publisher(corpus, TOPIC)
    subscribers = [Subscriber(corpus, TOPIC, name) for name in SUBSCRIBERS]
    ledger_job, elections, probe = LedgerJob(corpus), Elections(), Probe()
    started_ms = SYSTEM_CLOCK.monotonic_ms()
    async with (
        coord.connect(hosts) as zk,
        bookie.connect(hosts) as ledgers,
        pubsub.connect(hosts) as bus,
        trio.open_nursery() as background,
    ):
        await bus.create_topic(TOPIC)
        background.start_soon(probe.run, zk)
        background.start_soon(status.follow, publisher, subscribers, ledger_job, elections)
        for name in CANDIDATES:
            background.start_soon(elections.run, hosts, name)
        async with trio.open_nursery() as work:
            for subscriber in subscribers:
                work.start_soon(subscriber.run, bus, publisher)
            work.start_soon(publisher.run, bus)
            work.start_soon(ledger_job.run, ledgers)
            deliveries = subscribers[0].marks
            kills = await kill_in_turn(cluster, zk, bus, TOPIC, probe.marks, deliveries, status.say)
            status.say("the kills are over; finishing the round")
            publisher.stop = ledger_job.stop = True
        status.say("reading the ledgers back")
        await ledger_job.verify(ledgers)
        background.cancel_scope.cancel()
    seconds = (SYSTEM_CLOCK.monotonic_ms() - started_ms) / 1000
    outcome = Outcome(corpus, publisher, subscribers, ledger_job, elections, kills, seconds)
    check(outcome)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
