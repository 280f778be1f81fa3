"""Start-up: nothing uncommitted is executed, nothing acknowledged is lost, nothing doubtful is used."""

import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest

from coord.disk import FaultyDisk, PowerLossError
from coord.log import LogDamagedError, LogFailedError
from coord.storage import Checkpointer, Epochs, RecoveryError, inspect_txnlog, open_state

EPOCH = 1 << 32
MakeServer = Callable[..., Any]


class StillClock:
    def monotonic_ms(self) -> int:
        return 0

    def wall_ms(self) -> int:
        return 0


def checkpoint(running: Any) -> None:
    checkpointer = Checkpointer(running.found.store, StillClock(), lambda: None, threaded=False)
    checkpointer.begin(running.state)
    while (finished := checkpointer.take_finished()) is None:
        checkpointer.work()
    assert finished.failure is None
    checkpointer.close()


def last_frame(running: Any, segment: int = 1, kind: str = "batch") -> tuple[str, int]:
    """File and offset of the last group."""
    path = f"{running.directory.log_path()}/txn.{segment:016x}"
    records = [row for row in inspect_txnlog(running.disk, path) if row.kind == kind]
    first_of_group = next(row for row in records if row.facts["group"] == records[-1].facts["group"])
    return path, first_of_group.offset // 512 * 512


def lasts(found: Any) -> list[int]:
    return [batch.last for batch in found.batches]


def test_an_empty_directory_is_a_new_server(disk: FaultyDisk, server: MakeServer) -> None:
    found = server(disk).found
    assert (found.executed_zxid, found.after_zxid, found.batches, found.state.nodes) == (0, 0, [], {})
    assert not found.history_lost
    assert found.warnings == []


def test_a_standalone_server_executes_all_that_it_logged(
    disk: FaultyDisk, server: MakeServer, nodes_at: Any
) -> None:
    running = server(disk)
    running.write(*range(1, 30))
    running.close()
    found = server(disk, 2).found
    assert (found.executed_zxid, found.state.nodes) == (29, nodes_at(29))
    assert found.log.last_zxid == 29


def test_a_member_executes_only_up_to_the_highest_committed_zxid_found(
    disk: FaultyDisk, server: MakeServer, nodes_at: Any
) -> None:
    """DESIGN 4: what lies above is an uncommitted tail; it is handed out unexecuted."""
    running = server(disk, standalone=False)
    running.directory.save_epochs(Epochs(1, 1))
    for zxid in range(1, 11):
        running.append(zxid, committed=max(zxid - 4, 0))
    running.step()
    running.close()
    found = server(disk, 2, standalone=False).found
    assert (found.executed_zxid, found.state.nodes) == (6, nodes_at(6))
    assert lasts(found) == list(range(1, 11))
    assert found.after_zxid == 0


def test_a_mark_of_an_idle_leader_lets_the_last_batch_be_executed(
    disk: FaultyDisk, server: MakeServer, nodes_at: Any
) -> None:
    running = server(disk, standalone=False)
    running.append(1)
    running.append(2, committed=1)
    running.log.append_mark(2, "mark")
    running.step()
    assert running.log.take_durable() == [1, 2, "mark"]
    running.close()
    running = server(disk, 2, standalone=False)
    assert (running.found.executed_zxid, running.state.nodes) == (2, nodes_at(2))
    assert lasts(running.found) == [1, 2]
    running.append(3, committed=2)
    running.step()
    running.close()
    assert lasts(server(disk, 3, standalone=False).found) == [1, 2, 3]


def test_a_commit_mark_may_name_a_batch_that_is_not_logged_here(disk: FaultyDisk, server: MakeServer) -> None:
    running = server(disk, standalone=False)
    running.append(1, committed=99)
    running.step()
    running.close()
    assert server(disk, 2, standalone=False).found.executed_zxid == 1


def test_continues_from_the_checkpoint_with_the_log_above_it(
    disk: FaultyDisk, server: MakeServer, nodes_at: Any
) -> None:
    running = server(disk, segment_bytes_max=2048)
    running.write(*range(1, 30))
    checkpoint(running)
    running.write(*range(30, 41))
    running.log.remove_below(29, keep_bytes=0)
    running.step()
    running.log.take_durable()
    assert running.log.oldest_zxid > 0
    running.close()
    running = server(disk, 2)
    found = running.found
    assert (found.executed_zxid, found.state.nodes) == (40, nodes_at(40))
    assert lasts(found) == list(range(found.after_zxid + 1, 41))
    assert found.after_zxid <= 29
    checkpoint(running)
    assert running.found.store.zxid == 40


