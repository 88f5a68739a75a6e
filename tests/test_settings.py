"""Settings are checked where they are made."""

from dataclasses import dataclass, fields
from typing import Literal

import pytest

from mace_bounds.calibration import FitConfig
from mace_bounds.errors import HeadError, StoreError
from mace_bounds.features import ExtractSettings
from mace_bounds.settings import check_settings, setting


@dataclass(frozen=True)
class Made:
    kind: Literal["a", "b"] = setting("a", "Which.")
    share: float = setting(0.5, "How much.", minimum=0.0, maximum=1.0)
    most: int | None = setting(None, "How many.", minimum=1)

    def __post_init__(self) -> None:
        check_settings(self, StoreError)


@pytest.mark.parametrize("values", [{"kind": "c"}, {"share": 1.1}, {"share": -0.1}, {"most": 0}])
def test_values_outside_are_refused_with_the_choice(values):
    with pytest.raises(StoreError, match=r"choose (one of these|another value)"):
        Made(**values)


def test_limits_are_allowed():
    assert Made("b", 1.0, 1) == Made(kind="b", share=1.0, most=1)


@pytest.mark.parametrize("settings", [ExtractSettings, FitConfig])
def test_every_setting_says_what_it_is(settings):
    assert all(field.metadata["help"].endswith(".") for field in fields(settings))
    settings()


def test_settings_of_a_fit_are_checked():
    with pytest.raises(HeadError, match="conformal"):
        FitConfig(conformal="none")
