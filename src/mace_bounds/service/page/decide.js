// Several crystals together: which is lower, and how far from the hull of competing phases.

import { Problem, send } from "./asking.js";
import { ticks } from "./axis.js";
import { drawn, el, fixed, formula, signed, svg, tableOf } from "./dom.js";

const LEFT_OUT = "Bounds of DFT energies at 0 K: temperature, vibrations and the error of DFT itself are not part of them.";

/** Rows as bars with error bars on one axis. */
const bars = (rows, how) => drawn((width) => picture(rows, how, width));

function picture(rows, { low, high, best, name, unit }, WIDTH) {
  const narrow = WIDTH < 520; // names stand above their bars there
  const [LEFT, STEP, TOP] = narrow ? [8, 40, 14] : [Math.min(300, WIDTH / 3), 26, 14];
  const letters = Math.floor((narrow ? WIDTH : LEFT) / 7.5);
  const height = TOP + STEP * rows.length + 40;
  const ends = rows.flatMap((row) => [low(row), high(row)]).concat(0);
  const [a, b] = [Math.min(...ends), Math.max(...ends)];
  const pad = 0.05 * (b - a || 1);
  const x = (value) => LEFT + ((value - a + pad) / (b - a + 2 * pad)) * (WIDTH - LEFT - 12);
  const drawing = svg("svg", { class: "axis", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `Bounds of ${rows.length} rows, ${unit}; the numbers are in the table` });
  for (const place of ticks(a - pad, b + pad, (WIDTH - LEFT) / 100))
    drawing.append(
      svg("line", { class: place === 0 ? "zero" : "rule", x1: x(place), x2: x(place), y1: TOP - 8, y2: height - 34 }),
      svg("text", { class: "small", x: x(place), y: height - 20, "text-anchor": "middle" }, signed(place, b - a < 5 ? 2 : 0)),
    );
  rows.forEach((row, i) => {
    const y = TOP + STEP * (i + (narrow ? 0.7 : 0.5));
    const title = name(row);
    drawing.append(
      svg("text", { class: "small", ...(narrow ? { x: LEFT, y: y - 12 } : { x: LEFT - 8, y: y + 4, "text-anchor": "end" }) }, title.length > letters ? `${title.slice(0, letters - 1)}…` : title),
      svg("line", { class: "span", x1: x(low(row)), x2: x(high(row)), y1: y, y2: y }),
      svg("circle", { class: "best", cx: x(best(row)), cy: y, r: 5 }),
    );
  });
  drawing.append(svg("text", { class: "small", x: (LEFT + WIDTH) / 2, y: height - 6, "text-anchor": "middle" }, unit));
  return drawing;
}

const words = (flags) => (flags ?? "").replaceAll(";", ", ").replaceAll("_", " ");
const SHOWN = 40;

function differences(rows) {
  const good = rows.filter((row) => !row.reason).slice(0, SHOWN);
  if (!good.length) return [el("p", {}, rows[0]?.reason ?? "No two of the crystals have one composition.")];
  return [
    bars(good, { low: (r) => r.lower_mev_per_atom, high: (r) => r.upper_mev_per_atom, best: (r) => r.value_mev_per_atom, name: (r) => `${r.id_a} − ${r.id_b}`, unit: "E(first) − E(second), meV per atom" }),
    tableOf("Left of zero the first is lower.", good, [
      ["first", (r) => r.id_a],
      ["second", (r) => r.id_b],
      ["formula", (r) => formula(r.formula)],
      ["best guess", (r) => signed(r.value_mev_per_atom, 1), true],
      ["lower", (r) => signed(r.lower_mev_per_atom, 1), true],
      ["upper", (r) => signed(r.upper_mev_per_atom, 1), true],
      ["probability that the first is lower", (r) => fixed(r.probability_lower, 2), true],
      ["flags", (r) => words(r.flags)],
    ]),
    rows.length > SHOWN ? el("p", { class: "quiet" }, `${rows.length - SHOWN} more are not shown.`) : "",
  ];
}

function hull(rows) {
  const good = rows.filter((row) => !row.reason).sort((a, b) => a.e_above_hull_ev_per_atom - b.e_above_hull_ev_per_atom).slice(0, SHOWN);
  const failed = rows.filter((row) => row.reason);
  return [
    good.length ? bars(good, { low: (r) => r.lower_ev_per_atom, high: (r) => r.upper_ev_per_atom, best: (r) => r.e_above_hull_ev_per_atom, name: (r) => r.id, unit: "above the hull, eV per atom (below 0: stable)" }) : "",
    good.length ? tableOf("Nearest to the hull first.", good, [
      ["id", (r) => r.id],
      ["formula", (r) => formula(r.formula)],
      ["above hull, eV/atom", (r) => signed(r.e_above_hull_ev_per_atom, 3), true],
      ["lower", (r) => signed(r.lower_ev_per_atom, 3), true],
      ["upper", (r) => signed(r.upper_ev_per_atom, 3), true],
      ["probability of stable", (r) => fixed(r.p_stable, 2), true],
      ["decomposes to", (r) => (r.decomposition ?? "").split(";")[0]],
      ["flags", (r) => words(r.flags)],
    ]) : "",
    ...failed.slice(0, 5).map((row) => el("p", { class: "quiet" }, `${row.id}: ${row.reason}`)),
  ];
}

/** The tabs beside the energies, [id, title, content]: each asks when its button is pressed. */
export function decisions(files, several, given) {
  function panel(id, title, about, draw, parameters, tools) {
    const out = el("div", { role: "status", class: "unasked" });
    async function go(phases = []) {
      out.replaceChildren(el("p", { class: "quiet" }, "Computing …"));
      try {
        const answer = await send(`/v1/${id}`, files, { ...given(), ...parameters }, { phases });
        const notes = JSON.parse(answer.headers.get("x-notes") ?? "[]");
        const rows = await answer.json();
        out.replaceChildren(...draw(rows), ...notes.map((note) => el("p", { class: "quiet" }, note)), el("p", { class: "quiet" }, LEFT_OUT));
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        out.replaceChildren(el("p", {}, `${error.sentence} ${error.remedy ?? ""}`));
      }
      out.classList.remove("unasked");
    }
    return [id, title, el("section", { class: "card", "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), el("p", {}, about), el("div", { class: "tools" }, tools(go)), out)];
  }
  const lower = panel("differences", "Which is lower?", "Errors of crystals that are alike cancel, so that a difference is known better than either energy.", differences, { of: "polymorphs" },
    (go) => el("button", { type: "button", onclick: () => go() }, "Compare crystals of one composition"));
  const input = el("input", { type: "file", id: "phases", multiple: true });
  const above = panel("hull", "How far from the hull?", "Distances from the convex hull of competing phases; without any, the crystals compete with each other.", hull, {},
    (go) => [el("label", { for: "phases" }, "Competing phases: entries of the Materials Project or other files "), input,
      el("button", { type: "button", onclick: () => go([...input.files]) }, "Compute")]);
  return several ? [lower, above] : [above];
}
