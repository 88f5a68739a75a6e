"""Which model it is: a hash of its tensors, however it was saved."""

from __future__ import annotations

import copy
import hashlib
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from mace_bounds.backbones import digest_of, load_model, tensor_digest, training_compositions
from mace_bounds.errors import ModelError


def test_the_hash_is_the_documented_one():
    tensors = {"w": np.array([[1, 2]], dtype=np.int32), "b": np.float32(0.5)}
    wanted = b"b\0" + b"\0" + struct.pack("<f", 0.5) + b"w\0" + b"1,2\0" + struct.pack("<2f", 1, 2)
    assert tensor_digest(tensors, tensors.get) == hashlib.sha256(wanted).hexdigest()
    assert tensor_digest(["w"], lambda _: np.ones((2, 1))) != tensor_digest(["w"], lambda _: np.ones(2))


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    return load_model(tiny_model_folder, dtype="float64", device="cpu")


def energies(module):
    return module.atomic_energies_fn.atomic_energies.numpy()


def test_it_is_the_same_for_a_folder_an_object_a_pickle_and_in_single_precision(
    model, tiny_model_folder, tmp_path
):
    assert digest_of(tiny_model_folder) == model.digest
    path = tmp_path / "tiny.model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns when it packs e3nn's compiled parts
        torch.save(model.module, path)
        single = copy.deepcopy(model.module).float()  # what people do before they save or send a model
    assert digest_of(path) is None  # nobody has loaded it yet
    again = load_model(path, device="cpu")
    assert again.digest == model.digest == digest_of(path)
    assert again.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_model(model.module, device="cpu").digest == model.digest
    assert not np.array_equal(energies(single), energies(model.module))
    assert (
        load_model(single, device="cpu").digest
        == load_model(single.double(), device="cpu").digest
        == model.digest
    )
    assert next(model.module.parameters()).dtype == torch.float64  # the user's own is left as it is
    path.write_bytes(path.read_bytes() + b" ")
    assert digest_of(path) is None  # another file now


@pytest.mark.parametrize(
    "name", ["atomic_energies_fn.atomic_energies", "scale_shift.shift", "r_max", "a weight"]
)
def test_it_changes_with_every_part(model, name):
    module = load_model(model.module, dtype="float64", device="cpu").module
    tensor = next(module.parameters()) if name == "a weight" else dict(module.named_buffers())[name]
    tensor.data.view(-1)[0] *= 1 + 1e-6
    tensor.data.view(-1)[0] += 1e-6 * (tensor.data.view(-1)[0] == 0)
    assert load_model(module, device="cpu").digest != model.digest


def test_for_mini_it_is_told_without_torch():
    script = "import sys; from mace_bounds.backbones import digest_of; print(digest_of('mini'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [load_model("mini", device="cpu").digest, "False"]


def test_training_compositions_belong_to_one_digest(model, tiny_model_folder):
    seen = training_compositions(tiny_model_folder, model.digest)
    assert np.array_equal(seen, training_compositions(model, model.digest))
    assert np.array_equal(seen, model.training_compositions)
    for named in (tiny_model_folder, model):
        with pytest.raises(ModelError, match=model.digest[:12]):
            training_compositions(named, "0" * 64)


def test_what_is_no_model_is_refused():
    with pytest.raises(ModelError, match="a dict is no model"):
        load_model({})
