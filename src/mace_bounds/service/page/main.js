// The page: structures in, answers out. State is what was asked last.

import { ask, get, patience, Problem, send, sendJson, setKey } from "./asking.js";
import { count, el, keep, percent } from "./dom.js";
import { asJson, frames } from "./frames.js";
import { decisions } from "./decide.js";
import * as own from "./own.js";
import { answerCard, meaningCard, noveltyCard, whyCard } from "./one.js";
import { table } from "./table.js";
import { tabs } from "./tabs.js";
import { viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
let heads = [];
let flagNames = {};
let limits = {};
let asked = null; // the last question: files, the table of energies with them, rows, and the link of the answer

// ---- light and dark -------------------------------------------------------------------------------------------------

const theme = $("theme");
const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  theme.setAttribute("aria-pressed", String(dark()));
}
theme.addEventListener("click", () => {
  setTheme(dark() ? "light" : "dark");
  localStorage.setItem("theme", document.documentElement.dataset.theme);
});
setTheme(localStorage.getItem("theme"));

// ---- what is said ---------------------------------------------------------------------------------------------------

const say = (text) => { $("status").textContent = text; };
const upper = (text) => (text ? text[0].toUpperCase() + text.slice(1) : "");
function tell(error) {
  if (!(error instanceof Problem)) throw error;
  $("problem").hidden = false;
  $("problem").replaceChildren(el("p", {}, el("strong", {}, upper(error.sentence)), " ", upper(error.remedy)));
  say("");
}

function withKey(error) {
  if (error.status !== 401) return Promise.reject(error);
  const dialog = $("key-dialog");
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => { setKey($("key").value.trim()); done(); }, { once: true }));
}

patience.tell = (seconds) => say(`The service is busy; it is asked again in ${seconds} s.`);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function settle() {
  for (let waits = 0; ; waits++) {
    try {
      [heads, flagNames, limits] = await Promise.all([get("/v1/heads"), get("/v1/flags"), get("/v1/limits")]);
      break;
    } catch (error) {
      if (error.status === 401) await withKey(error);
      else if ((error.status === 503 || error.status === 0) && waits < 600) {
        say(error.status === 0 ? "The service does not answer." : "The model is being loaded; files can be dropped already.");
        await sleep(1000);
      } else throw error;
    }
  }
  $("head").replaceChildren(...heads.map((head) => el("option", { value: head.name }, `${head.name} (${head.model})`)));
  setHead();
  const head = heads[0];
  $("about").textContent = `Model ${head.model} (${head.model_digest.slice(0, 12)}). The bounds are of the ${head.quantity}. ${head.note}`;
  say("Ready.");
}

const chosen = () => heads.find((one) => one.name === $("head").value) ?? heads[0];

function setHead() {
  const head = chosen();
  own.fit(head);
  const before = Number($("level").value || 0.95);
  $("level").replaceChildren(...head.levels.map((level) => el("option", { value: level, selected: level === before }, percent(level))));
}

// ---- asking ---------------------------------------------------------------------------------------------------------

const parameters = () => ({ head: $("head").value, level: $("level").value });
const ready = settle();
ready.catch(tell);

/** Rows of crystals in one of the formats, with the energies that belong to them. */
const scored = ({ files, energies }, more = {}) =>
  send("/v1/score", files, { ...parameters(), ...energies?.parameters, ...more }, energies ? { predictions: [energies.file] } : {});

/** The same answer in another format: by its link, which costs nothing, where there is one. */
const again = (turn, format) => (turn.link ? ask(`${turn.link}?format=${format}`) : scored(turn, { format }));

/** The table of energies; Problem where the head cannot do without. */
function ownEnergies() {
  const given = own.table();
  const [head, wanted] = [chosen(), "Choose it below the crystals, and drop them again."];
  if (!given && head.needs_energies) throw new Problem(0, { sentence: `The head ${head.name} bounds energies of ${head.model}, and there is no table of them.`, remedy: wanted });
  if (given && !given.parameters.energy_column) throw new Problem(0, { sentence: `The column of energies in ${given.file.name} is not named.`, remedy: wanted });
  return given;
}

