"""The public surface, pinned: a change here is a change for users."""

import subprocess
import sys

import pytest

import mace_bounds

TOP = {
    "AuditResult",
    "BuildResult",
    "CalibratedHead",
    "CompareReport",
    "FeatureStore",
    "FitConfig",
    "FitReport",
    "__version__",
    "audit",
    "build",
    "compare",
    "errors",
    "extract",
    "fit",
    "list_heads",
    "list_models",
    "load_head",
    "load_model",
    "plot",
    "read",
    "score",
}


def test_the_public_names_are_these():
    assert set(mace_bounds.__all__) == TOP
    assert list(mace_bounds.__all__) == sorted(mace_bounds.__all__)
    assert set(dir(mace_bounds)) == TOP


@pytest.mark.parametrize("name", sorted(TOP))
def test_every_public_name_can_be_had(name):
    assert getattr(mace_bounds, name) is not None


def test_verbs_can_be_called():
    for name in (
        "audit",
        "build",
        "compare",
        "extract",
        "fit",
        "load_head",
        "load_model",
        "plot",
        "read",
        "score",
    ):
        assert callable(getattr(mace_bounds, name))


def test_unknown_names_are_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mace_bounds.nothing


def test_the_import_costs_nothing():
    script = "import time; t = time.process_time(); import mace_bounds; print(time.process_time() - t)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(told.stdout) < 0.1


ROOMS = [
    "audit",
    "baselines",
    "build",
    "calibration",
    "features",
    "head",
    "structures",
    "structures.materials_project",
]


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_export_what_they_say(room):
    from importlib import import_module

    module = import_module(f"mace_bounds.{room}")
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name)
