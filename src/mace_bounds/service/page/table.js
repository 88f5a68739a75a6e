// Several crystals: a table that sorts and filters, and opens one of them.

import { count, crystalTable, el, fixed, formula, signed } from "./dom.js";

const COLUMNS = [
  { name: "id", title: "id", text: true },
  { name: "formula", title: "formula", show: (row) => (row.formula ? formula(row.formula) : "–") },
  { name: "n_atoms", title: "atoms", number: true, show: (row) => (row.n_atoms ?? "–").toString() },
  { name: "energy_model_ev", title: "E(model), eV", number: true, show: (row) => fixed(row.energy_model_ev, 3) },
  { name: "lower_mev_per_atom", title: "lower, meV/atom", number: true, show: (row) => signed(row.lower_mev_per_atom) },
  { name: "upper_mev_per_atom", title: "upper, meV/atom", number: true, show: (row) => signed(row.upper_mev_per_atom) },
  { name: "width", title: "width", number: true, of: (row) => (row.reason ? null : row.upper_mev_per_atom - row.lower_mev_per_atom), show: (row) => (row.reason ? "–" : fixed(row.upper_mev_per_atom - row.lower_mev_per_atom, 0)) },
  { name: "novelty", title: "novelty", number: true, show: (row) => fixed(row.novelty, 2) },
  { name: "flags", title: "flags, or why not", text: true, show: (row) => row.reason ?? (row.flags ?? "").replaceAll(";", ", ").replaceAll("_", " ") },
];

export function table(rows, open) {
  let sorted = { name: null, down: false };
  let wanted = "";
  const body = el("tbody", { role: "rowgroup" });
  const said = el("p", { class: "quiet", role: "status" });
  const heads = COLUMNS.map((column) => {
    const button = el("button", { type: "button", onclick: () => sortBy(column) }, column.title);
    return el("th", { role: "columnheader", scope: "col", class: column.number ? "number" : null, "aria-sort": "none" }, button);
  });
  const value = (column, row) => (column.of ? column.of(row) : row[column.name]);

  function sortBy(column) {
    sorted = { name: column.name, down: sorted.name === column.name && !sorted.down };
    heads.forEach((head, i) => {
      const here = COLUMNS[i] === column;
      head.setAttribute("aria-sort", here ? (sorted.down ? "descending" : "ascending") : "none");
      head.firstChild.textContent = COLUMNS[i].title + (here ? (sorted.down ? " ▾" : " ▴") : "");
    });
    fill();
  }

  function compared(column, a, b) {
    const [x, y] = [value(column, a), value(column, b)];
    if (x === null || y === null) return (x === null) - (y === null); // what is empty comes last, either way
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return sorted.down ? -order : order;
  }

  function fill() {
    const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = rows.filter((row) => {
      const text = `${row.id} ${row.formula ?? ""} ${row.flags ?? ""} ${(row.flags ?? "").replaceAll("_", " ")} ${row.reason ?? ""} ${row.seen_in ?? ""}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const column = COLUMNS.find((one) => one.name === sorted.name);
    if (column) shown.sort((a, b) => compared(column, a, b));
    body.replaceChildren(
      ...shown.map((row) => {
        const line = el("tr", { role: "row", class: row.reason ? "refused" : "choose" });
        COLUMNS.forEach((one, i) => {
          const content = one.show ? one.show(row) : row[one.name];
          const kind = one.number ? "number" : one.text ? "text" : null;
          const cell = i === 0 && !row.reason ? el("button", { type: "button", onclick: () => choose(line, row) }, content) : content;
          line.append(el("td", { role: "cell", class: kind, "data-title": one.title }, cell));
        });
        if (!row.reason) line.addEventListener("click", (event) => event.target.closest("button") || choose(line, row));
        return line;
      }),
    );
    said.textContent = `${count(shown.length)} of ${count(rows.length)} shown`;
  }

  function choose(line, row) {
    body.querySelectorAll("[aria-selected]").forEach((other) => other.removeAttribute("aria-selected"));
    line.setAttribute("aria-selected", "true");
    open(row);
  }

  const search = el("input", { type: "search", id: "filter", oninput: (event) => { wanted = event.target.value; fill(); } });
  fill();
  return el(
    "section",
    { "aria-label": "All crystals" },
    el("div", { class: "tools" }, el("label", { for: "filter" }, "Filter "), search, said),
    crystalTable("Table of crystals", "Choose a row to see it alone. Bounds of E(DFT) − E(model).", heads, body),
  );
}