async function score(files) {
  if (!files.length) return;
  const turn = { files };
  asked = turn;
  $("problem").hidden = true;
  $("results").hidden = true;
  say(`Scoring ${files.length === 1 ? files[0].name : `${count(files.length)} files`} …`);
  try {
    await ready;
    turn.energies = ownEnergies();
    let [rows, link] = [null, null];
    try {
      const answer = await scored(turn);
      link = answer.headers.get("x-result");
      rows = await answer.json();
    } catch (error) {
      if (!error.rows || error.rows.length < 2) throw error;
      rows = error.rows; // none could be scored: the table says why for each
      if (asked === turn) tell(error);
    }
    const good = rows.filter((row) => !row.reason);
    Object.assign(turn, { rows, link });
    const text = good.length ? await (await again(turn, "extxyz")).text() : "";
    if (asked !== turn) return; // another question came in between
    const pictures = frames(text);
    good.forEach((row, i) => Object.defineProperty(row, "frame", { value: pictures[i] }));
    history.replaceState(null, "", link ? `#${link.split("/").pop()}` : location.pathname);
    show(turn);
    if (good.length) say(`${count(good.length)} of ${count(rows.length)} scored.`);
  } catch (error) {
    if (asked === turn) tell(error);
  }
}

/** What an earlier question was answered, by the link that the address ends with. */
async function shown(name) {
  const turn = {};
  asked = turn;
  say("Looking for the result …");
  try {
    await ready;
    const link = `/v1/results/${encodeURIComponent(name)}`;
    const rows = await get(link);
    Object.assign(turn, { rows, link });
    const pictures = frames(await (await again(turn, "extxyz")).text());
    if (asked !== turn) return;
    rows.filter((row) => !row.reason).forEach((row, i) => Object.defineProperty(row, "frame", { value: pictures[i] }));
    show(turn);
    say(`The result of an earlier question; ${kept()}.`);
  } catch (error) {
    if (asked === turn) tell(error);
  }
}

function show(turn) {
  const { rows } = turn;
  const detail = el("div", { class: "one", id: "detail" });
  const several = rows.length > 1;
  const energies = [several ? table(rows, (row) => showOne(detail, row, true)) : "", downloads(turn), detail];
  const more = turn.files && !chosen().needs_energies ? decisions(turn.files, several, parameters) : [];
  $("results").replaceChildren(...tabs("Questions", [["energies", several ? "Energies" : "Energy", energies], ...more]));
  $("results").hidden = false;
  if (!several) showOne(detail, rows[0], false);
}

async function showOne(detail, row, move) {
  const head = heads.find((one) => one.name === row.head);
  const structure = el("section", { class: "card structure", "aria-labelledby": "structure-title" }, el("h3", { id: "structure-title" }, "Structure"));
  const why = el("div", { class: "wide" }, el("p", { class: "quiet" }, "Looking for what it is like …"));
  const answer = answerCard(row, head, flagNames);
  detail.replaceChildren(answer, structure, el("div", { class: "side" }, noveltyCard(row), meaningCard(row, head)), why);
  if (move) {
    answer.scrollIntoView({ block: "start" });
    answer.querySelector("h2").focus({ preventScroll: true });
  }
  let explanation = null;
  try {
    const crystal = asJson(row.frame);
    const question = head?.takes_energies ? { structures: [crystal], energies: [row.energy_model_ev] } : crystal;
    explanation = await (await sendJson("/v1/explain", question, { head: row.head, level: row.level })).json();
    why.replaceWith(whyCard(explanation));
  } catch (error) {
    why.replaceChildren(el("p", { class: "quiet" }, error.sentence ?? "It cannot be explained."));
  }
  structure.append(viewer(row.frame, explanation));
}

