"""What is known of a model's own training, said plainly: it decides what its bounds are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mace_bounds.backbones import digest_of, training_compositions

TRAINED_ON = {
    "medium-mpa-0": "MPtrj, which is the Materials Project itself, and sAlex, a part of Alexandria",
}
"""Published training sets of named models; their compositions are not known here one by one."""
ADD_MORE = "join labels that it has not seen (--with SOURCE: WBM, Alexandria outside sAlex, materials newer than that)"


def training_sentence(model: str, about: dict[str, Any]) -> str:
    """Say in a sentence what the labels of a head have to do with the model's training.

    Parameters
    ----------
    model : str
        Its name or path.
    about : dict
        ``training_compositions_known``, ``includes_training`` and ``test_rows_in_training`` of a head's provenance.
    """
    if not about["training_compositions_known"]:
        return unknown_sentence(model)
    model = Path(model).name
    if not about["includes_training"]:
        return f"Compositions that the training of {model} has seen are left out of fit, calibration and measurement."
    return (
        f"Compositions that the training of {model} has seen take part (--include-training), "
        f"{about['test_rows_in_training']:,} rows of the measured ones among them: if it was trained on labels "
        "like these, its errors here are smaller than on new crystals, and the bounds too narrow for those."
    )


def training_is_known(model: str) -> bool:
    """Whether it is known here which compositions a model was trained on."""
    return training_compositions(model, digest_of(model) or "") is not None


def unknown_sentence(model: str) -> str:
    """Say what it means that the compositions of a model's training are not known."""
    known = TRAINED_ON.get(model)
    name, trained = Path(model).name, f"; it was trained on {known}" if known else ""
    return (
        f"Which of these compositions {name} was trained on is not known here{trained}: on those its errors "
        "are as a rule smaller than on new crystals, so that bounds made from them are too narrow for new crystals, "
        f"and the coverage measured on them is not that on new ones; {ADD_MORE}."
    )
