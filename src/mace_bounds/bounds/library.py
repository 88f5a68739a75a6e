"""Which heads are here, and which of them fits a model: decided from small files, before anything is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mace_bounds._io import atomic_folder, file_sha256, heads_folder, remove_folder, remove_leftovers
from mace_bounds.backbones import DEFAULT_MODEL, digest_of, fetch_weights, find_weights, list_models
from mace_bounds.calibration import CalibratedHead, read_config
from mace_bounds.calibration import load_head as load_head_folder
from mace_bounds.errors import HeadError, ModelError, nearest
from mace_bounds.head import CONFIG, TENSORS, is_head_folder
from mace_bounds.levels import Levels
from mace_bounds.structures import TOTAL_ENERGY

SHIPPED = Path(__file__).parent.parent / "data" / "heads"


@dataclass(frozen=True)
class HeadCard:
    """What a head folder says of itself.

    Attributes
    ----------
    name : str
        Name of the folder.
    path : Path
        The folder.
    model : str
        The model whose energies it bounds.
    model_digest, model_head : str
        The frozen model that gives its features.
    digest : str
        SHA-256 of the head itself.
    levels : Levels
        Nominal coverages that it is calibrated for.
    rows : dict of str to int
        Labelled rows per split.
    coverage : dict of str to float
        Nominal level to coverage measured when it was made, on compositions of its test split.
    shipped : bool
        Whether it came with the package.
    quantity : str
        What it bounds.
    reason : str
        Why it cannot be used; empty where it can.
    published : bool
        Whether ``model`` is another one than that of the features.
    chemistry : str
        The elements that it is for, as ``"W"``; empty where it is for all.
    golden : bool
        Whether it keeps golden energies, by which a model is known beside its tensors.
    """

    name: str
    path: Path
    model: str
    model_digest: str
    model_head: str
    digest: str
    levels: Levels
    rows: dict[str, int]
    coverage: dict[str, float]
    shipped: bool
    quantity: str = TOTAL_ENERGY
    reason: str = ""
    published: bool = False
    golden: bool = False
    chemistry: str = ""

    def is_of(self, model: str) -> bool:
        """Whether it bounds energies of the model of this name: computed by it, or published under its name."""
        return not self.reason and (
            self.model == model or (self.published and _same_model(self.model, model))
        )


def list_heads() -> list[HeadCard]:
    """Describe every head that is found by itself: the user's first, then those of the package.

    A damaged one has a ``reason``, so that it does not hide the others.
    """
    return [*_cards(heads_folder(), shipped=False), *_cards(SHIPPED, shipped=True)]


def read_card(folder: Path, *, shipped: bool = False) -> HeadCard:
    """Describe one head without loading it; raises :class:`HeadError` if the folder is no calibrated head."""
    if not is_head_folder(folder):
        raise HeadError(f"{folder} is no head folder; fit a head with mace-bounds fit STORE HEAD.")
    try:
        config = read_config((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, HeadError) as error:
        raise HeadError(f"the head in {folder} is damaged: {error}") from error
    identity, provenance = config.identity, config.provenance
    return HeadCard(
        name=folder.name,
        path=folder,
        model=identity.model,
        model_digest=identity.model_digest,
        model_head=identity.model_head,
        digest=config.digest,
        levels=Levels.of(provenance.settings.levels if provenance.levels is None else provenance.levels),
        rows=provenance.rows,
        coverage={str(row.level): row.coverage for row in provenance.coverage},
        shipped=shipped,
        quantity=identity.quantity,
        published=bool(identity.features_of or provenance.published),
        golden=identity.golden is not None,
        chemistry=config.material.symbols if config.material else "",
    )


def load_head(head: str | Path) -> CalibratedHead:
    """Load a head by its folder, or by the name that :func:`list_heads` shows (``"mini"``).

    Raises
    ------
    HeadError
        If there is no such head, or its folder cannot be read.
    """
    return load_head_folder(named_head(head))


def find_head(model: str | Path | None, head: str | Path | None = None, digest: str | None = None) -> Path:
    """Find the head for a model, before either is loaded.

    Parameters
    ----------
    model : str or path, optional
        A name or a path; None means the default model where no head is given.
    head : str or path, optional
        A head folder, or the name of one that :func:`list_heads` shows; None looks for one of total energies that fits.
    digest : str, optional
        SHA-256 of the model's tensors where it is known already (features that have been extracted).

    Returns
    -------
    Path
        The head folder; whether it fits the weights is checked again when they are loaded. Where none belongs to the
        model, a head of energies that were published under its name, with the features of another model.

    Raises
    ------
    HeadError
        If the head does not exist, or none fits the model.
    """
    if head is not None:
        return named_head(head)
    wanted = str(model if model is not None else DEFAULT_MODEL)
    found = _fitting(wanted, digest)
    if found is None and digest is None and wanted != DEFAULT_MODEL:
        wanted = find_weights(
            wanted
        ).model  # another way to write a name; an error where there is no such model
        found = _fitting(wanted, None)
    found = found or _published(wanted)
    if found is not None:
        return found
    others = "".join(
        f" (the head {card.name}, of another quantity, {card.quantity}, is used only where it is named)"
        for card in _all_fitting(wanted, digest)
    )
    raise HeadError(
        f"no installed head fits the model {wanted}{others}; build one (mace-bounds build OUT --model {wanted}; "
        "--dry-run says what that takes) and pass --head OUT/head, or use --model mini, whose head ships "
        "with the package."
    )


def _fitting(model: str, digest: str | None) -> Path | None:
    """The first head for a model that bounds total energies: nobody asked for another quantity."""
    found = (card.path for card in _all_fitting(model, digest) if card.quantity == TOTAL_ENERGY)
    return next(found, None)


def _all_fitting(model: str, digest: str | None) -> Iterator[HeadCard]:
    digest = digest or digest_of(model)
    for card in list_heads():
        fits = card.model_digest == digest or (digest is None and card.model == model)
        if fits and not card.reason and not card.published and not card.chemistry:
            yield card


def _published(model: str) -> Path | None:
    """A head of energies of the model of this name, however the name is written."""
    for card in list_heads():
        if card.published and card.quantity == TOTAL_ENERGY and card.is_of(model):
            return card.path
    return None


def _same_model(one: str, other: str) -> bool:
    try:
        return one == other or find_weights(one).model == find_weights(other).model
    except ModelError:
        return False


def named_head(head: str | Path) -> Path:
    """Folder of a head that is given by its folder or its name; HeadError if there is none."""
    if Path(head).is_dir():
        return Path(head)
    for card in list_heads():
        if card.name == str(head):
            return card.path
    known = {card.name.casefold(): card.path for card in list_heads()}
    if str(head).casefold() in known:
        return known[str(head).casefold()]
    raise HeadError(
        f"{str(head)!r} is neither a head folder nor the name of an installed head"
        f"{nearest(str(head), [card.name for card in list_heads()]) or '; mace-bounds heads lists these.'}"
    )


def install_head(head: str | Path, name: str | None = None, *, force: bool = False) -> Path:
    """Copy a head to where commands look for heads by themselves, whole or not at all.

    Parameters
    ----------
    head : path
        A head folder; it is read before it is copied.
    name : str, optional
        Name of the copy; that of the folder by default.
    force : bool
        Replace another head of this name.

    Raises
    ------
    HeadError
        If the folder is no head, another head of this name is there, or the name is none.
    """
    head = Path(head).absolute()
    name = head.name if name is None else name
    if not name or Path(name).name != name or name.startswith("."):
        raise HeadError(f"{name!r} is not a plain name for a head; leave out folders and leading dots.")
    load_head_folder(head)
    target = heads_folder() / name
    if target.exists() and not force:
        if is_head_folder(target) and read_card(target).digest == read_card(head).digest:
            remove_leftovers(target.parent)
            return target
        raise HeadError(
            f"{target} is another head; choose another name, replace it (--force) or remove it (mace-bounds heads "
            f"remove {name})."
        )
    with atomic_folder(target) as made:
        shutil.copytree(head, made, dirs_exist_ok=True)
    return target


def remove_head(name: str) -> Path:
    """Delete one of the user's own installed heads; HeadError if there is none of this name."""
    target = heads_folder() / name
    if name in remove_leftovers(target.parent) and not target.exists():
        return target  # a run that was killed had begun to delete it
    if Path(name).name != name or not is_head_folder(target):
        own = [card.name for card in list_heads() if not card.shipped]
        raise HeadError(f"there is no head {name!r} of your own in {heads_folder()}{nearest(name, own)}")
    remove_folder(target)
    return target


