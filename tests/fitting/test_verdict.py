"""Whether a head is called useful: only where it beats one constant width by more than the spread over splits."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mace_bounds import FitConfig, load_head
from mace_bounds.fitting.measured import Measured
from mace_bounds.fitting.verdict import SplitScores, Verdict, split_scores
from mace_bounds.levels import Levels

MANY = frozenset(f"X{k}" for k in range(200))


def a_split(score, constant, *, error=1.0, level=0.95, measured=MANY, calibrating=1000):
    return SplitScores(level, 30.0, 100.0, 150.0, score, constant, error, calibrating, frozenset(measured))


def test_scores_of_a_split_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.01, 0.1, 400)
    error = 0.02 + sigma * rng.standard_normal(400)
    table = pd.DataFrame(
        {
            "formula": [f"X{k % 150}" for k in range(300)],
            "error_mev_per_atom": 1000 * error[100:],
            "lower_95_mev_per_atom": 1000 * (0.02 - 2 * sigma[100:]),
            "upper_95_mev_per_atom": 1000 * (0.02 + 2 * sigma[100:]),
        }
    )
    found = split_scores(Measured(table, Levels.of([0.95])), error[:100], 77)
    own = 4 * sigma[100:] + 40 * np.maximum(np.abs(error[100:] - 0.02) - 2 * sigma[100:], 0)
    middle = np.median(error[:100])
    half = np.sort(np.abs(error[:100] - middle))[95]  # the 96th of 100: ceil(101 * 0.95)
    constant = 2 * half + 40 * np.maximum(np.abs(error[100:] - middle) - half, 0)
    assert found.score == pytest.approx(1000 * own.mean())
    assert found.constant_score == pytest.approx(1000 * constant.mean())
    assert found.constant_width == pytest.approx(2000 * half)
    assert found.width == pytest.approx(4000 * np.median(sigma[100:]))
    assert found.mae == pytest.approx(1000 * np.abs(error[100:]).mean())
    # every composition has two rows, so that the standard error is that of means of pairs
    gain = 1000 * (constant - own)
    pairs = gain[:150] + gain[150:]
    assert found.gain_error == pytest.approx(np.sqrt(((pairs - 2 * gain.mean()) ** 2).sum()) / 300)
    verdict = Verdict.of([found] * 2, FitConfig())
    assert verdict.says == "useful"
    assert verdict.n_compositions == 150


@pytest.mark.parametrize(
    ("pairs", "error", "says"),
    [
        ([(80, 100), (85, 100), (81, 100)], 4.0, "useful"),
        ([(80, 100)], 4.0, "useful"),
        ([(80, 100)], 25.0, "too few labels"),  # within the standard error of the one split
        ([(60, 100), (130, 100), (65, 100)], 4.0, "too few labels"),  # the splits disagree
        ([(101, 100), (104, 100)], 1.0, "no better than a constant"),
        ([(99.9, 100)], 5.0, "no better than a constant"),  # 2,500 times the labels would be needed
    ],
)
def test_useful_is_only_said_beyond_the_spread(pairs, error, says):
    verdict = Verdict.of([a_split(*pair, error=error) for pair in pairs], FitConfig())
    assert verdict.says == says
    assert says in verdict.sentence
    assert (verdict.more_compositions > 0) == (says == "too few labels")


def test_how_many_more_labels_follows_from_the_spread():
    verdict = Verdict.of([a_split(80, 100, error=40.0)], FitConfig())
    assert verdict.more_compositions == 1200 * 3  # twice the gain: four times the labels


def test_a_level_and_a_measurement_take_a_number_of_compositions():
    few = Verdict.of([a_split(10, 100, measured=[f"X{k}" for k in range(8)], calibrating=40)], FitConfig())
    assert (few.says, few.more_compositions) == ("too few labels", 80)  # 12 more at a share of 0.15
    config = FitConfig(conformal="split", fit_share=0.3, calibration_share=0.3)
    low = a_split(10, 100, level=0.9, measured=[f"X{k}" for k in range(20)], calibrating=30)
    assert Verdict.of([low], config).more_compositions == 14  # 19 / 0.3 are 64, and there are 50
    asked = replace(config, levels=(0.9,))
    assert Verdict.of([low], asked).says == "useful"


def test_the_verdict_is_in_the_report_the_head_and_its_card(tiny_fit):
    kept = load_head(tiny_fit.folder).provenance["verdict"]
    assert Verdict(**kept) == tiny_fit.verdict
    assert tiny_fit.verdict.n_splits == 2
    card = (tiny_fit.folder / "README.md").read_text()
    assert tiny_fit.verdict.sentence in card
    assert tiny_fit.verdict.numbers in card
    first = tiny_fit.head.provenance["coverage"][2]
    assert tiny_fit.verdict.level == first["level"] == 0.95
    assert tiny_fit.verdict.score_mev_per_atom != first["interval_score_mev_per_atom"]  # a mean of two splits
