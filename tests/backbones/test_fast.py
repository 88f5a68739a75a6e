"""The re-arranged forward against mace's own, on every kind of model that it supports."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helpers.mace_builds import MPA_0, TINY, build, real_crystals
from mace_bounds.backbones import load_model
from mace_bounds.backbones.mace import MaceBackbone
from mace_bounds.backbones.mace.fast import forward as _forward
from mace_bounds.structures import Crystal

NUMBERS = [1, 3, 8, 14, 26, 55, 83]
SMALL = TINY | {"hidden_irreps": "4x0e+4x1o", "radial_MLP": [8, 8], "r_max": 4.5}
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}  # of the largest value: round-off of sums of ~1e4 terms
KINDS: dict[str, dict[str, Any]] = {
    "the architecture of MACE-MPA-0, narrower": MPA_0 | {"hidden_irreps": "8x0e+8x1o"},
    "scalars alone": {"hidden_irreps": "6x0e", "max_ell": 3, "correlation": 3},
    "L = 2": {"hidden_irreps": "4x0e+4x1o+4x2e", "max_ell": 3, "correlation": 3},
    "one layer, gaussian basis, no transform": {
        "num_interactions": 1,
        "radial_type": "gaussian",
        "distance_transform": "None",
    },
    "three layers, soft transform": {"num_interactions": 3, "distance_transform": "Soft"},
    "correlation 1, no pair repulsion, no transform": {
        "correlation": 1,
        "pair_repulsion": False,
        "distance_transform": "None",
    },
    "chebyshev basis, cutoff after the radial network": {"radial_type": "chebyshev", "apply_cutoff": False},
    "plain blocks": {
        "interaction_cls_first": "RealAgnosticInteractionBlock",
        "interaction_cls": "RealAgnosticInteractionBlock",
    },
    "residual blocks": {
        "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
        "interaction_cls": "RealAgnosticResidualInteractionBlock",
    },
    "residual first block, density": {"interaction_cls_first": "RealAgnosticDensityResidualInteractionBlock"},
    "wider messages": {"edge_irreps": "6x0e+6x1o"},
}


def make(
    options: dict[str, Any], dtype: str = "float64", heads: list[str] | None = None, seed: int = 0
) -> MaceBackbone:
    model = load_model(
        build(SMALL | options, heads, seed, NUMBERS),
        dtype=dtype,
        device="cpu",
        head=heads[-1] if heads else None,
    )
    assert model.fast is not None
    assert model.warnings == ()
    return model


def random_crystal(rng: np.random.Generator, n_atoms: int, volume_per_atom: float = 14.0) -> Crystal:
    cell = np.eye(3) + rng.uniform(-0.25, 0.25, (3, 3))
    cell *= (n_atoms * volume_per_atom / abs(np.linalg.det(cell))) ** (1 / 3)
    return Crystal(rng.choice(NUMBERS, n_atoms), rng.uniform(-0.5, 1.5, (n_atoms, 3)) @ cell, cell)


def known(crystals: list[Crystal]) -> list[Crystal]:
    """The same geometries with elements of the small models."""
    return [replace(c, numbers=np.array([NUMBERS[z % len(NUMBERS)] for z in c.numbers])) for c in crystals]


def assert_same(model: MaceBackbone, crystals: list[Crystal], tolerance: float) -> None:
    """Features of both kinds, fixed and total energies equal those of mace's own float64 forward."""
    reference = replace(model, module=_double(model), dtype="float64", fast=None)
    for kind in ("readout", "descriptors"):
        got, wanted = model.extract(crystals, kind), reference.extract(crystals, kind)
        for name in ("features", "energy_ev", "fixed_energy_ev"):
            a, b = getattr(got, name), getattr(wanted, name)
            assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), name


