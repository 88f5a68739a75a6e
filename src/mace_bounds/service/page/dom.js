// Elements and numbers. Text from files only ever becomes text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

export const el = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

/** A picture that is drawn anew for every width that it gets, so that its text keeps its size. */
export function drawn(draw) {
  const box = el("div", { class: "drawn" });
  let last = 0;
  new ResizeObserver(() => {
    const width = Math.round(box.clientWidth);
    if (width && width !== last) box.replaceChildren(draw((last = width)));
  }).observe(box);
  box.append(draw(640)); // until it is laid out
  return box;
}

const missing = "–";
export const fixed = (x, digits) => (x === null || x === undefined ? missing : x.toFixed(digits).replace("-", "−"));
export const signed = (x, digits = 0) => {
  if (x === null || x === undefined) return missing;
  const text = Math.abs(x).toFixed(digits);
  return (Number(text) === 0 ? "" : x > 0 ? "+" : "−") + text;
};
export const percent = (level) => `${Number((100 * level).toPrecision(6))} %`;
export const count = (n) => n.toLocaleString("en");

/** A formula with its numbers as subscripts. */
export function formula(text) {
  const parts = String(text).split(/(\d+(?:\.\d+)?)/);
  return el("span", {}, ...parts.map((part, i) => (i % 2 ? el("sub", {}, part) : part)));
}

/** Give a file to the browser to be kept. */
export function keep(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** A table of crystals in a frame that scrolls. On a narrow screen each row is a card, and every cell stands under its
 * `data-title`; then the roles say what the elements no longer do. */
export function crystalTable(name, caption, heads, body) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name },
    el("table", { class: "crystals", role: "table" }, el("caption", {}, caption),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)), body));
}

/** Such a table of rows by their columns: title, content of a row, and whether it is a number. */
export function tableOf(caption, rows, columns, name = caption) {
  const heads = columns.map(([title, , number]) => el("th", { role: "columnheader", scope: "col", class: number ? "number" : null }, title));
  const cells = (row) => columns.map(([title, show, number]) => el("td", { role: "cell", class: number ? "number" : "text", "data-title": title }, show(row)));
  return crystalTable(name, caption, heads, el("tbody", { role: "rowgroup" }, rows.map((row) => el("tr", { role: "row" }, cells(row)))));
}
