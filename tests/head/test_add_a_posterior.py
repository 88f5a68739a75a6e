"""The page on adding a posterior: its code runs, and what it makes is fitted, saved and read as any other."""

import re
from pathlib import Path

import numpy as np
import pytest

from mace_bounds.calibration import FitConfig
from mace_bounds.errors import HeadError
from mace_bounds.head import (
    POSTERIORS,
    PopsConfig,
    PopsHead,
    predict,
    read_head_folder,
    tensors_named,
    tensors_under,
    write_head,
)

PAGE = Path(__file__).parents[2] / "docs" / "dev" / "add-a-posterior.md"


@pytest.fixture(scope="module")
def page():
    """Names that the page's code defines; the posterior leaves the registry again."""
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code) == 2
    names: dict[str, object] = {}
    try:
        exec("\n".join(code), names)
        yield names
    finally:
        POSTERIORS.pop("normal", None)


def test_its_widths_are_those_of_the_corrections(page):
    """Root mean square over the corrections of the selected rows, written with inverses."""
    head, x, y = page["head"], page["x"], page["y"]
    z = head.design.transform(x)
    a = np.linalg.inv(z.T @ z + head.ridge.lambda_ / head.ridge.alpha * np.eye(5))
    leverage = np.einsum("ij,jk,ik->i", z, a, z)
    corrections = ((y - z @ a @ z.T @ y) / leverage)[:, None] * (z @ a)
    rows = leverage >= np.percentile(leverage, 50.0)
    std = np.sqrt(np.mean((z @ corrections[rows].T) ** 2, axis=1))
    prediction = page["prediction"]
    np.testing.assert_allclose(prediction.misspecification_std, std, rtol=1e-9)
    np.testing.assert_allclose(prediction.support_upper - prediction.mean, 2.0 * std, rtol=1e-9)


def test_it_is_saved_and_read(page, tmp_path):
    head, x = page["head"], page["x"]
    config = {"pops": head.config.to_dict()}
    folder = write_head(tmp_path / "head", tensors_named("pops", head.to_tensors()), config, "a card")
    tensors, config = read_head_folder(folder)
    again = PopsHead.from_tensors(tensors_under(tensors, "pops"), PopsConfig.from_dict(config["pops"]))
    assert isinstance(again.posterior, page["Normal"])
    for field in ("mean", "misspecification_std", "support_lower", "support_upper"):
        np.testing.assert_array_equal(getattr(predict(again, x), field), getattr(page["prediction"], field))


@pytest.mark.usefixtures("page")
def test_settings_and_benchmark_know_it():
    from mace_bounds.benchmark.methods import method_names

    config = FitConfig(posterior="normal")
    assert config.pops().posteriors == ("normal", "ellipsoid")
    assert "pops_normal" in method_names(config)


def test_other_names_are_refused_with_those_that_exist():
    with pytest.raises(HeadError, match="'ball', which is none of hypercube, ensemble, ellipsoid"):
        FitConfig(posterior="ball")
