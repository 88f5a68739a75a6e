#!/usr/bin/env bash
# Set up this folder (once) and do the main job, from crystals to calibrated error bounds:  bash scripts/demo.sh
# Works without network after the installation. Leaves everything in demo/.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up demo
export PATH="$PWD/.venv/bin:$PATH"

run() {
    local word line=""
    for word in "$@"; do
        case "$word" in *[!A-Za-z0-9_./=-]*) word="\"$word\"" ;; esac
        line+=" $word"
    done
    printf '\n$%s\n' "$line"
    "$@" || stop "the command above failed."
}

rm -rf demo/head demo/report # of an earlier run

printf '\n1. Bounds for ten textbook crystals (and one file that is broken on purpose), from the embedded model and the head that ships with it.\n'
run mace-bounds score src/mace_bounds/data/examples --model mini

store=src/mace_bounds/data/stores/mace-mpa-0-published
printf '\n2. Errors of a real foundation model: energies that were published for MACE-MPA-0 on 782 WBM crystals, beside DFT. The features (of mini) and both energies ship with the package, in a feature store without structures. A head of our own is fitted and calibrated on some compositions and measured on others.\n'
run mace-bounds fit "$store" demo/head --conformal split \
    --notes "energies after the model's own relaxation"

printf '\n3. The audit: every crystal is bounded by a head that has not seen its composition, and the bounds are counted.\n'
run mace-bounds audit "$store" demo/report --cross-fit --conformal split --level 0.9

cat <<'END'

Look at
  demo/report/report.html             the report: coverage, violations, plots
  demo/report/plots/calibration.png   measured against nominal coverage
  demo/report/bounds.csv              the bounds table (bounds.parquet for programs)
  demo/head/README.md                 the card of the head
  notebooks/quickstart.ipynb          the same in Python
Bounds for your own crystals:  .venv/bin/mace-bounds score FILE.cif --model mini
END
