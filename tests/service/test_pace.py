"""The pace: times that are known by hand."""

import pytest

from mace_bounds.service.pace import ALWAYS, Pace


def answered_at(pace, times, n):
    for now in times:
        pace.answered(n, 1.0, alone=False, now=now)


def test_the_time_for_each_is_that_between_answers():
    pace = Pace(each_s=0.5)
    assert pace.expected_s(0) == 0.5
    pace.came(0, now=10.0)
    answered_at(pace, [10.2, 10.2, 10.2, 10.8], n=4)  # three at once, then one: four in 0.8 s
    assert pace.expected_s(0) == pytest.approx(0.2)
    assert pace.expected_s(9) == pytest.approx(2.0)
    assert (pace.retry_after_s(0), pace.retry_after_s(11), pace.retry_after_s(1000)) == (1, 3, 30)


def test_time_in_which_nobody_waited_does_not_count():
    pace = Pace()
    pace.came(0, now=0.0)
    answered_at(pace, [0.1], n=2)
    pace.came(0, now=100.0)
    pace.came(1, now=100.05)
    answered_at(pace, [100.1], n=2)
    assert pace.expected_s(0) == pytest.approx(0.1)


def test_only_the_latest_answers_count():
    pace = Pace()
    pace.came(0, now=0.0)
    answered_at(pace, [float(k) for k in range(1, 100)], n=2)
    answered_at(pace, [99 + 0.01 * k for k in range(1, 65)], n=2)
    assert pace.expected_s(0) == pytest.approx(0.01)


def test_who_was_alone_says_how_long_one_takes_and_nothing_of_each():
    pace = Pace(alone_s=9.0, each_s=0.01)
    pace.came(0, now=0.0)
    pace.answered(1, 0.4, alone=True, now=0.4)
    pace.answered(1, 0.2, alone=True, now=0.6)
    assert (pace.alone_s, pace.expected_s(0)) == (pytest.approx(0.3), 0.01)


def test_too_long_is_some_times_the_time_of_one_alone():
    pace = Pace(alone_s=0.1, each_s=0.02)
    assert [pace.too_long(n, 3.0) for n in (0, 13, 15, 60)] == [False, False, True, True]
    slow = Pace(alone_s=0.1, each_s=5.0)  # a large request runs: a few others are let in all the same
    assert [slow.too_long(n, 3.0) for n in (ALWAYS - 1, ALWAYS)] == [False, True]
