"""Imported by the server of processes: the first model of a process takes seconds more than the next.

TorchScript of mace and e3nn is compiled at its first two calls, in either precision.
"""

from __future__ import annotations

from mace_bounds import load_model
from mace_bounds.examples import example_files
from mace_bounds.structures import read

CRYSTALS = [record.crystal for record in read(example_files("NaCl"))]
for dtype in ("float64", "float32"):
    model = load_model("mini", dtype=dtype, device="cpu")
    for _ in range(2):
        model.extract(CRYSTALS)
del model
