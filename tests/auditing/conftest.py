"""Fixtures of this room."""

import pytest


@pytest.fixture(scope="session")
def whole_fit(tiny_store, tiny_model_folder, tmp_path_factory):
    """Fit a head also to compositions of the model's own training, and write it."""
    from mace_bounds import FitConfig, fit

    config = FitConfig(fit_share=0.35, calibration_share=0.35, conformal="split")
    folder = tmp_path_factory.mktemp("heads") / "whole-head"
    return fit(
        tiny_store,
        folder,
        config,
        model=tiny_model_folder,
        include_training=True,
        development="Chosen after looking.",
    )
