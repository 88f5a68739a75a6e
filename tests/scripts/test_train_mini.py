"""Training of mini goes on: from the weights that ship, and from a checkpoint as if it had not been stopped."""

import shutil
import warnings

import numpy as np
import pytest
import torch
from ase.build import bulk

from mace_bounds import load_model
from mace_bounds.structures import Crystal
from mini_checkpoint import EVERY_S, Place, read_checkpoint, read_start, write_checkpoint
from mini_frames import ATOMIC_NUMBERS, Frame
from train_mini import Trainer

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="training compiles a kernel in C")


def crystals():
    for name, structure, a in (("Cu", "fcc", 3.6), ("W", "bcc", 3.2), ("Si", "diamond", 5.4)):
        yield from (bulk(name, structure, a * x) for x in (0.97, 1.0, 1.03))


@pytest.fixture(scope="module")
def frames():
    energies = np.linspace(-20.0, -4.0, 9)  # made up: nothing here asks what is learned
    sources = ["teacher", "alexandria_pressure_P000", "mp_entries"] * 3
    return [
        Frame(str(k), source, atoms, str(atoms.symbols), energy)
        for k, (source, atoms, energy) in enumerate(zip(sources, crystals(), energies, strict=True))
    ]


@pytest.fixture(scope="module")
def trainer(frames):
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript, as in the recipe
        yield Trainer(frames, np.arange(len(frames)), read_start("mini"))
    torch.set_default_dtype(torch.float32)


def test_a_run_begins_with_the_model_that_ships(trainer, frames):
    every = np.arange(len(frames))
    n_atoms = trainer.n_atoms
    said = (trainer.errors_mev_per_atom(every) / 1e3 + trainer.target) * n_atoms
    own = dict(zip(ATOMIC_NUMBERS, trainer.atomic_energies, strict=True))
    fixed = np.array([sum(own[z] for z in frame.atoms.numbers) for frame in frames])
    model = load_model("mini", device="cpu")
    block = model.extract([Crystal(a.numbers, a.positions, a.cell.array) for a in crystals()])
    wanted = np.column_stack([block.features, n_atoms]) @ model.theta0_ev + block.fixed_energy_ev
    assert said + fixed == pytest.approx(wanted, abs=2e-4)


def test_a_run_goes_on_from_a_checkpoint(trainer, tmp_path):
    place = Place(spent_s=60.0, steps=7, epoch=1, step=2, late=True)
    trainer.step([1, 2, 4], 1e-3, 1)
    write_checkpoint(tmp_path / "checkpoint.pt", trainer, place)
    trainer.step([0, 3, 6], 1e-3, 1)
    after = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    mean = {name: p.detach().clone() for name, p in trainer.average.named_parameters()}
    assert read_checkpoint(tmp_path / "checkpoint.pt", trainer) == place
    assert any((p != after[name]).any() for name, p in trainer.model.named_parameters())
    trainer.step([0, 3, 6], 1e-3, 1)
    for values, model in ((after, trainer.model), (mean, trainer.average)):
        for name, parameter in model.named_parameters():
            np.testing.assert_allclose(parameter.detach(), values[name], rtol=1e-5, atol=1e-7, err_msg=name)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.usefixtures("trainer")
def test_the_kernel_leaves_subnormal_numbers_alone():
    assert float.fromhex("0x1p-1074") * 1.0 > 0.0


def test_a_new_run_stands_at_its_beginning(trainer, tmp_path):
    assert read_checkpoint(tmp_path / "none.pt", trainer) == Place(0.0, 0, 0, 0, False)
    assert EVERY_S <= 120  # what the recipe says of a kill
