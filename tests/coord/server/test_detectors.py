"""Failure detection in servers: the keys of zoo.cfg, and the metrics."""

from pathlib import Path

import pytest

from coord.server.config import ConfigError, parse_config
from coord.zab import Detection
from tests.coord.server.ensembles import all_serve, ensemble, figure

FILE = {"dataDir": "/d", "clientPort": "2181"}


def test_detectors_are_fixed_unless_said_otherwise() -> None:
    detectors = parse_config(FILE).detectors
    assert detectors.of_peers() == detectors.of_observers() == Detection()


def test_each_class_of_links_has_its_own_detector() -> None:
    keys = {"detector.peers": "phi", "detector.peers.minimumMs": "700", "detector.observers.threshold": "12"}
    detectors = parse_config(FILE | keys).detectors
    assert detectors.of_peers() == Detection("phi", 8, 700)
    assert detectors.of_observers() == Detection("fixed", 12, 0)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("detector.peers", "Phi", "must be fixed or phi"),
        ("detector.observers", "", "must be fixed or phi"),
        ("detector.peers.threshold", "0", "must be from 1 to 100"),
        ("detector.peers.minimumMs", "-1", "must not be negative"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(name: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(FILE | {name: value})
    assert name in str(caught.value)
    assert expected in str(caught.value)


async def test_suspicion_of_each_watched_peer_is_a_metric(tmp_path: Path) -> None:
    """A leader watches its followers, a follower its leader; all are alive, however slow the machine is."""
    keys = {"detector.peers": "phi", "detector.peers.minimumMs": "60000"}
    async with ensemble(tmp_path, **keys) as servers:
        await all_serve(servers)
        leader = await servers.leader()
        for sid in servers.running:
            if sid != leader:
                assert 0 <= await figure(servers, sid, f"{leader}_peer_suspicion") < 100
                assert 0 <= await figure(servers, leader, f"{sid}_peer_suspicion") < 100
            assert await figure(servers, sid, "loop_stood_still_ms") >= 0
