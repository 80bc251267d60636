"""When the Python client tries again after its connection has ended."""

import pytest

from coralmux.retry import Retry

NEVER = None  # it was not authenticated


def waits(*ends, delays=(1, 60)):
    """The longest waits after these ends: (how long it was authenticated, close code)."""
    retry = Retry(delays, uniform=lambda _low, high: high)
    return [retry.wait(lasted, code) for lasted, code in ends]


def test_the_first_try_after_a_connection_that_was_of_use_comes_within_half_a_second():
    assert waits((100, None)) == [0.5]
    assert waits((100, 1006), (100, 1000), (100, None)) == [0.5] * 3


def test_waits_grow_with_tries_that_fail_up_to_the_longest():
    failed = [(NEVER, None)] * 8
    assert waits(*failed) == pytest.approx([1.2 * wait for wait in (1, 2, 4, 8, 16, 32, 60, 60)])


def test_a_connection_that_was_of_use_ends_the_growth():
    assert waits((100, None), *[(NEVER, None)] * 3, (100, None), (NEVER, None)) == pytest.approx(
        [0.5, 1.2, 2.4, 4.8, 0.5, 1.2]
    )


def test_connections_that_break_at_once_count_as_failures_from_the_third_in_a_row():
    short = (4.9, None)
    assert waits(*[short] * 8) == pytest.approx([0.5, 0.5, 1.2, 2.4, 4.8, 9.6, 9.6, 9.6])
    assert waits(short, short, (5, None), short, short, short) == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5, 1.2])


@pytest.mark.parametrize("code", [1012, 1013])
def test_a_relay_that_restarts_or_is_full_is_left_alone_for_a_while(code):
    assert waits((100, code), (NEVER, code)) == pytest.approx([1.2, 2.4])
    assert waits((100, code), (100, code)) == pytest.approx([1.2, 1.2])


def test_waits_are_random():
    retry = Retry((1, 60))
    assert len({retry.wait(100, None) for _ in range(10)}) > 1
    assert all(0 <= retry.wait(100, None) <= 0.5 for _ in range(100))
    assert 0.8 <= Retry((1, 60)).wait(NEVER, None) <= 1.2
