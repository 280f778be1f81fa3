"""Random scripts played against Apache ZooKeeper 3.9 and against us: what comes back is the same.

`ZOOLOG_DIFFERENTIAL_SEEDS` says how many scripts of 200 steps are played (default 8). The differences that
are on purpose stand in `tests/interop/differential/deviations.py`.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from coord.protocol import opcodes
from tests.interop.differential.pair import Pair
from tests.interop.differential.script import Restart

pytestmark = pytest.mark.interop
SEEDS = int(os.environ.get("ZOOLOG_DIFFERENTIAL_SEEDS") or 8)
STEPS = 200
NEVER_GRANTED = {opcodes.CHECK, opcodes.RECONFIG, opcodes.DELETE_CONTAINER, opcodes.SASL}
"""Operations that scripts send to see them refused; a SASL exchange is not random."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(Path(tmp_path_factory.mktemp("pair"))) as pair:
        yield pair


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Ours are three servers, each with a session of the script."""
    with Pair(Path(tmp_path_factory.mktemp("spread")), ensemble=True) as pair:
        yield pair


def play_seeds(pair: Pair, seeds: range, option: str = "") -> None:
    for seed in seeds:
        script = pair.script(random.Random(seed), STEPS, quotas=option == "--quotas")
        difference = pair.difference(script)
        if difference is not None:
            command = f"python -m tests.interop.differential --seed {seed} --steps {STEPS} {option} --shrink"
            pytest.fail(f"step {difference.step} differs:\n{difference}\nmake it short with: {command}")


def test_random_scripts_get_the_same_answers(pair: Pair) -> None:
    """Specification 5 to 11, in whatever order chance puts them; all operations are met, and refused, too."""
    play_seeds(pair, range(1, SEEDS + 1))
    assert pair.replies.total() > 400 * SEEDS
    succeeded = {op for op, err in pair.replies if err == 0}
    numbers = set(range(1, 23)) - {10} | set(range(100, 108)) | {opcodes.CLOSE_SESSION}
    assert numbers - succeeded == NEVER_GRANTED
    refusals = {err for _, err in pair.replies}
    assert refusals >= {-5, -6, -8, -101, -102, -103, -108, -110, -111, -114, -115}


def test_quotas_are_kept_and_enforced_the_same(pair: Pair) -> None:
    """Specification 12: usage in the nodes of /zookeeper/quota, and refusals."""
    play_seeds(pair, range(2001, 2001 + SEEDS // 2), "--quotas")
    assert {err for _, err in pair.replies} >= {-5, -125}


def test_all_is_as_it_was_after_a_kill(pair: Pair) -> None:
    """Specification 4.6: the tree with its Stats, sessions and their ephemerals survive."""
    rng = random.Random(3001)
    script = pair.script(rng, 100)
    for _ in range(2):
        script += [Restart(), *pair.script(rng, 50)]
    difference = pair.difference(script)
    assert difference is None, str(difference)


@settings(
    max_examples=2 * SEEDS,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_any_script_gets_the_same_answers(pair: Pair, rng: random.Random, steps: int) -> None:
    script = pair.script(rng, steps)
    difference = pair.difference(script)
    assert difference is None, "\n".join([*map(str, script[: difference.step]), str(difference)])


def test_scripts_get_the_same_answers_from_three_servers(spread: Pair) -> None:
    """Each session at another server: forwarded writes, and reads behind them, are as from one server."""
    play_seeds(spread, range(1001, 1001 + max(1, SEEDS // 3)), "--ensemble")
