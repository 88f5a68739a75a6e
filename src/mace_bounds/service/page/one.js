// One crystal: its interval, how far it is from the data, and why the interval is so wide.

import { axis } from "./axis.js";
import { count, el, fixed, formula, percent, signed, tableOf } from "./dom.js";
import { noveltyBar } from "./novelty.js";

const list = (name, rows) => rows.filter(([, value]) => value !== null).flatMap(([what, value]) => [el("dt", {}, what), el("dd", {}, value)]);

/** The card with the answer, the axis and the numbers. */
export function answerCard(row, head, names) {
  const flags = (row.flags ?? "").split(";").filter(Boolean);
  const useful = !flags.includes("no_useful_bound");
  const perAtom = (energy) => `${fixed(energy / row.n_atoms, 4)} eV/atom`;
  const answer = useful
    ? el("p", { class: "answer" }, "Its DFT energy lies between ", el("strong", {}, `${fixed(row.energy_lower_ev, 3)} eV`), " and ",
        el("strong", {}, `${fixed(row.energy_upper_ev, 3)} eV`), `, for ${percent(row.level)} of crystals like those of the head's data.`)
    : el("p", { class: "answer" }, "There is no bound of use: it would be wider than all energies in the head's data differ.");
  const label = row.energy_dft_ev === null ? null : `${fixed(row.energy_dft_ev, 4)} eV, ${signed(row.error_mev_per_atom, 1)} meV/atom, ${row.inside ? "inside" : "outside"} the bounds`;
  return el("section", { class: "card wide", "aria-labelledby": "one-title" },
    el("h2", { id: "one-title", tabindex: "-1" }, formula(row.formula), " ", el("span", { class: "id" }, `${row.id}, ${count(row.n_atoms)} ${row.n_atoms === 1 ? "atom" : "atoms"}`)),
    answer,
    useful ? el("p", { class: "per-atom" }, `${perAtom(row.energy_lower_ev)} to ${perAtom(row.energy_upper_ev)}; the model says ${perAtom(row.energy_model_ev)}.`) : "",
    axis(row, head?.errors),
    head?.errors ? el("p", { class: "quiet" }, `Line: the ${percent(row.level)} bounds of this crystal; dot: best guess. Bars: errors of the ${count(head.errors.n)} labelled crystals that the head keeps (the ends collect what lies beyond).`) : "",
    el("dl", {}, ...list("numbers", [
      ["Model's energy", `${fixed(row.energy_model_ev, 4)} eV`],
      ["E(DFT) − E(model)", `${signed(row.lower_mev_per_atom, 1)} to ${signed(row.upper_mev_per_atom, 1)} meV/atom`],
      ["Best guess", `${signed(row.expected_error_mev_per_atom, 1)} meV/atom, standard deviation ${fixed(row.std_mev_per_atom, 1)}`],
      ["Label in the file", label],
      ["Label not used", row.label_reason],
    ])),
    flags.length
      ? el("div", {}, el("h3", {}, "To know"), el("ul", { class: "flags" }, flags.map((flag) => el("li", {}, el("strong", {}, flag.replaceAll("_", " ")), names[flag] ? `: ${names[flag]}` : ""))))
      : el("p", { class: "quiet" }, "No flags: nothing unusual was found."),
  );
}

/** How far from the data. */
export function noveltyCard(row) {
  const seen = {
    fit: "The head was fitted on this composition.",
    calibration: "The head was calibrated on this composition.",
    model_training: "The model was trained on this composition, where its errors are smaller as a rule.",
    unseen: "Neither head nor model has seen this composition.",
    unknown: "What the model was trained on is not known.",
  };
  const far = row.novelty === null ? null : row.novelty > 1 ? "unlike the head's data: the stated coverage was not measured there" : row.novelty > 0.7 ? "near the edge of the head's data" : "within the head's data";
  return el("section", { class: "card", "aria-labelledby": "far-title" },
    el("h3", { id: "far-title" }, "How far from the data"),
    far === null ? el("p", {}, "This head does not grade it.") : el("div", {},
      noveltyBar(`Novelty ${fixed(row.novelty, 2)}, threshold 1`, row.novelty),
      el("p", {}, `Novelty ${fixed(row.novelty, 2)} (threshold 1): ${far}. It is no size of an error.`)),
    el("p", {}, seen[row.seen_in] ?? ""));
}

/** Why so wide. */
export function whyCard(explanation) {
  const e = explanation;
  const rows = (cells) => el("tr", {}, cells.map(([content, kind]) => el("td", { class: kind ?? null }, content)));
  const parts = e.contributions.length
    ? el("table", {}, el("caption", {}, "What the width is made of"), el("tbody", {},
        rows([["typical width of the head's data, σ"], [`${fixed(e.typical_sigma_mev_per_atom, 1)} meV/atom`, "number"]]),
        ...e.contributions.map((part) => rows([[part.name], [`× ${fixed(part.factor, 2)}`, "number"]])),
        rows([["calibration"], [`× ${fixed(e.conformal_factor, 2)}`, "number"]]),
        rows([["half of the width"], [`${fixed(e.half_width_mev_per_atom, 1)} meV/atom`, "number"]])))
    : "";
  const near = e.neighbours.length
    ? tableOf("Nearest labelled crystals of the head's data, and how far the model is off there", e.neighbours, [
        ["crystal", (n) => el("span", {}, formula(n.formula), ` ${n.id}`)],
        ["distance", (n) => fixed(n.distance, 2), true],
        ["error, meV/atom", (n) => signed(n.error_mev_per_atom, 0), true],
        ["inside its bounds", (n) => (n.inside === null ? "not measured" : n.inside ? "yes" : "no")],
      ], "Nearest labelled crystals")
    : "";
  const unseen = [["Elements", e.unseen_elements], ["Pairs of elements", e.unseen_pairs]].filter(([, names]) => names.length);
  return el("section", { class: "card wide", "aria-labelledby": "why-title" },
    el("h3", { id: "why-title" }, "Why so wide"),
    el("p", {}, `${e.verdict[0].toUpperCase()}${e.verdict.slice(1)}.`),
    ...unseen.map(([what, names]) => el("p", {}, `${what} that no structure of the fit had: ${names.join(", ")}.`)),
    el("div", { class: "one" }, near ? el("div", {}, near) : "", parts ? el("div", {}, parts) : ""));
}

/** What the level means, and what it leaves out. */
export function meaningCard(row, head) {
  const measured = head?.coverage?.find((one) => Math.abs(one.level - row.level) < 1e-9);
  const low = measured?.coverage_low;
  return el("section", { class: "card", "aria-labelledby": "meaning-title" },
    el("h3", { id: "meaning-title" }, `What ${percent(row.level)} means`),
    el("p", {}, `Of many crystals like those the head was calibrated on, ${percent(row.level)} have their DFT energy (${row.quantity}) inside. It is no probability for this one crystal, and nothing was measured for crystals unlike those.`),
    measured ? el("p", {}, `Measured when the head was made: ${fixed(100 * measured.coverage, 1)} % of ${count(measured.n)} crystals of compositions that the head had not used` + (low === undefined ? "." : ` (95 % confidence ${fixed(100 * low, 1)} to ${fixed(100 * measured.coverage_high, 1)} %).`)) : "",
    el("p", {}, "Left out: forces, stresses and derived properties, how far DFT is from experiment, and energies of other geometries than the one given."));
}
