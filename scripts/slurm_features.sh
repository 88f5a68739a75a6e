#!/usr/bin/env bash
# One part of a feature store for each task of a SLURM array, all into one folder on a file system that the nodes share:
#     sbatch --array=1-8 scripts/slurm_features.sh SOURCE OUT [OPTIONS OF mace-bounds features]
#     mace-bounds merge OUT        # when all tasks are done; it names what is missing and the task to submit again
# For mace-bounds build: --until download before it, SOURCE and OUT as that says, --atoms --symmetry, then build again.
# A task that was killed goes on where it stopped when it is submitted again (--array=3 with --export=PARTS=8).
#SBATCH --job-name=mace-bounds
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --time=04:00:00
set -euo pipefail
export OMP_NUM_THREADS=1 # each worker process computes on one thread
exec mace-bounds features "$@" --shard "$SLURM_ARRAY_TASK_ID/${PARTS:-$SLURM_ARRAY_TASK_COUNT}" --workers "${SLURM_CPUS_PER_TASK:-1}"