def test_a_checkpoint_alone_is_enough(disk: FaultyDisk, server: MakeServer, nodes_at: Any) -> None:
    running = server(disk)
    running.write(*range(1, 30))
    checkpoint(running)
    running.close()
    running = server(disk, 2)
    assert (running.found.executed_zxid, running.state.nodes) == (29, nodes_at(29))
    running.write(30)
    running.close()
    assert server(disk, 3).found.executed_zxid == 30


def test_the_window_is_bounded_but_never_lacks_what_is_unexecuted(
    disk: FaultyDisk, server: MakeServer, small_kind: Any
) -> None:
    running = server(disk, standalone=False)
    for zxid in range(1, 41):
        running.append(zxid, committed=min(zxid - 1, 20))
    running.step()
    running.log.close()
    found = open_state(
        running.directory,
        running.environments,
        small_kind,
        running.options,
        standalone=False,
        window_bytes_max=500,
    )
    assert lasts(found)[-20:] == list(range(21, 41))
    assert lasts(found)[0] > 1
    assert found.after_zxid == lasts(found)[0] - 1 <= 20


def test_a_torn_tail_is_cut_and_told(disk: FaultyDisk, server: MakeServer, nodes_at: Any) -> None:
    running = server(disk)
    running.write(1, 2, 3)
    path, offset = last_frame(running)
    running.close()
    disk.replace_content(path, disk.content(path)[: offset + 90])
    found = server(disk, 2).found
    assert found.torn_tail is not None
    assert found.torn_tail.path == path
    assert (found.executed_zxid, found.state.nodes) == (0, {})


def test_damage_in_the_log_stops_the_start_with_file_and_offset(disk: FaultyDisk, server: MakeServer) -> None:
    running = server(disk)
    for zxid in range(1, 6):
        running.write(zxid)
    path = running.directory.log_path() + "/txn.0000000000000001"
    running.close()
    content = disk.content(path)
    disk.flip_bit(path, 8 * 1100)
    with pytest.raises(LogDamagedError, match=path):
        server(disk, 2)
    disk.flip_bit(path, 8 * 1100)
    assert disk.content(path) == content
    disk._locks.clear()
    assert server(disk, 3).found.executed_zxid == 5


def test_a_bad_checkpoint_is_set_aside_and_rebuilt_from_the_log(
    disk: FaultyDisk, server: MakeServer, nodes_at: Any
) -> None:
    running = server(disk)
    running.write(*range(1, 20))
    checkpoint(running)
    running.close()
    disk.flip_bit(running.found.store.path + "/tables", 500)
    running = server(disk, 2)
    assert (running.found.executed_zxid, running.state.nodes) == (19, nodes_at(19))
    assert running.found.set_aside == "/data/zoolog/checkpoint-set-aside"
    assert "moved to" in running.found.warnings[0]
    checkpoint(running)
    running.close()
    assert server(disk, 3).found.warnings == []


def lose_history(disk: FaultyDisk, server: MakeServer) -> None:
    """A server whose log begins behind a checkpoint that is then damaged."""
    running = server(disk, segment_bytes_max=1024, standalone=False)
    running.directory.save_epochs(Epochs(4, 3))
    running.write(*range(1, 10))
    for zxid in range(10, 20):
        running.write(zxid)
    checkpoint(running)
    running.log.remove_below(19, keep_bytes=0)
    running.step()
    running.log.take_durable()
    running.close()
    disk.flip_bit(running.found.store.path + "/tables", 500)


def test_a_member_whose_history_is_lost_starts_without_one_but_keeps_its_promises(
    disk: FaultyDisk, server: MakeServer
) -> None:
    """DESIGN 4: a server without history is counted in no quorum, so it claims no epoch's history; 20.2: the
    epoch it has accepted is never forgotten.
    """
    lose_history(disk, server)
    running = server(disk, 2, standalone=False)
    found = running.found
    assert found.history_lost
    assert (found.executed_zxid, found.batches, found.state.nodes, found.log.last_zxid) == (0, [], {}, 0)
    assert running.directory.epochs == Epochs(4, 0)
    assert disk.exists("/data/zoolog/checkpoint-set-aside/tables")
    running.close()
    again = server(disk, 3, standalone=False)
    assert again.found.history_lost
    assert again.found.log.last_zxid == 0
    again.directory.save_epochs(Epochs(5, 5))  # what ends a synchronization
    again.close()
    assert not server(disk, 4, standalone=False).found.history_lost


