"""The example of ``docs/dev/add-a-baseline.md``, as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

from helpers.baseline_rows import planted
from mace_bounds.benchmark import BASELINES, CompareConfig, compare
from mace_bounds.benchmark.baselines import Baseline, FittedBaseline
from mace_bounds.calibration import FitConfig

PAGE = Path(__file__).parents[3] / "docs" / "dev" / "add-a-baseline.md"


@pytest.fixture
def distance():
    """The baseline that the page makes."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {"__name__": "distance"}
    exec(compile(block, str(PAGE), "exec"), names)
    return names["Distance"]()


def test_it_is_a_baseline_whose_widths_are_mahalanobis_distances(distance):
    rows, new = planted(200, 1), planted(50, 2)
    fitted = distance.fit(rows, 0)
    assert isinstance(distance, Baseline)
    assert isinstance(fitted, FittedBaseline)
    inverse = np.linalg.inv(np.cov(rows.x.T, bias=True))

    def shape(x):
        centred = x - rows.x.mean(axis=0)
        squares = np.einsum("ij,jk,ik->i", centred, inverse, centred)
        return 1.0 + np.sqrt((squares + 1.0) / 7.0)  # six features and the constant

    alpha = np.sqrt(np.mean((rows.y / shape(rows.x)) ** 2))
    np.testing.assert_allclose(fitted.predict(new).sigma, alpha * shape(new.x), rtol=1e-9)


def test_it_takes_part_in_a_comparison(distance, tiny_store, tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(BASELINES, "distance", distance)
    fit = FitConfig(fit_share=0.4, calibration_share=0.3, conformal="split")
    config = CompareConfig(n_splits=1, methods=("distance",), include_training=True, plots=False, fit=fit)
    report = compare(tiny_store, tmp_path / "out", config, model=tiny_model_folder)
    assert set(report.table["method"]) == {"distance", "constant"}
    assert report.table["reason"].isna().all()
    assert "distance" in (tmp_path / "out" / "index.html").read_text()
