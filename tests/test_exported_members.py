"""The public surface, pinned: a change here is a change for users."""

import inspect
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mace_bounds

TOP = {
    "AuditConfig",
    "AuditResult",
    "Bounds",
    "BoundsCalculator",
    "BoundsPredictor",
    "BuildConfig",
    "BuildResult",
    "CalibrateConfig",
    "CalibrateReport",
    "CalibratedHead",
    "CardNotes",
    "CompareConfig",
    "CompareReport",
    "ExtractSettings",
    "FeatureStore",
    "FitConfig",
    "FitReport",
    "__version__",
    "audit",
    "build",
    "calibrate",
    "compare",
    "errors",
    "extract",
    "fit",
    "list_heads",
    "list_models",
    "load_head",
    "load_model",
    "plot",
    "plot_calibration",
    "read",
    "score",
}
VERBS = (
    "audit",
    "build",
    "calibrate",
    "compare",
    "extract",
    "fit",
    "load_head",
    "load_model",
    "plot",
    "plot_calibration",
    "read",
    "score",
)
SOURCE = Path(mace_bounds.__file__).parent
ROOMS = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))


def test_the_public_names_are_these():
    assert set(mace_bounds.__all__) == TOP
    assert list(mace_bounds.__all__) == sorted(mace_bounds.__all__)
    assert set(dir(mace_bounds)) >= TOP


@pytest.mark.parametrize("name", sorted(TOP))
def test_every_public_name_can_be_had(name):
    assert getattr(mace_bounds, name) is not None


@pytest.mark.parametrize("name", VERBS)
def test_verbs_are_plain_functions(name):
    verb = getattr(mace_bounds, name)
    assert inspect.isfunction(verb)
    assert pickle.loads(pickle.dumps(verb)) is verb
    assert inspect.getdoc(verb)


def test_unknown_names_are_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = mace_bounds.nothing


def test_the_import_loads_nothing_heavy():
    script = "import sys, mace_bounds; print(sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(eval(done.stdout))
    assert not loaded & {
        "numpy",
        "pandas",
        "scipy",
        "torch",
        "ase",
        "pymatgen",
        "matplotlib",
        "mace",
        "typer",
    }


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "cli"])
def test_rooms_export_what_they_say(room):
    module = import_module(f"mace_bounds.{room}")
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)
