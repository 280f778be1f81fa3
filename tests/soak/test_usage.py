"""What counts as growth of a server in a soak."""

from dataclasses import replace

from tests.soak.usage import GROWTH_MAX, MOST, YOUNG, Usage, excesses

QUIET = Usage(resident_mb=60, files=25, threads=5, disk_mb=20, znodes=15, sessions=26, watches=0)


def test_a_process_that_fills_up_while_it_is_young_and_then_stays_is_all_right() -> None:
    young = [replace(QUIET, resident_mb=10 * number, disk_mb=number) for number in range(YOUNG)]
    assert excesses("s", young + [QUIET] * 20) == []
    assert excesses("s", []) == []


def test_whatever_grows_beyond_its_bound_is_told_and_nothing_else() -> None:
    for field in Usage.__slots__:
        grown = replace(QUIET, **{field: getattr(QUIET, field) + getattr(GROWTH_MAX, field) + 1})
        samples = [QUIET] * (YOUNG + 1) + [grown]
        (told,) = excesses("server 1", samples)
        assert told.startswith(f"server 1: {field} has grown from {getattr(QUIET, field)} to")
        at_bound = replace(QUIET, **{field: getattr(QUIET, field) + getattr(GROWTH_MAX, field)})
        assert excesses("server 1", [*samples[:-1], at_bound]) == []


def test_what_is_too_much_at_any_time_is_told_even_of_a_young_process() -> None:
    for field in Usage.__slots__:
        much = replace(QUIET, **{field: getattr(MOST, field) + 1})
        assert any(f"{field} came to" in told for told in excesses("s", [much, QUIET, QUIET]))