def _cards(folder: Path, *, shipped: bool) -> Iterator[HeadCard]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if not any((path / name).is_file() for name in (CONFIG, TENSORS)):
            continue
        try:
            yield read_card(path, shipped=shipped)
        except HeadError as error:
            yield HeadCard(path.name, path, "", "", "", "", Levels(()), {}, {}, shipped, reason=str(error))


def named_by_the_head(head: CalibratedHead) -> str:
    """The model of its features that a head names: a head must not make this program load a file that nobody named."""
    name = head.identity.backbone
    if name not in _known_names():
        raise HeadError(
            f"the head {head.name} was made for the checkpoint {name!r} (digest {head.identity.model_digest[:12]}), "
            "which is no model that is known by its name; name it with --model."
        )
    return name


def check_file(head: CalibratedHead, name: str | Path) -> None:
    """Compare the file of a model that was not given by its path with the one the head was made with: unread."""
    wanted = head.identity.model_file_sha256
    if wanted and find_weights(name).url is not None:
        path = fetch_weights(name).path
        if file_sha256(path) != wanted:
            raise HeadError(
                f"{path}, the file of {name}, is not the one that the head {head.name} was made with (SHA-256 "
                f"{wanted[:12]}), and it was not loaded; fetch it again, or give the path of a file that you trust "
                "with --model."
            )


def _known_names() -> set[str]:
    return {model.name for model in list_models()}
