// The page: structures in, answers out. State is what was asked last.

import { ask, get, keyOf, Problem, send, sendJson, setKey } from "./asking.js";
import { count, el, keep, percent } from "./dom.js";
import { asJson, frames } from "./frames.js";
import { decisions } from "./decide.js";
import { answerCard, meaningCard, noveltyCard, whyCard } from "./one.js";
import { table } from "./table.js";
import { viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
let heads = [];
let flagNames = {};
let asked = null; // files, rows, frames and turn of the last question

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

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function settle() {
  for (let waits = 0; ; waits++) {
    try {
      [heads, flagNames] = await Promise.all([get("/v1/heads"), get("/v1/flags")]);
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
  setLevels();
  const head = heads[0];
  $("about").textContent = `Model ${head.model} (${head.model_digest.slice(0, 12)}). The bounds are of the ${head.quantity}. ${head.note}`;
  say("Ready.");
}

function setLevels() {
  const head = heads.find((one) => one.name === $("head").value) ?? heads[0];
  const before = Number($("level").value || 0.95);
  $("level").replaceChildren(...head.levels.map((level) => el("option", { value: level, selected: level === before }, percent(level))));
}

// ---- asking ---------------------------------------------------------------------------------------------------------

const parameters = () => ({ head: $("head").value, level: $("level").value });
const ready = settle();
ready.catch(tell);

async function score(files) {
  if (!files.length) return;
  const turn = {};
  asked = turn;
  $("problem").hidden = true;
  $("results").hidden = true;
  say(`Scoring ${files.length === 1 ? files[0].name : `${count(files.length)} files`} …`);
  try {
    await ready;
    let [rows, link] = [null, null];
    try {
      const answer = await send("/v1/score", files, parameters());
      link = answer.headers.get("x-result");
      rows = await answer.json();
    } catch (error) {
      if (!error.rows || error.rows.length < 2) throw error;
      rows = error.rows; // none could be scored: the table says why for each
      tell(error);
    }
    const good = rows.filter((row) => !row.reason);
    const text = good.length ? await (await send("/v1/score", files, { ...parameters(), format: "extxyz" })).text() : "";
    if (asked !== turn) return; // another question came in between
    const pictures = frames(text);
    good.forEach((row, i) => Object.defineProperty(row, "frame", { value: pictures[i] }));
    Object.assign(turn, { files, rows, link });
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
    const pictures = frames(await (await ask(`${link}?format=extxyz`)).text());
    if (asked !== turn) return;
    rows.filter((row) => !row.reason).forEach((row, i) => Object.defineProperty(row, "frame", { value: pictures[i] }));
    Object.assign(turn, { rows, link });
    show(turn);
    say("The result of an earlier question; the service keeps it for a while.");
  } catch (error) {
    if (asked === turn) tell(error);
  }
}

function show(turn) {
  const { rows } = turn;
  const detail = el("div", { class: "one", id: "detail" });
  const several = rows.length > 1;
  $("results").replaceChildren(...(several ? [table(rows, (row) => showOne(detail, row, true))] : []), downloads(turn), detail, ...(turn.files ? [decisions(turn.files, several, parameters)] : []));
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
    explanation = await (await sendJson("/v1/explain", asJson(row.frame), { head: row.head, level: row.level })).json();
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
  copy.querySelectorAll(".tools").forEach((tools) => tools.remove());
  copy.querySelectorAll("button").forEach((button) => button.replaceWith(...button.childNodes));
  const body = el("main", {}, el("h1", {}, "mace-bounds"), el("p", { class: "id" }, `${$("about").textContent} ${new Date().toISOString().slice(0, 10)}`), copy);
  const head = `<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>mace-bounds: results</title><style>${style}</style>`;
  return new Blob([`<!doctype html>\n<html lang="en"><head>${head}</head><body>${body.outerHTML}</body></html>\n`], { type: "text/html" });
}

function downloads({ files, rows, link }) {
  const stem = rows.length === 1 ? rows[0].id.replace(/[^\w.-]+/g, "_") : "bounds";
  const kinds = [["JSON", "json", "json"], ["CSV", "csv", "csv"], ["CIF", "cif", "cif"], ["extended XYZ", "extxyz", "extxyz"], ["Parquet", "parquet", "parquet"]];
  const buttons = kinds.map(([title, format, suffix]) => {
    const fetched = async () => {
      try {
        const answer = files ? send("/v1/score", files, { ...parameters(), format }) : ask(`${link}?format=${format}`);
        keep(await (await answer).blob(), `${stem}.${suffix}`);
      } catch (error) {
        tell(error);
      }
    };
    return el("button", { type: "button", "data-format": format, onclick: fetched }, title);
  });
  buttons.push(el("button", { type: "button", onclick: async () => keep(await asPage(), `${stem}.html`) }, "this page"));
  return el("div", { class: "tools", role: "group", "aria-label": "Downloads" }, el("span", { class: "quiet" }, "Download:"), ...buttons);
}

// ---- ways in --------------------------------------------------------------------------------------------------------

$("files").addEventListener("change", (event) => { score([...event.target.files]); event.target.value = ""; });
$("score-text").addEventListener("click", () => score($("text").value.trim() ? [new File([$("text").value], "pasted")] : []));
$("head").addEventListener("change", () => { setLevels(); if (asked?.files) score(asked.files); });
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
if (/^#[0-9a-f]{40}$/.test(location.hash)) shown(location.hash.slice(1));
