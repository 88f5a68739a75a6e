"""Intervals of properties from errors that were measured on other materials: one file for each model that has them.

A head of energies of many compositions cannot say how wrong a volume is. What can are errors of volumes: of elements
and oxides, against all-electron DFT (``scripts/property_study.py``). An interval is the value, corrected by the median
error, plus or minus a quantile of left-out scores times a width made of the value and of the spread of draws of a POPS
fit to energy differences within a composition.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mace_bounds.errors import HeadError
from mace_bounds.head import POSTERIORS, Coefficients
from mace_bounds.levels import ONE_SIGMA, Levels, percent

if TYPE_CHECKING:
    from mace_bounds.backbones import Backbone
    from mace_bounds.propagation.result import PropertyBounds
    from mace_bounds.structures import Crystal

SHIPPED = Path(__file__).parent.parent / "data" / "properties"
ERRORS, DRAWS = "errors.json", "draws.safetensors"
OXYGEN = 8
MAGNETIC_FLAG = "magnetic"
_MAGNETIC = {24, 25, 26, 27, 28, *range(57, 72), *range(89, 104)}  # Cr to Ni, and f elements
_ABSOLUTE = ("E0", "energy")


@dataclass(frozen=True)
class ErrorModel:
    """Measured errors of one property in one class of crystals.

    Attributes
    ----------
    name, of : str
        ``"V0"``, ``"B0"``, ``"K_VRH"``, ``"G_VRH"`` or ``"phase differences"``; of ``"elements"``, ``"oxides"`` or
        ``"binaries"``.
    positive : bool
        Whether ``shift`` is a factor of the value; else it is added to it.
    shift : float
        Median error.
    log_weights : (float, float, float)
        The width is exp(a + b ln |value| + c ln spread).
    least_spread, least_width : float
        Smaller spreads are not told apart, and smaller widths are not believed.
    quantiles : dict of str to float
        Scores |error| / width below which a level's share of left-out rows lies.
    n, groups : int
        Rows, and elements (or chemical systems) they are of.
    coverage, of_constant : float
        Measured on left-out groups at 95 %: coverage, and interval score in units of that of a constant width.
    reference : str
        What the rows are, in words; by default all-electron values without magnetism.
    groups_are : str
        What was left out together.
    """

    name: str
    of: str
    positive: bool
    shift: float
    log_weights: tuple[float, float, float]
    least_spread: float
    least_width: float
    quantiles: dict[str, float]
    n: int
    groups: int
    coverage: float
    of_constant: float
    reference: str = ""
    groups_are: str = "elements"

    def width(self, value: float, spread: float) -> float:
        """Width before calibration, in the unit of the value."""
        a, b, c = self.log_weights
        width = np.exp(a + b * np.log(abs(value) + 1e-9) + c * np.log(max(spread, self.least_spread)))
        return max(float(width), self.least_width)

    def bounded(self, result: PropertyBounds) -> PropertyBounds:
        """The result with a calibrated interval; HeadError if the level was not calibrated.

        Where too few draws have the property there is no spread, and so no interval.
        """
        level = Levels.of(float(level) for level in self.quantiles).nearest(result.level)
        if result.std is None:
            return result
        width = self.width(result.value, result.std)
        what = result.name if self.positive else "energy differences"
        middle = result.value * self.shift if self.positive else result.value + self.shift
        half = self.quantiles[f"{level:g}"] * width
        reference = self.reference or f"all-electron values of {self.of} without magnetism"
        lower = max(middle - half, 0.0) if self.positive else middle - half
        return replace(
            result,
            lower=lower,
            upper=middle + half,
            std=self.quantiles[f"{ONE_SIGMA:g}"] * width,
            bounds=(
                f"{what}: calibrated on {self.n} {reference} ({self.groups} {self.groups_are}); "
                f"{percent(round(self.coverage, 3))} % of those of left-out {self.groups_are} were inside at 95 %"
            ),
        )


@dataclass(frozen=True, eq=False)
class MeasuredErrors:
    """What is known of the errors of a model's properties.

    Attributes
    ----------
    model_digest : str
        Of the model that they belong to.
    models : tuple of ErrorModel
    coefficients : Coefficients
        Of the POPS fit whose draws give spreads, around the model's own readout.
    """

    model_digest: str
    models: tuple[ErrorModel, ...]
    coefficients: Coefficients

    def bounded(self, results: list[PropertyBounds], crystal: Crystal) -> list[PropertyBounds]:
        """Results with calibrated intervals where errors of the property were measured for such crystals.

        Total energies have none here: ``mace-bounds score`` bounds them.
        """
        known = {(model.name, model.of): model for model in self.models}
        # draws of a fit to differences of energies say nothing of an energy itself
        results = [
            replace(r, lower=None, upper=None, std=None, bounds="") if r.name in _ABSOLUTE else r
            for r in results
        ]
        classes = classes_of(crystal)
        out = []
        for result in results:
            name = "phase differences" if result.name.startswith("E(") else result.name
            models = [known[name, of] for of in classes if (name, of) in known]
            out.append(models[0].bounded(result) if models else result)
        return out

    def save(self, folder: Path) -> None:
        """Write both files."""
        from safetensors.numpy import save_file

        posterior = self.coefficients.posterior.to_tensors()
        save_file({"axes": self.coefficients.axes, **posterior}, folder / DRAWS)
        text = {"model_digest": self.model_digest, "models": [asdict(model) for model in self.models]}
        (folder / ERRORS).write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


def may_be_magnetic(crystal: Crystal) -> bool:
    """Whether it holds Cr, Mn, Fe, Co, Ni or an f element, or is oxygen: its properties depend on a magnetic state."""
    return bool(_MAGNETIC & set(crystal.counts)) or set(crystal.counts) == {OXYGEN}


def classes_of(crystal: Crystal) -> tuple[str, ...]:
    """Classes whose errors may have been measured: ``"elements"``, ``"oxides"`` of one element, ``"binaries"``.

    References of elements and oxides are without magnetism, those of binaries (moduli) with it.
    """
    binary = len(crystal.counts) == 2
    if may_be_magnetic(crystal):
        return ("binaries",) if binary else ()
    if len(crystal.counts) == 1:
        return ("elements",)
    return (*(("oxides",) if binary and OXYGEN in crystal.counts else ()), *(("binaries",) if binary else ()))


def measured_errors(backbone: Backbone, folder: Path = SHIPPED) -> MeasuredErrors | None:
    """Measured errors of a model that ship, found by its digest; None where there are none.

    Raises
    ------
    HeadError
        If the files are damaged.
    """
    for path in sorted(folder.glob(f"*/{ERRORS}")):
        text = json.loads(path.read_text(encoding="utf-8"))
        if text["model_digest"] == backbone.digest:
            return _read(path.parent, text, backbone)
    return None


def _read(folder: Path, text: dict[str, Any], backbone: Backbone) -> MeasuredErrors:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(folder / DRAWS)
        axes = np.asarray(tensors.pop("axes"), dtype=np.float64)
        posterior = POSTERIORS["hypercube"].from_tensors(tensors, axes.shape[1])
        models = tuple(
            ErrorModel(**{**model, "log_weights": tuple(model["log_weights"])}) for model in text["models"]
        )
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise HeadError(
            f"the measured errors in {folder} cannot be read ({error}); install the package again."
        ) from error
    coefficients = Coefficients(backbone.theta0_ev, axes, posterior, posterior)
    return MeasuredErrors(text["model_digest"], models, coefficients)
