"""Every command that writes, killed before an operation on files, ends with the same files when it is run again."""

from __future__ import annotations

import os
import pickle

import pytest

from helpers import forked, kills
from helpers.mp_server import Project, document_of, entry, serving
from mace_bounds.structures import read

PLACES = int(os.environ.get("MACE_BOUNDS_KILLS", "0"))  # scripts/kill_study.py each
NAMES = {
    "features": 2,
    "features --shard": 0,
    "merge": 2,
    "merge in place": 0,
    "fit": 2,
    "fit --overwrite": 0,
    "calibrate": 2,
    "audit": 0,
    "audit --cross-fit": 0,
    "audit of structures": 1,
    "plot": 0,
    "compare": 1,
    "score csv": 1,
    **{f"score {suffix}": 0 for suffix in kills.SCORED[1:]},
    "heads install": 2,
    "heads install --force": 2,
    "heads remove": 2,
    "download": 2,
    "build": 0,
}
"""At how many places each is killed here; those with none share their ways of writing with another."""


@pytest.fixture(scope="module")
def studies(request, tiny_store, tiny_fit, tiny_model_folder, labelled_crystals, tmp_path_factory):
    """Every command, with inputs of a few structures."""
    from ase.io import write

    from mace_bounds import load_model
    from mace_bounds.auditing import AuditConfig, audit
    from mace_bounds.features import ExtractSettings, extract

    folder, few = tmp_path_factory.mktemp("kills"), labelled_crystals[:16]
    write(folder / "few.extxyz", few, format="extxyz")
    model = load_model(tiny_model_folder)
    parts = [folder / "one", folder / "two"]
    for k, part in enumerate(parts):
        settings = ExtractSettings(shard_rows=8, part=(k + 1, 2), workers=1)
        extract(read(folder / "few.extxyz"), part, model, settings)
    audit(tiny_store, folder / "audit", head=tiny_fit.folder, config=AuditConfig(plots=False))
    with serving(Project([document(*pair) for pair in enumerate(labelled_crystals[:40])])) as endpoint:
        made = kills.studies(
            tiny_store,
            tiny_fit.folder,
            tiny_model_folder,
            folder / "few.extxyz",
            parts,
            folder / "audit",
            endpoint,
        )
        if PLACES:
            chosen = {item.callspec.params["name"] for item in request.session.items}
            (folder / "studies").write_bytes(pickle.dumps([made[name] for name in made if name in chosen]))
            os.environ["MACE_BOUNDS_REHEARSED"] = str(folder / "studies")
        forked.warm("helpers.rehearsed" if PLACES else None)
        yield made


def document(index, atoms):
    """What the Materials Project would have of a labelled crystal."""
    crystal = next(iter(read([atoms]))).crystal
    structure = crystal.to_structure()
    made = entry(f"mp-{index + 1}", crystal.chemical_system)
    made["composition"] = {str(e): float(c) for e, c in structure.composition.items()}
    made |= {"structure": structure.as_dict(), "energy": atoms.info["REF_energy"]}
    return document_of(made)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES if PLACES else [name for name, n in NAMES.items() if n])
def test_a_command_that_is_killed_and_run_again_leaves_the_same(studies, name):
    study = studies[name]
    if PLACES:
        found = study.killed_all_over(PLACES)
        print(f"killed: {name}: {found}")
        assert not found.failed
        return
    operations, whole = study.operations()
    assert len(operations) > 8
    places = kills.chosen(operations, NAMES[name])
    told = [operations[k - 1] for k in places]
    assert study.killed_before(*places) == whole, f"killed before {' and, run again, '.join(told)}"
