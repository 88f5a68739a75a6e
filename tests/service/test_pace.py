"""The pace: times that are known by hand."""

import pytest

from mace_bounds.bounds import MOST_ATOMS
from mace_bounds.service.pace import ALWAYS, REQUEST_WORK, Pace, ahead_of_others, work_of

ONE = work_of(0)


def answered_at(pace, times, n, work=ONE):
    for now in times:
        pace.answered(n, work, 1.0, alone=False, now=now)


def test_the_work_done_in_a_second_is_that_between_answers():
    pace = Pace(per_s=2 * ONE)
    assert pace.expected_s(0) == 0.5
    pace.came(0, now=10.0)
    answered_at(pace, [10.2, 10.2, 10.2, 10.8], n=4)  # three at once, then one: four in 0.8 s
    assert pace.expected_s(0) == pytest.approx(0.2)
    assert pace.expected_s(9 * ONE) == pytest.approx(2.0)
    assert [pace.retry_after_s(n * ONE) for n in (0, 11, 1000)] == [1, 3, 30]


def test_a_large_request_counts_by_its_atoms_up_to_one_turn():
    assert work_of(8) == REQUEST_WORK + 8
    assert ahead_of_others(work_of(10_000)) == work_of(MOST_ATOMS)  # it is cut, and takes turns
    pace = Pace(alone_s=0.1, per_s=4000.0)
    five_small, five_large = 5 * work_of(8), 5 * ahead_of_others(work_of(10_000))
    assert [pace.too_long(5, ahead, 3.0) for ahead in (five_small, five_large)] == [False, True]


def test_a_large_answer_says_of_the_work_what_many_small_ones_say():
    large, small = Pace(), Pace()
    for pace in (large, small):
        pace.came(0, now=0.0)
    answered_at(large, [10.0], n=2, work=work_of(36 * ONE - REQUEST_WORK))
    answered_at(small, [10 * k / 36 for k in range(1, 37)], n=2)
    assert large.expected_s(0) == pytest.approx(small.expected_s(0))


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


def test_who_was_alone_says_how_long_one_takes_and_nothing_of_the_work():
    pace = Pace(alone_s=9.0, per_s=100 * ONE)
    pace.came(0, now=0.0)
    pace.answered(1, ONE, 0.4, alone=True, now=0.4)
    pace.answered(1, ONE, 0.2, alone=True, now=0.6)
    pace.answered(1, work_of(10_000), 60.0, alone=True, now=60.6)  # nor does a large one of a small one
    assert (pace.alone_s, pace.expected_s(0)) == (pytest.approx(0.3), pytest.approx(0.01))


def test_too_long_is_some_times_the_time_of_one_alone():
    pace = Pace(alone_s=0.1, per_s=50 * ONE)
    assert [pace.too_long(n, n * ONE, 3.0) for n in (0, 13, 15, 60)] == [False, False, True, True]
    slow = Pace(alone_s=0.1, per_s=ONE / 5)  # a large request runs: a few others are let in all the same
    assert [slow.too_long(n, n * ONE, 3.0) for n in (ALWAYS - 1, ALWAYS)] == [False, True]
