"""Who serves a topic (spec 1.11, 2.1; DESIGN 6 probe and steal)."""

from random import Random

import pytest

from pubsub.core.ownership import (
    STEAL_JITTER_MS,
    Claim,
    Create,
    Probe,
    ProbeResult,
    Redirect,
    Unknown,
    decide,
    still_owner,
)
from pubsub.core.record import Owner, TopicRecord

ME = Owner("127.0.0.1:1", 10)
OTHER = Owner("127.0.0.1:2", 20)
RECORD = TopicRecord(bytes(16))
OWNED = RECORD.claimed(OTHER)


def ask(
    record: TopicRecord | None, probe: ProbeResult | None = None, registered: tuple[int, ...] = (10, 20)
) -> object:
    return decide(record, ME, registered, probe, create=True, chance=Random(1))


def test_an_absent_topic_is_created_or_unknown() -> None:
    assert ask(None) == Create()
    assert decide(None, ME, (), None, create=False, chance=Random(1)) == Unknown()


def test_a_released_topic_is_claimed() -> None:
    assert ask(RECORD) == Claim(0)


def test_a_topic_that_is_mine_by_name_only_is_claimed_again() -> None:
    assert ask(RECORD.claimed(ME)) == Claim(0)


def test_p11_an_owner_without_registration_is_dead() -> None:
    assert ask(OWNED, registered=(10,)) == Claim(0, OTHER)


def test_my_own_earlier_registration_is_dead() -> None:
    assert ask(RECORD.claimed(Owner(ME.address, 3)), registered=(3, 10)) == Claim(0)


def test_a_registered_owner_is_probed_and_a_live_one_gets_the_request() -> None:
    assert ask(OWNED) == Probe(OTHER)
    assert ask(OWNED, ProbeResult.ALIVE) == Redirect(OTHER.address, OWNED.epoch)


@pytest.mark.parametrize("result", [ProbeResult.REFUSED, ProbeResult.SILENT, ProbeResult.OTHER_REGISTRATION])
def test_an_owner_that_fails_its_probe_is_robbed_at_once_with_jitter(result: ProbeResult) -> None:
    decision = ask(OWNED, result)
    assert isinstance(decision, Claim)
    assert 0 <= decision.delay_ms < STEAL_JITTER_MS
    assert decision.dead == OTHER


def test_a_topic_being_deleted_is_unknown_unless_nobody_finishes_it() -> None:
    assert ask(OWNED.deleted()) == Unknown()
    assert ask(RECORD.deleted()) == Claim(0)


def test_a_deposed_owner_knows_it_from_the_record() -> None:
    mine = RECORD.claimed(ME)
    assert still_owner(mine, ME, mine.epoch)
    assert not still_owner(mine.claimed(OTHER), ME, mine.epoch)
    assert not still_owner(mine.claimed(ME), ME, mine.epoch)
    assert not still_owner(mine.deleted(), ME, mine.epoch)
    assert not still_owner(None, ME, mine.epoch)
