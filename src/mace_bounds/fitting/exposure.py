"""What measured structures have to do with training: with the head's own data, and with the model's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

UNSEEN, NEW_TO_HEAD, ALL = "unseen", "new_to_head", "all"

UNKNOWN = "unknown"
"""Value of ``seen_in`` of a composition that is new to the head, where the model's training is not known."""

SUBSETS: dict[str, tuple[str, ...]] = {
    UNSEEN: ("unseen",),
    NEW_TO_HEAD: ("unseen", UNKNOWN, "model_training"),
}
"""Values of ``seen_in`` of the rows that can measure coverage on new crystals, by the name of the subset."""

SUBSET_TEXT = {
    UNSEEN: "of compositions that neither the head nor the model's own training has seen",
    NEW_TO_HEAD: "of compositions that the head has not used",
}
SUBSET_TITLE = {UNSEEN: "unseen compositions", NEW_TO_HEAD: "not used by the head", ALL: "all labelled rows"}
"""Short, for the titles of plots and tables."""

SEEN_IN_TEXT = {
    "unseen": "not seen before",
    UNKNOWN: "not used by the head; whether by the model is not known",
    "model_training": "only in the model's own training",
    "fit": "in the fit of the head",
    "calibration": "in its calibration",
}
"""What a composition was used for before, in the order in which a report lists it."""


@dataclass(frozen=True)
class TrainingExposure:
    """How far the structures that measure a head may have been in the training of the model whose energies it bounds.

    Errors on such structures are smaller than on new crystals as a rule, so that bounds made from them are too
    narrow for new crystals, and the coverage measured on them is not the coverage there.

    Attributes
    ----------
    known : bool
        Whether it is known which compositions the model was trained on.
    included : bool
        Whether structures of these compositions may be among the measured ones.
    published : bool
        Whether the energies were published, by a model that does not run here.
    n : int
        Structures measured.
    n_in_training : int
        How many of them have a composition of the model's training; 0 where that is not known.
    """

    known: bool
    included: bool = False
    published: bool = False
    n: int = 0
    n_in_training: int = 0

    @classmethod
    def of_head(cls, provenance: Mapping[str, Any]) -> TrainingExposure:
        """Exposure of the test split of a head, from its provenance."""
        return cls(
            known=bool(provenance.get("training_compositions_known", True)),
            included=bool(provenance.get("includes_training")),
            published=bool(provenance.get("published")),
            n=int(provenance.get("rows", {}).get("test", 0)),
            n_in_training=int(provenance.get("test_rows_in_training", 0)),
        )

    def of_rows(self, n: int, n_in_training: int) -> TrainingExposure:
        """The same head measured on other structures."""
        return replace(self, n=n, n_in_training=n_in_training)

    @property
    def evaluation_subset(self) -> str:
        """Name of the rows that measure the head: new to everything where that is known, else new to the head."""
        return UNSEEN if self.known and not self.included else NEW_TO_HEAD

    def clause(self) -> str:
        """Go on with a sentence about structures of :attr:`evaluation_subset`; empty where all is said."""
        if self.published and not self.known:
            return "; which of them the model that published the energies was trained on is not known here"
        if not self.known:
            return "; which of them the model's own training has seen is not known here"
        if not self.included:
            return ""
        share = {0: "none", self.n: "all"}.get(self.n_in_training, f"{self.n_in_training:,}")
        return f"; {share} of them have compositions that the model's own training has seen"

    def warning(self, model: str = "the model", trained_on: str = "") -> str:
        """Say in a sentence what the exposure means for the bounds; empty where there is nothing to say.

        Parameters
        ----------
        model : str
            What to call the model.
        trained_on : str
            What is known of its training data beside the compositions, if anything.
        """
        narrow = (
            "its errors are smaller than on new crystals as a rule; bounds made from them are too narrow for new "
            "crystals, and the coverage measured on them is not the coverage on new ones."
        )
        if not self.known:
            who = "the model that published the energies" if self.published else model
            trained = f"; it was trained on {trained_on}" if trained_on else ""
            return f"Which of these compositions {who} was trained on is not known here{trained}: on those {narrow}"
        if self.included and self.n_in_training:
            return (
                f"The training of {model} has seen the compositions of {self.n_in_training:,} of the {self.n:,} "
                f"structures that were measured: if it was trained on labels like these, {narrow}"
            )
        return ""

    def sentence(self, model: str = "the model", trained_on: str = "") -> str:
        """:meth:`warning`, or else a sentence that says why there is none."""
        if warning := self.warning(model, trained_on):
            return warning
        if self.included:
            return f"The training of {model} has seen none of the compositions that measured the head."
        return f"Compositions that the training of {model} has seen are left out of fit, calibration and measurement."
