"""The Dask engine on a cluster of two worker processes; the job script of a SLURM cluster."""

from __future__ import annotations

import sys
import textwrap
from importlib.metadata import version

import pytest

from helpers import forked
from helpers.deadly import KILLS, deadly
from helpers.mace_builds import TINY, build
from helpers.store_bytes import digests
from helpers.store_records import elements, records
from mace_bounds.backbones import load_model
from mace_bounds.errors import EngineError
from mace_bounds.features import ExtractSettings, extract
from mace_bounds.features.engines import dask as _dask
from mace_bounds.features.engines.work import CRASHED

pytestmark = pytest.mark.filterwarnings("ignore")  # distributed's own, at the start and end of workers


@pytest.fixture(scope="module")
def model():
    return load_model(build(TINY), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def scheduler():
    import dask
    from distributed import LocalCluster

    forked.warm()  # the workers, and those that replace the dead, are forked from it
    options = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.worker.multiprocessing-method": "forkserver",
    }
    with (
        dask.config.set(options),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
    ):
        yield cluster.scheduler_address


def test_same_bytes_from_two_workers(model, scheduler, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "s"
    extract(records(), whole, model, ExtractSettings(symmetry=True, shard_rows=4, workers=1))
    seen = []
    extract(
        records(),
        out,
        model,
        ExtractSettings(symmetry=True, shard_rows=4, scheduler=scheduler),
        progress=lambda *n: seen.append(n),
    )
    assert digests(out) == digests(whole)
    assert [done for done, _ in seen] == list(range(4, 41, 4))


def test_faults_come_back(model, scheduler, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="noble gases"):
        extract(
            elements(0, 0), tmp_path / "s", deadly(model, broken=True), ExtractSettings(scheduler=scheduler)
        )
    there = version("mace-bounds")
    monkeypatch.setattr(_dask, "_version", lambda _: "0.0")
    with pytest.raises(EngineError, match=f"a Dask worker has mace-bounds {there} and this process 0.0;"):
        extract(records(4), tmp_path / "t", model, ExtractSettings(scheduler=scheduler))


def test_dead_workers_and_killers(model, scheduler, tmp_path):
    given, fatal = elements(KILLS, 0), deadly(model)
    rows = extract(given, tmp_path / "t", fatal, ExtractSettings(shard_rows=1, scheduler=scheduler)).read()
    assert rows.table["reason"][0] == CRASHED
    assert rows.table["reason"].isna().tolist() == [False, True]
    here = extract(given, tmp_path / "u", fatal, ExtractSettings(shard_rows=1, workers=2)).folder
    assert digests(here) == digests(tmp_path / "t")


def test_no_scheduler_is_one_sentence(model, tmp_path, monkeypatch):
    monkeypatch.setattr(_dask, "SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(EngineError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        extract(records(4), tmp_path / "s", model, ExtractSettings(scheduler="tcp://127.0.0.1:9"))
    with pytest.raises(EngineError, match="no Dask scheduler answers at nonsense://x"):
        extract(records(4), tmp_path / "s", model, ExtractSettings(scheduler="nonsense://x"))


def test_missing_dask_is_one_sentence_with_the_remedy(model, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, _dask.__name__)
    monkeypatch.delattr("mace_bounds.features.engines.dask")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EngineError, match=r'install it with pip install "mace-bounds\[dask\]"'):
        extract(records(4), tmp_path / "s", model, ExtractSettings(scheduler="tcp://127.0.0.1:9"))


def test_documented_slurm_cluster_asks_for_what_it_says(monkeypatch, tmp_path):
    """The recipe of the module's documentation, up to the submission of jobs."""
    monkeypatch.chdir(tmp_path)
    recipe = textwrap.dedent(_dask.__doc__.split("::\n\n", 1)[1].split("\n\nAny other", 1)[0])
    compile(recipe, "recipe", "exec")
    made = recipe.split('if __name__ == "__main__":\n', 1)[1].split("    cluster.scale", 1)[0]
    names: dict = {}
    exec("from dask_jobqueue import SLURMCluster\n" + textwrap.dedent(made), names)
    with names["cluster"] as cluster:
        lines = cluster.job_script().splitlines()
    for wanted in (
        "#SBATCH -p compute",
        "#SBATCH --cpus-per-task=16",
        "#SBATCH -t 04:00:00",
        "source .venv/bin/activate",
        "export OMP_NUM_THREADS=1",
    ):
        assert wanted in lines
    assert any(line.startswith("#SBATCH --mem=") for line in lines)
    (command,) = (line for line in lines if "distributed.cli.dask_worker" in line)
    assert "--nthreads 1 " in command
    assert "--nworkers 16 " in command
    assert command.index("tcp://") > 0
