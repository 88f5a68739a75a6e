"""Engines: the same bytes from each, whatever dies on the way; a bounded window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import forked
from helpers.deadly import KILLS, KILLS_ONCE, RAISES, Unwelcome, deadly
from helpers.mace_builds import TINY, build, real_crystals
from helpers.store_bytes import digests
from helpers.store_records import elements, records
from mace_bounds.backbones import load_model
from mace_bounds.errors import EngineError, StoreError
from mace_bounds.features import ExtractSettings, FeatureStore, extract, extract_rows, usable_cores
from mace_bounds.features.engines import Shard, run_shards
from mace_bounds.features.engines.work import CRASHED, pack_model, unpack_model


@pytest.fixture(scope="module")
def model():
    return load_model(build(TINY), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """The store of a run in one piece and one process."""
    return extract(
        records(),
        tmp_path_factory.mktemp("whole") / "s",
        model,
        ExtractSettings(symmetry=True, shard_rows=4, workers=1),
    ).folder


def test_processes_give_the_same_bytes_in_a_bounded_window(model, whole, tmp_path):
    taken, seen, ahead = [], [], []

    def source():
        for record in records():
            taken.append(record)
            yield record

    def progress(done, failed):
        seen.append((done, failed))
        ahead.append(len(taken) - done)

    extract(
        source(),
        tmp_path / "s",
        model,
        ExtractSettings(symmetry=True, shard_rows=4, workers=2),
        progress=progress,
    )
    assert digests(tmp_path / "s") == digests(whole)
    assert [done for done, _ in seen] == list(range(4, 41, 4))
    assert seen[-1] == (40, 5)
    assert max(ahead) <= 4 * 3  # two shards in hand and one that waits, of ten
    idle = ("forkserver", "resource_tracker")  # multiprocessing's own
    commands = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert [c for c in commands if not any(name in c for name in idle)] == []


def test_source_of_one_shard_starts_no_process(model, tmp_path, monkeypatch):
    monkeypatch.setattr("mace_bounds.features.engines.Processes", None)
    extract(records(8), tmp_path / "s", model, ExtractSettings(shard_rows=8, workers=2))
    assert FeatureStore(tmp_path / "s").manifest.n_records == 8
    with pytest.raises(TypeError):
        extract(records(9), tmp_path / "t", model, ExtractSettings(shard_rows=8, workers=2))


def test_in_process_engine_gives_the_threads_back(model, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        extract(records(4), tmp_path / "s", model)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_dead_workers_and_killers(model, tmp_path):
    """He kills every time, Ne once, Ar raises: two rows with a reason, the others as if these had come with theirs."""
    given = elements(0, 0, KILLS, 0, 0, KILLS_ONCE, 0, 0, 0, 0, RAISES, 0)
    fatal = deadly(model, tmp_path / "scar")
    rows = extract(given, tmp_path / "s", fatal, ExtractSettings(shard_rows=4, workers=2)).read()
    assert (tmp_path / "scar").exists()
    reasons = rows.table["reason"]
    assert reasons[reasons.notna()].index.tolist() == [2, 10]
    assert reasons[2] == CRASHED
    assert "failed on this structure alone (RuntimeError: no noble gases)" in reasons[10]
    assert rows.table["formula"][2] == "He"
    blamed = [replace(r, crystal=None, reason="x") if k in (2, 10) else r for k, r in enumerate(given)]
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        wanted = extract_rows(blamed[part], model).features
        assert np.array_equal(rows.features[part], wanted.astype(np.float32), equal_nan=True)
    again = extract(given, tmp_path / "t", fatal, ExtractSettings(shard_rows=4, workers=2)).folder
    assert digests(again) == digests(tmp_path / "s")


def test_failures_in_this_process(model, tmp_path):
    rows = extract(elements(0, RAISES, RAISES, 0), tmp_path / "s", deadly(model)).read()
    assert rows.table["reason"].isna().tolist() == [True, False, False, True]
    assert extract(elements(RAISES), tmp_path / "alone", deadly(model)).manifest.n_failed == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_of_the_model_is_no_fault_of_structures(model, tmp_path, workers):
    with pytest.raises(RuntimeError, match="noble gases"):
        extract(
            elements(0, 0, 0, 0),
            tmp_path / "s",
            deadly(model, broken=True),
            ExtractSettings(shard_rows=2, workers=workers),
        )
    assert not list((tmp_path / "s").glob("shard-*"))


def test_workers_that_cannot_start(model, tmp_path):
    unwelcome = deadly(model)
    object.__setattr__(unwelcome, "__class__", Unwelcome)
    with pytest.raises(EngineError, match="3 died before they had loaded the model, exit code 7"):
        extract(records(8), tmp_path / "s", unwelcome, ExtractSettings(shard_rows=4, workers=2))
    closed = replace(model, name="mine")
    object.__setattr__(closed, "module", lambda: None)
    with pytest.raises(EngineError, match=r"mine cannot be sent .* cannot be pickled .*; use one worker"):
        extract(records(8), tmp_path / "t", closed, ExtractSettings(shard_rows=4, workers=2))
    with pytest.raises(StoreError, match="workers is 0, and its minimum is 1"):
        ExtractSettings(workers=0)


def test_script_without_guard_is_told_what_it_lacks(tmp_path):
    """Worker processes import the script again, which would start workers again."""
    script = tmp_path / "script.py"
    script.write_text(
        "from ase.build import bulk\nfrom helpers.pair_backbone import PairBackbone\n"
        "from mace_bounds import extract, read\nfrom mace_bounds.features import ExtractSettings\n"
        "settings = ExtractSettings(shard_rows=1, workers=2)\n"
        f"extract(read([bulk('Cu')] * 4), {str(tmp_path / 's')!r}, PairBackbone(), settings)\n"
    )
    told = forked.run(forked.script, script)
    assert told.returncode == 1
    assert "EngineError: worker processes do not start" in told.stderr.splitlines()[-1]


def test_models_travel(model):
    """Also a scripted one, which pickle alone refuses."""
    crystals = real_crystals(6)
    wanted = model.extract(crystals).features
    assert np.array_equal(unpack_model(pack_model(model)).extract(crystals).features, wanted)
    scripted = replace(model, module=torch.jit.script(torch.nn.Linear(2, 2)))
    back = unpack_model(pack_model(scripted)).module
    assert torch.equal(back(torch.ones(2)), scripted.module(torch.ones(2)))


def test_usable_cores_heed_affinity():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    code += "from mace_bounds.features.engines import usable_cores; print(usable_cores())"
    assert forked.run(forked.python, code).stdout.strip() == "1"
    assert usable_cores() >= 1


class Simulated:
    """An engine without a model: tasks end in any order; those with a killer, or that chance hits, kill."""

    def __init__(self, draw, slots, max_deaths, crashing_rows, accidents):
        self.slots, self.max_deaths = slots, max_deaths
        self.draw, self.crashing_rows, self.accidents = draw, crashing_rows, accidents
        self.tasks, self.closed = [], False

    def submit(self, task):
        self.tasks.append(task)
        assert len(self.tasks) <= self.slots

    def wait(self):
        task = self.tasks.pop(self.draw(st.integers(0, len(self.tasks) - 1)))
        shard = task.shard
        places = range(*(task.span or (0, len(shard.records))))
        known = shard.crashing_rows if task.span is None else ()
        if self.crashing_rows & {shard.records[k] for k in places if k not in known}:
            return task, None
        if task.span is None and self.accidents:
            self.accidents -= 1
            return task, None
        return task, len(known)

    def close(self):
        self.closed = True


@given(st.data())
@settings(deadline=None)
def test_every_shard_is_filled_once_and_exactly_the_killers_are_blamed(data):
    sizes = data.draw(st.lists(st.integers(1, 9), max_size=6))
    names = [[(index, k) for k in range(size)] for index, size in enumerate(sizes)]
    everything = [name for shard in names for name in shard]
    crashing_rows = set(data.draw(st.lists(st.sampled_from(everything), max_size=4))) if everything else set()
    max_deaths = data.draw(st.integers(1, 3))
    accidents = data.draw(st.integers(0, max_deaths - 1))
    slots = data.draw(st.integers(1, 4))
    engine = Simulated(data.draw, slots, max_deaths, crashing_rows, accidents)
    shards = (Shard(index, Path(str(index)), list(shard)) for index, shard in enumerate(names))
    filled = list(run_shards(engine, shards))
    assert sorted(shard.index for shard, _ in filled) == list(range(len(sizes)))
    assert {shard.records[k] for shard, _ in filled for k in shard.crashing_rows} == crashing_rows
    assert sum(n for _, n in filled) == len(crashing_rows)
    assert engine.closed


def test_deaths_without_a_culprit_end_the_run():
    engine = Simulated(lambda _: 0, 1, 2, set(), accidents=99)
    with pytest.raises(EngineError, match="use fewer workers"):
        list(run_shards(engine, [Shard(0, Path("s"), [1, 2, 3])]))
    assert engine.closed
