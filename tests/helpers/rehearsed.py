"""Imported by the server that a kill study forks its runs from: each command has run there once, with its model."""

import functools
import os
import pickle
from pathlib import Path

from helpers.kills import Study
from mace_bounds.backbones import mace

mace.load_mace = functools.cache(mace.load_mace)
STUDIES: list[Study] = pickle.loads(Path(os.environ["MACE_BOUNDS_REHEARSED"]).read_bytes())
for study in STUDIES:
    study.rehearse()
