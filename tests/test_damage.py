"""Heads and stores that were changed, by chance or by hand: used or refused with one sentence, never at fault."""

from __future__ import annotations

import importlib.util
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from mace_bounds.bounds import find_head, list_heads, load_head
from mace_bounds.calibration.schema import check_tensors, read_config
from mace_bounds.errors import HeadError, StoreError
from mace_bounds.features import FeatureStore, merge
from mace_bounds.features.shard import check_bytes, read_shard
from mace_bounds.head import read_head_folder


@pytest.fixture(scope="module")
def fuzz():
    path = Path(__file__).parents[1] / "scripts" / "fuzz_folders.py"
    spec = importlib.util.spec_from_file_location("fuzz_folders", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mutated_heads(fuzz, tiny_fit, tiny_store):
    rows = FeatureStore(tiny_store).read().scored().take(np.arange(10))
    counts, faults = fuzz.run(
        60, 0, lambda to, rng: fuzz.mutated_head(tiny_fit.folder, to, rng), lambda to: fuzz.use_head(to, rows)
    )
    assert not faults
    assert counts["refused"] > 20
    assert counts["used as it is"] > 5


def test_empty_sets_of_novelty_are_refused(tiny_fit):
    tensors, config = read_head_folder(tiny_fit.folder)
    local = "novelty.local_structures"
    no_clusters = {f"{local}.clusters": tensors[f"{local}.clusters"][:0]}
    no_rows = {f"{local}.set0.{name}": tensors[f"{local}.set0.{name}"][:0] for name in ("rows", "inverse")}
    no_rows[f"{local}.set0.inverse"] = no_rows[f"{local}.set0.inverse"][:, :0]
    for changed, words in ((no_clusters, "no clusters"), (no_rows, "no rows")):
        with pytest.raises(HeadError, match=words):
            check_tensors(tensors | changed, read_config(config))


def test_mutated_stores(fuzz, tiny_fit, tiny_store):
    counts, faults = fuzz.run(
        40,
        0,
        lambda to, rng: fuzz.mutated_store(tiny_store, to, rng),
        lambda to: fuzz.use_store(to, tiny_fit.head),
    )
    assert not faults
    assert counts["refused"] > 20


def test_one_bit_of_a_shard_is_noticed(tiny_store, tmp_path):
    shard = tmp_path / "shard-000000.parquet"
    data = (tiny_store / shard.name).read_bytes()
    shard.write_bytes(data)
    check_bytes(shard)
    n_features = len(FeatureStore(tiny_store).manifest.columns)
    good, rng = read_shard(shard, n_features), random.Random(0)
    for _ in range(60):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        shard.write_bytes(changed)
        with pytest.raises(StoreError):
            check_bytes(shard)
        try:  # bits that no value depends on may pass
            rows = read_shard(shard, n_features)
        except StoreError:
            continue
        assert rows.table.equals(good.table)
        assert np.array_equal(rows.features, good.features, equal_nan=True)


def test_merge_refuses_a_changed_shard(labelled_crystals, tiny_model_folder, tmp_path):
    from mace_bounds.backbones import load_model
    from mace_bounds.features import ExtractSettings, extract
    from mace_bounds.structures import read

    model, parts = load_model(tiny_model_folder), [tmp_path / "one", tmp_path / "two"]
    for k, part in enumerate(parts, 1):
        extract(read(labelled_crystals[:8]), part, model, ExtractSettings(shard_rows=4, part=(k, 2)))
    shard = parts[1] / "shard-000001.parquet"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreError, match=r"shard-000001.parquet is damaged or was changed"):
        merge(tmp_path / "merged", parts)


def test_a_missing_shard_is_noticed(tiny_store, tmp_path):
    store = shutil.copytree(tiny_store, tmp_path / "store")
    (store / "shard-000001.parquet").unlink()
    with pytest.raises(StoreError, match=r"hold 136 records, and its manifest says 200"):
        FeatureStore(store).read()


def test_a_damaged_head_does_not_hide_the_others(tiny_fit, tiny_model_folder, tmp_path, monkeypatch):
    for name in ("a-cut", "b-good", "c-other"):
        shutil.copytree(tiny_fit.folder, tmp_path / name)
    (tmp_path / "a-cut" / "config.json").write_bytes((tiny_fit.folder / "config.json").read_bytes()[:200])
    (tmp_path / "c-other" / "config.json").write_text('{"format": 1, "digest": "", "identity": 3}')
    monkeypatch.setenv("MACE_BOUNDS_HEADS", str(tmp_path))
    cards = {card.name: card for card in list_heads()}
    assert [name for name, card in cards.items() if card.reason] == ["a-cut", "c-other"]
    assert "damaged" in cards["c-other"].reason
    assert cards["b-good"].coverage
    assert find_head(tiny_model_folder) == tmp_path / "b-good"
    with pytest.raises(HeadError):
        load_head("a-cut")
