"""The thread that owns the model: who goes together, in which order, and what is remembered."""

from contextlib import contextmanager

import numpy as np
import pytest
from ase.build import bulk

from mace_bounds.bounds import MOST_STRUCTURES, BoundsPredictor
from mace_bounds.service import Problem
from mace_bounds.service.metrics import Metrics
from mace_bounds.service.worker import CachedBackbone, Task, Worker
from mace_bounds.structures import read


def crystals(n, length=5.0, symbols="NaCl"):
    made = [bulk(symbols, "rocksalt", length + 0.01 * k) for k in range(n)]
    return list(read(made))


@contextmanager
def working(predictors, window_s=0.0, coming=0):
    worker = Worker(lambda: predictors, window_s, lambda: coming, Metrics())
    worker.start()
    assert worker.loaded.wait(10)
    try:
        yield worker
    finally:
        worker.stop()


def together(worker, tasks):
    """Put tasks into the line at one moment, and wait for all."""
    with worker._changed:
        for task in tasks:
            worker.submit(task)
    return [task.answer.result(60) for task in tasks]


def test_alone_is_what_predict_gives(predictors, mini):
    tasks = [Task("mini", crystals(1, 5.1 + k), 0.95) for k in range(3)]
    with working(predictors, window_s=0) as worker:
        tables = together(worker, tasks)
    for task, table in zip(tasks, tables, strict=True):
        assert table.equals(mini.predict(task.structures))


def test_together_is_the_same_but_for_round_off(predictors, mini):
    """Fresh crystals of several requests, one with a structure that has a reason, go through the model at once."""
    uncached = BoundsPredictor(mini.model._inner, mini.head)
    broken = list(read({"lattice": {"matrix": np.eye(3).tolist()}, "sites": []}))
    tasks = [
        Task("mini", crystals(2, 5.31), 0.95),
        Task("mini", crystals(1, 5.47) + broken, 0.9),
        Task("mini", crystals(1, 5.63), 0.95),
        Task("mini", crystals(1, 5.79), 0.95, neighbours=2),
    ]
    with working(predictors, window_s=0.05) as worker:
        answers = together(worker, tasks)
        batches = worker._metrics.registry.get_sample_value("mace_bounds_batch_structures_count")
    assert batches == 1
    tables = [*answers[:3], answers[3][0]]
    for task, table in zip(tasks, tables, strict=True):
        wanted = uncached.predict(task.structures, task.level)
        assert list(table["reason"].isna()) == list(wanted["reason"].isna())
        for name in ("energy_model_ev", "energy_lower_ev", "upper_mev_per_atom", "level"):
            assert table[name].to_numpy(float) == pytest.approx(
                wanted[name].to_numpy(float), abs=1e-3, nan_ok=True
            )
        assert table["id"].tolist() == wanted["id"].tolist()
    assert len(answers[3][1].neighbours) == 2


def test_a_large_request_lets_small_ones_pass(predictors):
    order = []
    large, small = (
        Task("mini", crystals(4 * MOST_STRUCTURES, 5.0), 0.95),
        Task("mini", crystals(1, 4.9), 0.95),
    )
    for name, task in (("large", large), ("small", small)):
        task.answer.add_done_callback(lambda _, name=name: order.append(name))
    with working(predictors) as worker:
        tables = together(worker, [large, small])
    assert order == ["small", "large"]
    assert [len(table) for table in tables] == [4 * MOST_STRUCTURES, 1]


def test_what_is_cancelled_is_not_computed(predictors, mini):
    before = mini.model.misses
    gone, kept = Task("mini", crystals(1, 3.9051), 0.95), Task("mini", crystals(1, 3.9052), 0.95)
    gone.answer.cancel()
    with working(predictors, window_s=0.05) as worker:
        with worker._changed:
            worker.submit(gone)
            worker.submit(kept)
        kept.answer.result(60)
    assert mini.model.misses - before == 1


def test_the_end_comes_after_the_last_answer(predictors):
    tasks = [Task("mini", crystals(2, 5.0), 0.95) for _ in range(5)]
    with working(predictors) as worker:
        for task in tasks:
            worker.submit(task)
        worker.stop()
        assert all(task.answer.done() for task in tasks)
        with pytest.raises(Problem) as caught:
            worker.submit(Task("mini", crystals(1), 0.95))
    assert (caught.value.status, caught.value.retry_after_s) == (503, 2)


class Failing(CachedBackbone):
    """The model, which fails on everything with lithium."""

    def extract(self, crystals, kind="readout", *, atoms=False):
        if any(3 in crystal.numbers for crystal in crystals):
            raise RuntimeError("no lithium")
        return super().extract(crystals, kind, atoms=atoms)


def test_a_structure_on_which_the_model_fails_harms_no_other(mini):
    failing = BoundsPredictor(Failing(mini.model._inner, 1e6), mini.head)
    tasks = [Task("f", crystals(2, 5.2), 0.95), Task("f", crystals(2, 4.1, "LiF"), 0.95)]
    with working({"f": failing}, window_s=0.05) as worker:
        good, bad = together(worker, tasks)
    assert good["reason"].isna().all()
    assert bad["reason"].str.contains("no lithium").all()


def test_features_are_remembered_within_limits(mini):
    inner = mini.model._inner
    found = [record.crystal for record in crystals(6, 5.0)]
    wanted = inner.extract(found, atoms=True)
    memory = CachedBackbone(inner, 1e6)
    memory.extract(found[:3], atoms=True)
    for _ in range(2):
        block = memory.extract([*found, found[0]], atoms=True)
        np.testing.assert_allclose(block.features[:6], wanted.features, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(block.features[6], block.features[0])
        np.testing.assert_allclose(block.atoms[:12], wanted.atoms, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(block.energy_ev[:6], wanted.energy_ev, atol=1e-5)
        assert block.atoms.shape[0] == 14
    assert (memory.misses, memory.hits) == (6, 3 + 1 + 7)
    assert memory.extract([]).features.shape == (0, wanted.features.shape[1])
    assert (memory.name, memory.digest, memory.atomic_numbers) == (
        inner.name,
        inner.digest,
        inner.atomic_numbers,
    )
    small = CachedBackbone(inner, 3000)
    small.extract(found, atoms=True)
    assert 0 < len(small._kept) < 6
    assert small._bytes <= 3000
    none = CachedBackbone(inner, 0)
    none.extract(found[:2])
    none.extract(found[:2])
    assert (none.hits, none.misses, none._bytes) == (0, 4, 0)
