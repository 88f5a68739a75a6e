"""A model that fails on some elements as a broken kernel or a full memory would; worker processes import it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, fields
from pathlib import Path

from mace_bounds.backbones import FeatureBlock
from mace_bounds.backbones.mace import MaceBackbone

KILLS, KILLS_ONCE, RAISES = 2, 10, 18  # He, Ne, Ar


@dataclass(frozen=True, eq=False)
class Deadly(MaceBackbone):
    """Dies over helium, once over neon (``scar`` remembers), raises over argon, or over everything."""

    scar: str = ""
    broken: bool = False

    def extract(self, crystals, *options, **more) -> FeatureBlock:
        elements = {z for crystal in crystals for z in crystal.counts}
        if self.broken:
            raise RuntimeError("no\nnoble gases")
        if elements == set(self.atomic_numbers):  # golden cells: not one of the structures
            return super().extract(crystals, *options, **more)
        if KILLS in elements:
            os.kill(os.getpid(), signal.SIGKILL)
        if KILLS_ONCE in elements and not Path(self.scar).exists():
            Path(self.scar).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if RAISES in elements:
            raise RuntimeError("no\nnoble gases")
        return super().extract(crystals, *options, **more)


def deadly(model: MaceBackbone, scar: Path | str = "", broken: bool = False) -> Deadly:
    return Deadly(**{f.name: getattr(model, f.name) for f in fields(model)}, scar=str(scar), broken=broken)


class Unwelcome(Deadly):
    """Ends the process that receives it."""

    def __setstate__(self, state) -> None:
        os._exit(7)