def _double(model: MaceBackbone) -> torch.nn.Module:
    return copy.deepcopy(model.module).double()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_supported_kind_equals_mace(kind, dtype):
    model = make(KINDS[kind], dtype)
    rng = np.random.default_rng(1)
    crystals = known(real_crystals(6)) + [random_crystal(rng, n) for n in (1, 2, 7)]
    # float32 weights are rounded float64 weights, in both forwards alike
    assert_same(model, crystals, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_several_heads(dtype):
    model = make({}, dtype, heads=["pbe", "r2scan"])
    assert_same(model, known(real_crystals(4)), TOLERANCE[dtype])


@given(
    layers=st.integers(1, 2),
    hidden=st.sampled_from(["3x0e", "3x0e+3x1o", "2x0e+2x1o+2x2e"]),
    max_ell=st.integers(1, 3),
    correlation=st.integers(1, 3),
    blocks=st.tuples(*[st.tuples(st.booleans(), st.booleans())] * 2),
    transform=st.sampled_from(["None", "Agnesi", "Soft"]),
    pair=st.booleans(),
    r_max=st.floats(3.0, 5.0),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_any_configuration_equals_mace(
    layers, hidden, max_ell, correlation, blocks, transform, pair, r_max, seed
):
    names = [f"RealAgnostic{'Density' * d}{'Residual' * r}InteractionBlock" for d, r in blocks]
    options = {
        "num_interactions": layers,
        "hidden_irreps": hidden,
        "max_ell": max(max_ell, hidden.count("+")),
        "correlation": correlation,
        "interaction_cls_first": names[0],
        "interaction_cls": names[1],
        "distance_transform": transform,
        "pair_repulsion": pair,
        "r_max": r_max,
    }
    rng = np.random.default_rng(seed)
    crystals = [random_crystal(rng, int(n)) for n in rng.integers(1, 9, 3)]
    assert_same(make(options, seed=seed), crystals, TOLERANCE["float64"])


def hard_crystals() -> dict[str, Crystal]:
    rng = np.random.default_rng(5)
    slab = random_crystal(rng, 6)
    return {
        "one atom with many images": Crystal(np.array([26]), np.zeros((1, 3)), np.eye(3) * 1.9),
        "isolated atom": Crystal(np.array([8]), np.full((1, 3), 7.0), np.eye(3) * 30.0),
        "slab in vacuum": replace(slab, cell=slab.cell * np.array([[1.0], [1.0], [6.0]])),
        "200 atoms": random_crystal(rng, 200),
        "flat and skewed": Crystal(
            np.array([3, 8]),
            np.array([[0.0, 0.0, 0.0], [1.0, 1.1, 0.4]]),
            np.array([[2.6, 0.0, 0.0], [2.4, 2.1, 0.0], [0.3, 0.2, 7.5]]),
        ),
    }


@pytest.mark.parametrize("which", list(hard_crystals()))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_hard_crystals_equal_mace(which, dtype):
    assert_same(make({"max_ell": 3, "correlation": 3}, dtype), [hard_crystals()[which]], TOLERANCE[dtype])


def test_a_batch_with_and_without_edges_equals_mace():
    crystals = list(hard_crystals().values())
    assert_same(
        make({}), [crystals[1], crystals[0], crystals[1], crystals[4], crystals[1]], TOLERANCE["float64"]
    )


@pytest.fixture(scope="module", params=["float64", "float32"])
def model(request) -> MaceBackbone:
    return make({"max_ell": 3, "correlation": 3}, request.param)


def per_atom(model: MaceBackbone, crystal: Crystal) -> np.ndarray:
    return np.asarray(model.extract([crystal]).features[0]) / len(crystal.numbers)


@pytest.mark.parametrize("transformed", ["permuted", "rotated", "translated", "repeated"])
def test_invariances(model, transformed):
    rng = np.random.default_rng(3)
    crystal = random_crystal(rng, 5)
    if transformed == "permuted":
        order = rng.permutation(5)
        other = replace(crystal, numbers=crystal.numbers[order], positions=crystal.positions[order])
    elif transformed == "rotated":
        rotation = Rotation.random(rng=4).as_matrix()
        other = replace(crystal, positions=crystal.positions @ rotation, cell=crystal.cell @ rotation)
    elif transformed == "translated":
        other = replace(crystal, positions=crystal.positions + np.array([3.1, -7.7, 0.4]))
    else:
        corners = np.array([[i, j, 0] for i in range(2) for j in range(3)]) @ crystal.cell
        other = Crystal(
            np.tile(crystal.numbers, 6),
            np.concatenate([crystal.positions + c for c in corners]),
            crystal.cell * np.array([[2.0], [3.0], [1.0]]),
        )
    a, b = per_atom(model, crystal), per_atom(model, other)
    assert np.abs(a - b).max() <= TOLERANCE[model.dtype] * np.abs(a).max()


@pytest.mark.parametrize(
    "kind, dtype",
    [
        ("L = 2", "float64"),
        ("the architecture of MACE-MPA-0, narrower", "float64"),
        ("the architecture of MACE-MPA-0, narrower", "float32"),
    ],
)
def test_compiled_sums_equal_mace(kind, dtype, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(_forward, "COMPILED_FROM_PAIRS", 0)
    crystals = [*known(real_crystals(4)), *hard_crystals().values()]
    assert_same(make(KINDS[kind], dtype), crystals, TOLERANCE[dtype])


def test_results_do_not_depend_on_the_size_of_chunks(monkeypatch):
    model = make({"max_ell": 3, "correlation": 3})
    rng = np.random.default_rng(8)
    crystals = [random_crystal(rng, n) for n in (1, 12, 3, 20, 2)]
    wanted = model.extract(crystals).features
    monkeypatch.setitem(_forward.EDGES_PER_CHUNK, "cpu", 50)
    monkeypatch.setitem(_forward.ATOMS_PER_BLOCK, "cpu", 3)
    got = model.extract(crystals).features
    assert np.abs(got - wanted).max() <= 1e-12 * np.abs(wanted).max()


def test_what_is_not_supported_falls_back_to_mace_and_says_so():
    options = SMALL | {"interaction_cls": "RealAgnosticAttResidualInteractionBlock"}
    model = load_model(build(options, numbers=NUMBERS), dtype="float64", device="cpu")
    assert model.fast is None
    assert len(model.warnings) == 1
    assert "RealAgnosticAttResidualInteractionBlock" in model.warnings[0]
    assert_same(model, known(real_crystals(3)), TOLERANCE["float64"])
