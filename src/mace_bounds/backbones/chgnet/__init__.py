"""CHGNet 0.3.0: its weights from the package ``chgnet``, its last layer split off, MP2020 corrections taken off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mace_bounds.backbones.base import ModelInfo, WeightsFile
from mace_bounds.backbones.chgnet.backbone import (
    DIGEST,
    INSTALL,
    NAME,
    ChgnetBackbone,
    find_file,
    is_chgnet,
    load_chgnet,
    require_file,
)
from mace_bounds.backbones.chgnet.corrections import mp2020_correction_ev
from mace_bounds.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ChgnetBackbone", "ChgnetFamily", "mp2020_correction_ev"]


class ChgnetFamily:
    """CHGNet 0.3.0 under its name, ``chgnet``."""

    def knows(self, model: object) -> bool:
        """Whether it is this name, however it is written."""
        return is_chgnet(model)

    def load(self, model: Any, **options: Any) -> ChgnetBackbone:  # noqa: ARG002 - there is one
        """:func:`load_chgnet`."""
        return load_chgnet(**options)

    def list_models(self) -> list[ModelInfo]:
        """The one model; where the package is not installed, how to install it."""
        description = "CHGNet 0.3.0, without its MP2020 corrections"
        return [ModelInfo(NAME, find_file() is not None, description, INSTALL)]

    def find_weights(self, model: str | Path) -> WeightsFile:  # noqa: ARG002
        """The file in the installed package."""
        path = require_file()
        return WeightsFile(NAME, path, True, None, path.stat().st_size)

    fetch_weights = find_weights

    def digest_of(self, model: str | Path) -> str:  # noqa: ARG002
        """Its digest, which is known: no other weights are loaded under this name."""
        return DIGEST

    def training_compositions(self, model: str | Path, digest: str) -> NDArray[np.uint64] | None:  # noqa: ARG002
        """None: the package does not say which compositions MPtrj has; ModelError if the digest is another."""
        if digest != DIGEST:
            raise ModelError(
                f"the model chgnet ({DIGEST[:12]}) is not the one that the features were extracted with "
                f"({digest[:12]}); use that one."
            )
        return None
