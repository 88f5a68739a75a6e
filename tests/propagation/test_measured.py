"""Intervals from measured errors: arithmetic by hand, files, and what is not known stays as it is."""

import math

import numpy as np
import pytest
from ase.build import bulk

from helpers.lennard_jones import LennardJones
from mace_bounds.errors import HeadError
from mace_bounds.head import POSTERIORS, Coefficients
from mace_bounds.propagation import (
    ErrorModel,
    MeasuredErrors,
    Potential,
    PropertyBounds,
    equation_of_state,
    measured_errors,
    propagate,
)
from mace_bounds.structures import read

MODEL = LennardJones()
QUANTILES = {"0.68": 1.0, "0.9": 1.6, "0.95": 2.0, "0.99": 3.0}


def error_model(name="V0", of="elements", positive=True, shift=1.01, weights=(0.0, 0.0, 1.0)):
    return ErrorModel(name, of, positive, shift, weights, 0.001, 0.01, QUANTILES, 145, 40, 0.954, 0.59)


def result(name="V0", value=20.0, std=0.5, level=0.95):
    return PropertyBounds(
        name, "Å³/atom", value, 19.0, 21.0, std, level, "POPS range, not calibrated", "curves", 9, 0.0
    )


@pytest.fixture
def errors():
    box = POSTERIORS["hypercube"].from_tensors({"lower": np.full(2, -0.1), "upper": np.full(2, 0.2)}, 2)
    axes = np.array([[0.02, 0.0], [0.0, 0.01], [0.0, 0.0]])
    models = (error_model(), error_model("B0", weights=(math.log(0.3), 0.5, 0.5)),
              error_model("phase differences", positive=False, shift=5.0))  # fmt: skip
    return MeasuredErrors(MODEL.digest, models, Coefficients(MODEL.theta0_ev, axes, box, box))


def test_an_interval_is_the_shifted_value_and_a_quantile_of_widths():
    bounded = error_model().bounded(result())
    assert [bounded.lower, bounded.upper] == pytest.approx([20.2 - 2 * 0.5, 20.2 + 2 * 0.5])
    assert bounded.std == pytest.approx(0.5)  # half the width of the 68 % interval
    assert "95.4 %" in bounded.bounds
    assert "145 all-electron" in bounded.bounds
    mixed = error_model("B0", weights=(math.log(0.3), 0.5, 0.5)).bounded(result("B0", 100.0, 4.0))
    assert mixed.upper - mixed.lower == pytest.approx(2 * 2 * 0.3 * math.sqrt(100.0) * math.sqrt(4.0))
    added = error_model("phase differences", positive=False, shift=5.0).bounded(
        result("E(a) - E(b)", -30.0, 7.0)
    )
    assert [added.lower, added.upper] == pytest.approx([-25 - 14, -25 + 14])


def test_a_volume_is_not_below_zero():
    assert error_model().bounded(result(value=1.0, std=5.0)).lower == 0.0


def test_moduli_of_binaries_have_a_reference_of_their_own():
    """Spin-polarised references: also of magnetic binaries, and of no element."""
    modulus = ErrorModel(
        "K_VRH", "binaries", True, 1.0, (0.0, 0.0, 1.0), 0.1, 0.1, QUANTILES, 160, 151, 0.942, 0.96,
        reference="DFT values of binaries", groups_are="chemical systems",
    )  # fmt: skip
    box = POSTERIORS["hypercube"].from_tensors({"lower": np.full(2, -0.1), "upper": np.full(2, 0.2)}, 2)
    known = MeasuredErrors(
        MODEL.digest,
        (error_model("V0", "oxides"), modulus),
        Coefficients(MODEL.theta0_ev, np.zeros((3, 2)), box, box),
    )
    salt, wustite, argon = (
        next(iter(read(bulk(name, *more)))).crystal
        for name, *more in (("MgO", "rocksalt", 4.2), ("FeO", "rocksalt", 4.3), ("Ar", "fcc", 4.0))
    )
    given = [result("K_VRH", 100.0, 5.0), result()]
    bulk_modulus, volume = known.bounded(given, salt)
    assert [bulk_modulus.lower, bulk_modulus.upper] == pytest.approx([90.0, 110.0])
    assert "160 DFT values of binaries (151 chemical systems)" in bulk_modulus.bounds
    assert volume.bounds.startswith("V0: calibrated")
    bulk_modulus, volume = known.bounded(given, wustite)
    assert bulk_modulus.bounds.startswith("K_VRH: calibrated")
    assert volume is given[1]
    assert known.bounded(given, argon) == given


def test_levels_that_were_not_calibrated_are_refused():
    assert error_model().bounded(result(level=0.68)).upper == pytest.approx(20.2 + 0.5)
    with pytest.raises(HeadError, match=r"0\.68, 0\.9, 0\.95, 0\.99"):
        error_model().bounded(result(level=0.8))


def test_what_was_not_measured_stays_as_it_is(errors):
    argon = next(iter(read(bulk("Ar", "fcc", 4.0)))).crystal
    salt = next(iter(read(bulk("NaCl", "rocksalt", 5.6)))).crystal
    volume, other = result(), result("C11")
    assert errors.bounded([volume, other], argon)[1] is other
    assert errors.bounded([volume], salt)[0] is volume
    assert errors.bounded([volume], argon)[0].bounds != volume.bounds
    without = PropertyBounds("V0", "Å³/atom", 20.0, None, None, None, 0.95, "", "curves", 9, 0.9)
    assert errors.bounded([without], argon)[0] is without


def test_files_are_found_by_the_digest_of_the_model(errors, tmp_path):
    folder = tmp_path / "lj"
    folder.mkdir()
    errors.save(folder)
    again = measured_errors(MODEL, tmp_path)
    assert again.models == errors.models
    np.testing.assert_array_equal(again.coefficients.draws(50), errors.coefficients.draws(50))
    assert measured_errors(LennardJones(digest="1" * 64), tmp_path) is None
    (folder / "draws.safetensors").write_bytes(b"no")
    with pytest.raises(HeadError, match="install the package again"):
        measured_errors(MODEL, tmp_path)


def test_a_table_has_calibrated_and_other_rows(errors):
    records = list(read(bulk("Ar", "fcc", 4.0)))
    potential = Potential.of(MODEL, errors.coefficients, 200)
    table = propagate("eos", records, potential, errors=errors).set_index("property")
    assert table.loc["V0", "bounds"].startswith("V0: calibrated")
    assert table.loc["B0'", "bounds"] == "POPS range, not calibrated"
    assert np.isnan(table.loc["E0", ["lower", "upper", "std"]].astype(float)).all()
    plain = {r.name: r for r in equation_of_state(records[0].crystal, potential)}
    assert table.loc["V0", "value"] == pytest.approx(plain["V0"].value)
    width = table.loc["V0", "upper"] - table.loc["V0", "lower"]
    assert width == pytest.approx(4 * plain["V0"].std)


def test_what_ships_belongs_to_a_model_and_covers_what_it_says():
    """Of every file: levels in order, and the coverage that was measured is near the level."""
    import json

    from mace_bounds.propagation.measured import ERRORS, SHIPPED

    for path in SHIPPED.glob(f"*/{ERRORS}"):
        for model in json.loads(path.read_text())["models"]:
            values = list(model["quantiles"].values())
            assert values == sorted(values)
            assert abs(model["coverage"] - 0.95) < 0.04
            assert model["of_constant"] <= 1.0