/** The results as a page that needs nothing else: its style inside, structures as pictures, nothing to press. */
async function asPage() {
  const style = await (await ask("/page/style.css")).text();
  const copy = $("results").cloneNode(true);
  const drawn = [...$("results").querySelectorAll(".viewer")].map((box) => box.picture?.());
  copy.querySelectorAll(".viewer").forEach((box, i) => box.replaceChildren(drawn[i] ? el("img", { src: drawn[i], alt: "Structure" }) : ""));
  copy.querySelectorAll("[role=tabpanel]").forEach((panel) => {
    if (panel.querySelector(".unasked")) panel.remove();
    else ["role", "hidden", "aria-labelledby"].forEach((name) => panel.removeAttribute(name));
  });
  copy.querySelectorAll(".tools, .tabs").forEach((part) => part.remove());
  copy.querySelectorAll("button").forEach((button) => button.replaceWith(...button.childNodes));
  const body = el("main", {}, el("h1", {}, "mace-bounds"), el("p", { class: "id" }, `${$("about").textContent} ${new Date().toISOString().slice(0, 10)}`), copy);
  const head = `<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>mace-bounds: results</title><style>${style}</style>`;
  return new Blob([`<!doctype html>\n<html lang="en"><head>${head}</head><body>${body.outerHTML}</body></html>\n`], { type: "text/html" });
}

const kept = () => (limits.keep_hours ? `the service keeps it for ${limits.keep_hours} ${limits.keep_hours === 1 ? "hour" : "hours"}` : "the service keeps none");

function downloads(turn) {
  const { rows, link } = turn;
  const stem = rows.length === 1 ? rows[0].id.replace(/[^\w.-]+/g, "_") : "bounds";
  const kinds = [["JSON", "json", "json"], ["CSV", "csv", "csv"], ["CIF", "cif", "cif"], ["extended XYZ", "extxyz", "extxyz"], ["Parquet", "parquet", "parquet"]];
  const buttons = kinds.map(([title, format, suffix]) => {
    const fetched = async () => {
      try {
        keep(await (await again(turn, format)).blob(), `${stem}.${suffix}`);
      } catch (error) {
        tell(error);
      }
    };
    return el("button", { type: "button", "data-format": format, onclick: fetched }, title);
  });
  buttons.push(el("button", { type: "button", onclick: async () => keep(await asPage(), `${stem}.html`) }, "this page"));
  return el("div", { class: "tools", role: "group", "aria-label": "Downloads" }, el("span", { class: "quiet" }, "Download:"), ...buttons,
    link ? el("span", { class: "quiet" }, el("a", { href: `#${link.split("/").pop()}` }, "Link to this result"), `; ${kept()}`) : "");
}

// ---- ways in --------------------------------------------------------------------------------------------------------

$("files").addEventListener("change", (event) => { score([...event.target.files]); event.target.value = ""; });
$("score-text").addEventListener("click", () => score($("text").value.trim() ? [new File([$("text").value], "pasted")] : []));
$("head").addEventListener("change", () => { setHead(); if (asked?.files) score(asked.files); });
own.watch(() => { if (asked?.files) score(asked.files); });
$("level").addEventListener("change", () => { if (asked?.files) score(asked.files); });
$("example").addEventListener("change", async (event) => {
  const name = event.target.value;
  if (!name) return;
  try {
    score([new File([await (await ask(`/v1/examples/${encodeURIComponent(name)}`)).blob()], `${name}.cif`)]);
  } catch (error) {
    tell(error);
  }
});
for (const kind of ["dragenter", "dragover"])
  document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  score([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  if (event.target.closest?.("textarea, input")) return;
  const files = [...event.clipboardData.files];
  const text = event.clipboardData.getData("text");
  score(files.length ? files : text.trim() ? [new File([text], "pasted")] : []);
});
get("/v1/examples").then((names) => $("example").append(...names.map((name) => el("option", { value: name }, name))), () => {});
function follow() {
  const name = location.hash.slice(1);
  if (/^[0-9a-f]{40}$/.test(name) && name !== asked?.link?.split("/").pop()) shown(name);
}
addEventListener("hashchange", follow);
follow();
