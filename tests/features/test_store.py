"""The feature store: contents, resumption, refusals."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import forked
from helpers.mace_builds import TINY, build
from helpers.store_bytes import digests
from helpers.store_records import extract_records, records
from mace_bounds.backbones import load_model
from mace_bounds.errors import StoreError
from mace_bounds.features import ExtractSettings, FeatureStore, extract, extract_rows, is_store


@pytest.fixture(scope="module")
def model():
    return load_model(build(TINY), dtype="float32", device="cpu")


def test_rows_come_back(tmp_path, model):
    given = records()
    seen = []
    store = extract(
        given,
        tmp_path / "s",
        model,
        ExtractSettings(shard_rows=16, workers=1),
        progress=lambda *n: seen.append(n),
    )
    assert seen == [(16, 2), (32, 4), (40, 5)]
    assert [p.name for p in store.shards()] == [f"shard-{k:06d}.parquet" for k in range(3)]
    rows = store.read()
    assert rows.table["id"].tolist() == [r.id for r in given]
    assert store.manifest.n_records == 40
    assert store.manifest.n_failed == rows.table["reason"].notna().sum() == 5
    assert (
        store.manifest.ids_sha256
        == hashlib.sha256("".join(f"r{i}\n" for i in range(40)).encode()).hexdigest()
    )
    good = [r for r in given if r.reason is None]
    block = model.extract([r.crystal for r in good])
    scored = rows.scored()
    assert np.allclose(scored.features, block.features, rtol=2e-6, atol=1e-6)
    assert np.allclose(scored.table["energy_model_ev"], block.energy_ev, rtol=1e-6)
    assert scored.table["formula"].tolist() == [r.crystal.formula for r in good]
    hulls = [r.hull_distance_ev_per_atom for r in good]
    np.testing.assert_array_equal(scored.table["hull_distance_ev_per_atom"], np.array(hulls, dtype=float))
    assert np.allclose(
        scored.table["volume_a3"], [r.crystal.to_atoms().get_volume() for r in good], rtol=1e-12
    )
    labels = [r.energy_ev for r in good if r.energy_ev is not None]
    assert rows.labelled().table["energy_ev"].tolist() == labels
    assert np.isnan(rows.features[6]).all()
    memory = extract_rows(given, model)
    assert memory.table["structure_hash"].tolist() == rows.table["structure_hash"].tolist()
    by_hand = scored.features @ np.array(store.manifest.theta0_ev[:-1])
    by_hand += (
        np.array(store.manifest.theta0_ev[-1]) * scored.table["n_atoms"] + scored.table["fixed_energy_ev"]
    )
    assert np.allclose(by_hand, scored.table["energy_model_ev"], rtol=0, atol=2e-5)


def test_descriptors_store_has_no_readout(tmp_path, model):
    store = extract(records(5), tmp_path / "s", model, ExtractSettings(kind="descriptors", workers=1))
    assert store.manifest.theta0_ev == ()
    assert store.read().features.shape == (5, 16)


def test_two_runs_and_a_resumed_run_give_the_same_bytes(tmp_path, model):
    whole, other, resumed = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    extract(records(), whole, model, ExtractSettings(shard_rows=8, workers=1))
    extract(records(), other, model, ExtractSettings(shard_rows=8, workers=1))
    assert digests(whole) == digests(other)

    class Stop(Exception):
        pass

    def stop(done, _):
        if done >= 16:
            raise Stop

    with pytest.raises(Stop):
        extract(records(), resumed, model, ExtractSettings(shard_rows=8, workers=1), progress=stop)
    assert is_store(resumed)
    with pytest.raises(StoreError, match="interrupted"):
        FeatureStore(resumed).read()
    extract(records(), resumed, model, ExtractSettings(shard_rows=8, workers=1))
    assert digests(resumed) == digests(whole)
    extract(records(), resumed, model, ExtractSettings(shard_rows=8, workers=1))
    assert digests(resumed) == digests(whole)


def test_what_cannot_be_resumed(tmp_path, model):
    folder = tmp_path / "s"
    extract(records(20), folder, model, ExtractSettings(shard_rows=8, workers=1))
    with pytest.raises(StoreError, match="shard_rows differ"):
        extract(records(20), folder, model, ExtractSettings(shard_rows=4, workers=1))
    with pytest.raises(StoreError, match="as it was before"):
        extract(records(20)[::-1], folder, model, ExtractSettings(shard_rows=8, workers=1))
    moved = [replace(records(20)[0], hull_distance_ev_per_atom=0.5), *records(20)[1:]]
    with pytest.raises(StoreError, match="as it was before"):
        extract(moved, folder, model, ExtractSettings(shard_rows=8, workers=1))
    with pytest.raises(StoreError, match="only 16 now"):
        extract(records(16), folder, model, ExtractSettings(shard_rows=8, workers=1))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(StoreError, match="holds something else"):
        extract(records(5), tmp_path / "full", model)
    with pytest.raises(StoreError, match="not one record"):
        extract([], tmp_path / "empty", model)


def test_damaged_stores_are_refused_in_one_sentence(tmp_path, model):
    folder = tmp_path / "s"
    extract(records(20), folder, model, ExtractSettings(shard_rows=8, workers=1))
    shard = folder / "shard-000001.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StoreError, match="delete it"):
        FeatureStore(folder).read()
    manifest = folder / "manifest.json"
    good = json.loads(manifest.read_text())
    for bad in ("", "[]", json.dumps(good | {"format": "other"}), json.dumps({"format": good["format"]})):
        manifest.write_text(bad)
        with pytest.raises(StoreError) as caught:
            FeatureStore(folder)
        assert "\n" not in str(caught.value)


def test_sigkill_at_any_moment(tmp_path):
    """The full study (1,500 crystals, ten kills) is scripts/kill_study.py."""
    checkpoint = tmp_path / "tiny.model"
    torch.save(build(TINY), checkpoint)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    extract_records(whole, checkpoint)
    rng = np.random.default_rng(0)
    for _ in range(2):
        before = len(list(broken.glob("shard-*")))
        with forked.start(extract_records, broken, checkpoint) as process:
            process.wait_until(lambda before=before: len(list(broken.glob("shard-*"))) > before)
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    assert not FeatureStore(broken).manifest.complete
    extract_records(broken, checkpoint)
    left = {name: d for name, d in digests(broken).items() if not name.startswith(".")}
    assert left == digests(whole)
