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

rm -rf demo/features demo/head demo/report # of an earlier run

printf '\n1. Bounds for ten textbook crystals (and one file that is broken on purpose), from the embedded model and the head that ships with it.\n'
run mace-bounds score src/mace_bounds/data/examples --model mini

printf '\n2. Labelled structures: elements under strain, with energies from all-electron DFT.\n'
run python scripts/make_dcdft.py demo/dcdft.extxyz --model mini

printf '\n3. Features of the frozen model for each of them.\n'
run mace-bounds features demo/dcdft.extxyz demo/features --model mini

quantity="strain energy (WIEN2k) on the energy of mini at V0" # the head bounds this and nothing else
# Coverage on elements left out of the head's fit is a fair test of the head. mini has been trained on PBE energies of many of
# these elements, though never on these WIEN2k strain energies, so it is no fair test of the network.
printf '\n4. A head of our own: fitted and calibrated on some elements, measured on others, in five splits. The network was trained on PBE energies of many of these elements (hence --include-training), but on none of these labels.\n'
run mace-bounds fit demo/features demo/head --include-training --fit-share 0.4 --calibration-share 0.35 --repeats 5 \
    --quantity "$quantity" \
    --notes "WIEN2k strain energies of elements; zero: the energy of mini at equilibrium volume"

printf '\n5. The audit: bounds for every structure, and how often they hold.\n'
run mace-bounds audit demo/features demo/report --head demo/head --level 0.9 --quantity "$quantity"

cat <<'END'

Look at
  demo/report/report.html             the report: coverage, violations, plots
  demo/report/plots/calibration.png   measured against nominal coverage
  demo/report/bounds.csv              the bounds table (bounds.parquet for programs)
  demo/head/README.md                 the card of the head
  notebooks/quickstart.ipynb          the same in Python
Bounds for your own crystals:  .venv/bin/mace-bounds score FILE.cif --model mini
END
