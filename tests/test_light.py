"""The command line's light import of mace: the same numbers, and no stand-in left behind."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
from ase.build import bulk
from mace_bounds._light import lighten_imports
from mace_bounds.features import extract_rows, load_model
from mace_bounds.structures import read

if sys.argv[1] == "light":
    lighten_imports()
if sys.argv[1] == "broken":
    import mace_bounds._light as light
    lighten_imports()
    light._NAMES["torchmetrics"] = ()  # mace cannot be imported with this one
model = load_model(sys.argv[2], dtype="float64")
energy = extract_rows(list(read(bulk("NaCl", "rocksalt", 5.6))), model).table["energy_model_ev"][0]
spared = [name for name in ("matplotlib", "torchmetrics", "scipy.signal") if name not in sys.modules]
real = []
if sys.argv[1] == "light":
    import scipy.signal, torch._dynamo, torchmetrics
    real = [hasattr(scipy.signal, "find_peaks"), hasattr(torch._dynamo, "optimize"), hasattr(torchmetrics, "R2Score")]
print(json.dumps([energy, spared, real]))
"""


@pytest.fixture(scope="module")
def told(tiny_model_folder):
    def call(how):
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, how, str(tiny_model_folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    return {how: call(how) for how in ("plain", "light", "broken")}


def test_energies_do_not_depend_on_how_mace_was_imported(told):
    assert told["light"][0] == told["plain"][0] == told["broken"][0]


def test_training_tools_are_spared_and_can_be_imported_for_real_afterwards(told):
    assert told["plain"][1] == []
    assert told["light"][1] == ["matplotlib", "torchmetrics", "scipy.signal"]
    assert told["light"][2] == [True, True, True]


def test_a_mace_that_needs_them_is_imported_as_it_is(told):
    assert "torchmetrics" not in told["broken"][1]


SCORES = """
import json, sys
from mace_bounds._light import lighten_imports
from mace_bounds.calibration import interval_score
from mace_bounds.calibration._statistics import crps_gaussian

lighten_imports()
scores = [crps_gaussian([1.0], [1.0]), interval_score([3.0], [0.0], [2.0], 0.9).item()]
spared = "numba" not in sys.modules
import numba
print(json.dumps([scores, spared, hasattr(numba, "njit"), "numba" in sys.modules]))
"""


def test_scores_need_no_compilation():
    done = subprocess.run([sys.executable, "-c", SCORES], capture_output=True, text=True, check=True)
    (crps, interval), *rest = json.loads(done.stdout)
    assert crps == pytest.approx(0.602441, abs=1e-6)  # 2 φ(1) + 2 Φ(1) - 1 - 1/√π
    assert interval == pytest.approx(2 + 2 / 0.1 * 1)
    assert rest == [True, True, True]