def test_a_member_with_a_damaged_log_sets_it_aside_and_keeps_its_checkpoint(
    disk: FaultyDisk, server: MakeServer, nodes_at: Any
) -> None:
    """It cannot prove what it acknowledged, so it claims nothing: no epoch is its own. What there is of the
    log stays as evidence, and a leader need not send what the checkpoint holds.
    """
    running = server(disk, standalone=False)
    running.directory.save_epochs(Epochs(4, 3))
    for zxid in range(1, 6):
        running.write(zxid)
    checkpoint(running)
    running.write(6)
    generation = running.directory.generation
    path = running.directory.log_path() + "/txn.0000000000000001"
    running.close()
    disk.flip_bit(path, 8 * 1100)
    damaged = disk.content(path)
    running = server(disk, 2, standalone=False)
    assert running.found.history_lost
    found = running.found
    assert (found.executed_zxid, found.after_zxid, found.log.last_zxid) == (5, 5, 5)
    assert (found.state.nodes, found.batches, found.store.zxid) == (nodes_at(5), [], 5)
    assert running.directory.epochs == Epochs(4, 0)
    assert f"{path} is damaged at offset 1024" in running.found.warnings[0]
    assert disk.content(f"/data/zoolog/set-aside-log-{generation}/txn.0000000000000001") == damaged
    running.append(6)
    running.step()
    running.log.take_durable()
    running.directory.save_epochs(Epochs(5, 5))  # what ends a synchronization
    running.close()
    again = server(disk, 3, standalone=False)
    assert (again.directory.generation, again.found.history_lost) == (generation, False)
    assert (again.found.executed_zxid, again.found.log.last_zxid) == (5, 6)


def test_a_log_damaged_again_before_a_leader_made_it_good_loses_nothing_more(
    disk: FaultyDisk, server: MakeServer
) -> None:
    """What can still be repaired is the log that was lost first, and the epoch that went with it."""
    running = server(disk, standalone=False)
    running.directory.save_epochs(Epochs(4, 3))
    for zxid in range(1, 6):
        running.write(zxid)
    lost_path = running.directory.log_path()
    running.close()
    disk.flip_bit(lost_path + "/txn.0000000000000001", 8 * 1100)
    running = server(disk, 2, standalone=False)
    first = running.directory.loss
    assert first is not None
    assert (first.current_epoch, lost_path.endswith(first.log_generation)) == (3, True)
    running.append(1)
    running.append(2)
    running.step()
    path = running.directory.log_path()
    running.close()
    disk.flip_bit(path + "/txn.0000000000000001", 8 * 100)
    running = server(disk, 3, standalone=False)
    assert running.found.log.last_zxid == 0
    again = running.directory.loss
    assert again is not None
    assert (again.log_generation, again.current_epoch) == (first.log_generation, 3)
    assert running.directory.lost_log_path() == f"/data/zoolog/set-aside-log-{first.log_generation}"


def test_a_member_without_peers_refuses_to_start_from_a_damaged_log(
    disk: FaultyDisk, server: MakeServer, small_kind: Any
) -> None:
    running = server(disk, standalone=False)
    for zxid in range(1, 6):
        running.write(zxid)
    path = running.directory.log_path() + "/txn.0000000000000001"
    running.log.close()
    disk.flip_bit(path, 8 * 1100)
    with pytest.raises(LogDamagedError, match=path):
        open_state(
            running.directory,
            running.environments,
            small_kind,
            running.options,
            standalone=False,
            has_peers=False,
        )


def test_a_crash_at_any_step_of_giving_a_history_up_leaves_no_server_that_counts_without_it(
    server: MakeServer, nodes_at: Any
) -> None:
    outcomes = set()
    for step in range(60):
        disk = FaultyDisk()
        running = server(disk, standalone=False)
        running.directory.save_epochs(Epochs(4, 3))
        for zxid in range(1, 6):
            running.write(zxid)
        path = running.directory.log_path() + "/txn.0000000000000001"
        running.close()
        disk.flip_bit(path, 8 * 1100)
        disk.power_off_after(step)
        with contextlib.suppress(PowerLossError):
            server(disk, 2, standalone=False)
            outcomes.add("done")
        disk.restart(random.Random(step))
        again = server(disk, 3, standalone=False)
        assert again.found.history_lost, step
        assert again.directory.epochs == Epochs(4, 0), step
        assert again.found.executed_zxid == 0
        assert len([name for name in disk.list("/data/zoolog") if name.startswith("set-aside-log-")]) == 1
        outcomes.add(again.found.warnings == [])
    assert outcomes == {"done", True, False}


def test_a_standalone_server_whose_history_is_lost_refuses_to_start(
    disk: FaultyDisk, server: MakeServer
) -> None:
    lose_history(disk, server)
    for _ in range(2):
        disk._locks.clear()
        with pytest.raises(RecoveryError, match="the history of this server is lost"):
            server(disk, 2)


