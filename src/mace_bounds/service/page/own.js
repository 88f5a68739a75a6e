// Energies of a model that does not run here: a table beside the crystals, for heads that bound them.

import { el } from "./dom.js";

const $ = (id) => document.getElementById(id);
const START = 65536; // bytes in which names of columns are looked for
const IDS = ["id", "material_id", "mat_id", "entry_id"]; // that the service finds itself

/** Names of the columns of a table, as far as its first lines tell. */
function columnsOf(text) {
  const line = text.split(/\r?\n/, 1)[0];
  if (/^\s*[[{]/.test(line)) return [...new Set([...text.matchAll(/"([^"\\]{1,80})"\s*:/g)].map((found) => found[1]))].slice(0, 40);
  const between = [",", "\t", ";"].sort((a, b) => line.split(b).length - line.split(a).length)[0];
  return line.split(between).map((name) => name.trim().replace(/^"(.*)"$/, "$1")).filter(Boolean);
}

/** Offer the columns of the table that was chosen. */
async function offered() {
  const [file] = $("predictions").files;
  let names = [];
  try {
    if (file && /\.(csv|tsv|txt|json|jsonl)$/i.test(file.name)) names = columnsOf(await file.slice(0, START).text());
  } catch { /* what cannot be read here the service may read: the names are typed */ }
  const options = () => names.map((name) => el("option", { value: name }));
  $("columns").replaceChildren(...options());
  const energies = names.filter((name) => /energ|^e(_|$)/i.test(name) && !/per_?atom/i.test(name));
  if (names.length && !names.includes($("energy-column").value)) $("energy-column").value = energies[0] ?? "";
  if (names.length && !names.includes($("id-column").value)) $("id-column").value = "";
}

/** Show the fields where the head takes energies; whoever listens is told of a change. */
export function watch(changed) {
  $("predictions").addEventListener("change", async () => { await offered(); changed(); });
  for (const id of ["energy-column", "id-column"]) $(id).addEventListener("change", changed);
}

export function fit(head) {
  $("own").hidden = !head?.takes_energies;
  if (!head?.takes_energies) return;
  $("own-said").textContent = head.needs_energies
    ? `This head bounds energies of ${head.model}, which does not run here: choose a table of its total energies (CSV, JSON, Parquet), with the ids of the crystals, that is their file names.`
    : `This head bounds energies of ${head.model}. A table of total energies of your own calculations may come with the crystals.`;
}

/** The table and its parameters, as they go with the crystals; null where there is none. */
export function table() {
  const [file] = $("own").hidden ? [] : $("predictions").files;
  if (!file) return null;
  const id = $("id-column").value.trim();
  return { file, parameters: { energy_column: $("energy-column").value.trim(), ...(id && !IDS.includes(id) ? { id_column: id } : {}) } };
}
