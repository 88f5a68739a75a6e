"""The labelled rows that a head keeps: where they lie, and what is said of names that cannot be read."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from mace_bounds.calibration import KeptRows, load_head
from mace_bounds.errors import HeadError

N, P = 60, 5


@pytest.fixture(scope="module")
def features():
    x = np.random.default_rng(0).normal(3.0, [1.0, 10.0, 0.1, 2.0, 0.0], size=(N, P))
    x[0, 0] = 1000.0  # clamped
    return x


def rows_of(features, most=N) -> KeptRows:
    n = len(features)
    measured = {
        "error_ev_per_atom": np.linspace(-1, 1, n),
        "sigma_ev_per_atom": np.where(np.arange(n) < 10, np.nan, np.linspace(0.01, 0.1, n)),
        "covered_above_level": np.where(np.arange(n) < 10, np.nan, np.linspace(0, 1, n)),
    }
    names = [f"id {k}, ü\n\udc80" for k in range(n)], [f"F{k // 3}" for k in range(n)]
    return KeptRows.of(
        names, features, measured, np.arange(4.0), most, [f"{k * 37 % n:03d}" for k in range(n)]
    )


def standardised(features):
    spread = features.std(axis=0)
    z = (features - features.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    return np.clip(z, -6, 6) / np.sqrt(P)


def test_distances_are_root_mean_squares_of_standardised_features(features):
    z = standardised(features)
    np.testing.assert_allclose(rows_of(features).distances(features[:7]), cdist(z[:7], z), atol=2e-3)


def test_far_is_where_other_compositions_usually_end(features):
    z, formula = standardised(features), np.arange(N) // 3
    apart = cdist(z, z)
    apart[formula[:, None] == formula] = np.inf
    assert rows_of(features).far == pytest.approx(np.quantile(apart.min(axis=1), 0.95), rel=1e-5)
    assert np.isnan(rows_of(features[:3]).far)  # one composition


def test_of_many_rows_a_sample_by_hash_is_kept(features):
    kept = rows_of(features, 20)
    chosen = np.flatnonzero(np.arange(N) * 37 % N < 20)
    assert [int(name.split()[1].rstrip(",")) for name in kept.ids] == chosen.tolist()
    np.testing.assert_allclose(kept.error_ev_per_atom, np.linspace(-1, 1, N)[chosen], rtol=1e-6)
    np.testing.assert_array_equal(kept.centre, features.mean(axis=0))  # of all


def test_percentiles_are_of_rows_that_were_left_out(features):
    kept = rows_of(features)
    assert kept.sigma_percentile(1.0) == 100.0
    assert kept.sigma_percentile(0.0) == 0.0
    median = float(np.nanmedian(kept.sigma_ev_per_atom))
    assert kept.sigma_percentile(median) == 50.0


def test_they_can_be_written_and_read(features):
    kept = rows_of(features)
    tensors = kept.to_tensors()
    assert not any(np.isnan(array).any() for array in tensors.values())
    again = KeptRows.from_tensors(tensors)
    assert again.ids == kept.ids
    assert again.formulas == kept.formulas
    for name in ("points", "error_ev_per_atom", "sigma_ev_per_atom", "covered_above_level", "spread"):
        np.testing.assert_array_equal(getattr(again, name), getattr(kept, name))


@pytest.mark.parametrize("text", [b"", b"[1]", b'["a"]', b"\xff" * 9, b"[" * 100_000])
def test_names_that_are_none_are_refused(features, text):
    tensors = rows_of(features).to_tensors() | {"ids": np.frombuffer(text, dtype=np.uint8)}
    with pytest.raises(HeadError, match=r"names of the head's rows cannot be read; fit or download"):
        KeptRows.from_tensors(tensors)


@pytest.mark.parametrize(
    "changed",
    [
        {"typical_terms": np.array([0.0, 1e4])},
        {"spread": np.zeros(1)},
        {"error_ev_per_atom": np.zeros(1, dtype=np.float32)},
        {"points": np.zeros((1, 1))},
        {"ids": ()},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_rows_that_cannot_be_used_are_refused(tiny_fit, changed, tmp_path):
    kept = tiny_fit.head.kept_rows
    if "spread" in changed:
        changed = {"spread": np.zeros_like(kept.spread)}
    replace(tiny_fit.head, kept_rows=replace(kept, **changed)).save(tmp_path / "head", "card")
    with pytest.raises(HeadError, match="fit or download it again"):
        load_head(tmp_path / "head")


def test_a_head_without_a_single_row_is_refused(tiny_fit, tmp_path):
    kept = tiny_fit.head.kept_rows
    names = ("points", "error_ev_per_atom", "sigma_ev_per_atom", "covered_above_level", "ids", "formulas")
    none = replace(kept, **{name: getattr(kept, name)[:0] for name in names})
    replace(tiny_fit.head, kept_rows=none).save(tmp_path / "head", "card")
    with pytest.raises(HeadError, match=r"rows that the head keeps cannot be used; fit or download it again"):
        load_head(tmp_path / "head")