def test_a_bad_checkpoint_with_an_empty_log_is_lost_history_too(disk: FaultyDisk, server: MakeServer) -> None:
    running = server(disk)
    running.write(*range(1, 20))
    checkpoint(running)
    log = running.directory.log_path()
    running.close()
    for name in disk.list(log):
        disk.unlink(f"{log}/{name}")
    disk.flip_bit(running.found.store.path + "/tables", 500)
    with pytest.raises(RecoveryError, match="lost"):
        server(disk, 2)


def test_a_log_that_ends_before_the_checkpoint_begins_anew_behind_it(
    disk: FaultyDisk, server: MakeServer, nodes_at: Any
) -> None:
    """The last group is torn; the checkpoint has what was in it."""
    running = server(disk)
    running.write(1, 2)
    running.write(3)
    checkpoint(running)
    path, offset = last_frame(running)
    running.close()
    disk.replace_content(path, disk.content(path)[: offset + 90])
    running = server(disk, 2)
    found = running.found
    assert (found.executed_zxid, found.state.nodes, found.after_zxid, found.batches) == (
        3,
        nodes_at(3),
        3,
        [],
    )
    assert "before the checkpoint" in found.warnings[0]
    running.write(4)
    running.close()
    found = server(disk, 3).found
    assert (found.executed_zxid, lasts(found), found.after_zxid) == (4, [4], 3)


def test_a_last_group_that_was_written_in_full_and_is_bad_is_damage(
    disk: FaultyDisk, server: MakeServer
) -> None:
    """It may have been acknowledged: a crash leaves a group whole or with sectors missing."""
    running = server(disk)
    running.write(1, 2)
    running.write(3)
    path, offset = last_frame(running)
    running.close()
    disk.flip_bit(path, 8 * (offset + 90))
    with pytest.raises(LogDamagedError, match="written in full"):
        server(disk, 2)


def test_a_bad_mark_at_the_end_is_no_loss_if_the_log_reaches_where_it_ended(
    disk: FaultyDisk, server: MakeServer
) -> None:
    running = server(disk)
    running.write(1)
    running.write(2)
    running.log.append_mark(2, None)
    running.step()
    running.close()
    running.directory.save_log_end(2)
    path, offset = last_frame(running, kind="mark")
    disk.flip_bit(path, 8 * (offset + 10))
    running = server(disk, 2)
    assert running.found.log.last_zxid == 2
    running.write(3)
    path, offset = last_frame(running, segment=2)
    running.close()
    disk.flip_bit(path, 8 * (offset + 10))
    with pytest.raises(LogDamagedError, match="written in full"):  # what was noted is passed
        server(disk, 3)


def test_a_hole_between_checkpoint_and_log_is_refused(disk: FaultyDisk, server: MakeServer) -> None:
    running = server(disk)
    running.write(1, 2, 3)
    running.state.zxid = 2
    checkpoint(running)  # says 2 where the state holds 3: what a lost record between would look like
    running.log.append(5, 5, (b"x",), 0, None)
    running.log.append(EPOCH, EPOCH + 1, (b"x",), 0, None)
    running.step()
    running.close()
    with pytest.raises(RecoveryError, match="the logged batch 0x5"):
        server(disk, 2)


def test_a_log_above_every_accepted_epoch_is_refused(disk: FaultyDisk, server: MakeServer) -> None:
    """Spec 20.2, against the accepted epoch: a learner may stop half way through its synchronization."""
    running = server(disk, standalone=False)
    running.directory.save_epochs(Epochs(2, 1))
    running.append(2 * EPOCH + 1)
    running.step()
    running.close()
    assert server(disk, 2, standalone=False).found.log.last_zxid == 2 * EPOCH + 1
    disk._locks.clear()
    running = server(disk, 3, standalone=False)
    running.append(3 * EPOCH + 1)
    running.step()
    running.close()
    with pytest.raises(RecoveryError, match="no epoch above 2 was ever accepted"):
        server(disk, 4, standalone=False)


def test_a_power_loss_anywhere_in_a_servers_life_loses_nothing_acknowledged(
    server: MakeServer, nodes_at: Any
) -> None:
    for seed in range(80):
        source = random.Random(seed)
        disk = FaultyDisk()
        acknowledged = 0
        for life in range(4):
            running = server(disk, seed * 10 + life, segment_bytes_max=1500)
            assert running.found.executed_zxid >= acknowledged, f"seed {seed}"
            assert running.state.nodes == nodes_at(running.found.executed_zxid), f"seed {seed}"
            zxid = running.found.executed_zxid
            disk.power_off_after(source.randrange(60))
            with contextlib.suppress(PowerLossError, LogFailedError):
                while True:
                    zxid += 1
                    running.write(zxid)
                    acknowledged = max(acknowledged, running.log.durable_zxid)
                    if source.random() < 0.2:
                        checkpoint(running)
                        running.log.remove_below(running.found.store.zxid, keep_bytes=0)
                        running.step()
            disk.restart(source)
