// A structure: with 3Dmol.js where the browser draws in three dimensions, else as a picture that can be turned too.

import { el, svg } from "./dom.js";
import { noveltyBar, noveltyColour } from "./novelty.js";
import { bonds, colour, edges, radius, supercell } from "./frames.js";

let loading = null;
const library = () => {
  loading ??= new Promise((done, failed) => {
    document.head.append(el("script", { src: "/page/3Dmol-min.js", onload: () => done(globalThis.$3Dmol), onerror: failed }));
  });
  return loading;
};

function hasWebGL() {
  try {
    return Boolean(document.createElement("canvas").getContext("webgl2") || document.createElement("canvas").getContext("webgl"));
  } catch {
    return false;
  }
}

/** The colours of novelty, and which atom is the newest. */
function scale(frame, novelty) {
  const [site, most] = [...novelty].reduce((best, one) => (one[1] > best[1] ? one : best));
  return [
    el("li", { class: "wide" }, noveltyBar("Colours of novelty: blue as in the data, yellow at the threshold, red at twice it")),
    el("li", {}, `Newest surroundings: ${frame.symbols[site]}, atom ${site + 1}, ${most.toFixed(2)} of the threshold`),
  ];
}

export function viewer(frame, explanation) {
  let [times, byNovelty, spinning] = [frame.symbols.length > 3 ? 1 : 2, false, false];
  const novelty = new Map((explanation?.atoms ?? []).map((atom) => [atom.site, atom.novelty]));
  const colourOf = (atom) =>
    byNovelty ? noveltyColour(novelty.get(atom.site) ?? 0) : colour(atom.symbol);
  const box = el("div", { class: "viewer", role: "img", "aria-label": `Structure of ${frame.symbols.length} atoms` });
  const legend = el("ul", { class: "legend" });
  const dot = (fill) => svg("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" }, svg("circle", { cx: 7, cy: 7, r: 6, fill }));
  let draw = () => {};
  let spin = () => {};

  function refresh() {
    legend.replaceChildren(
      ...(byNovelty
        ? scale(frame, novelty)
        : [...new Set(frame.symbols)].map((symbol) => el("li", {}, dot(colour(symbol)), symbol))),
    );
    draw(supercell(frame, times), colourOf, times);
  }

  const toggle = (words, act) => {
    const button = el("button", { type: "button", "aria-pressed": "false" }, words);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      act(on);
    });
    return button;
  };
  const cells = el("select", { "aria-label": "Cells shown", onchange: (event) => { times = Number(event.target.value); refresh(); } },
    [1, 2, 3].map((n) => el("option", { value: n, selected: n === times }, `${n} × ${n} × ${n}`)));
  const tools = el("div", { class: "tools" }, cells,
    toggle("Spin", (on) => { spinning = on; spin(on); }),
    novelty.size ? toggle("Colour by novelty", (on) => { byNovelty = on; refresh(); }) : "");

  const flat = () => { ({ draw, spin, picture: box.picture } = picture(box, frame)); refresh(); spin(spinning); };
  if (hasWebGL()) {
    library().then((library3d) => {
      try {
        ({ draw, spin, picture: box.picture } = solid(library3d, box, frame));
        refresh();
        spin(spinning);
      } catch {
        box.replaceChildren();
        flat();
      }
    }, flat);
  } else requestAnimationFrame(flat);
  return el("div", { class: "view" }, box, legend, tools);
}

function solid(library3d, box, frame) {
  const view = library3d.createViewer(box, { antialias: true });
  if (!view) throw new Error("no viewer");
  view.setBackgroundColor("black", 0); // no colour of its own: the colour of the page shows through
  let first = true;
  return {
    draw(atoms, colourOf) {
      view.removeAllModels();
      view.removeAllShapes();
      for (const atom of atoms) {
        const [x, y, z] = atom.place;
        view.addSphere({ center: { x, y, z }, radius: radius(atom.symbol), color: hex(colourOf(atom)), quality: 3 });
      }
      const point = ([x, y, z]) => ({ x, y, z });
      for (const [a, b] of bonds(atoms)) {
        const middle = a.place.map((x, d) => (x + b.place[d]) / 2);
        for (const atom of [a, b])
          view.addCylinder({ start: point(atom.place), end: point(middle), radius: 0.09, color: hex(colourOf(atom)) });
      }
      for (const [a, b] of edges(frame.cell)) // one cell, however many are shown
        view.addCylinder({ start: point(a), end: point(b), radius: 0.03, color: "#7a869a" });
      if (first) {
        view.rotate(25, "y");
        view.rotate(20, "x");
        first = false;
      }
      view.zoomTo();
      view.render();
    },
    spin: (on) => view.spin(on ? "y" : false),
    picture: () => view.pngURI(),
  };
}

/** 3Dmol knows no hsl(): as the canvas writes it. */
function hex(text) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.fillStyle = text;
  return pen.fillStyle;
}

function picture(box, frame) {
  const canvas = el("canvas");
  box.replaceChildren(canvas);
  let [turn, tilt, timer, held] = [0.5, 0.35, null, null];
  let last = [];
  function paint() {
    const [atoms, colourOf, times] = last;
    const scale = window.devicePixelRatio || 1;
    canvas.width = box.clientWidth * scale;
    canvas.height = box.clientHeight * scale;
    const pen = canvas.getContext("2d");
    const lines = edges(frame.cell);
    const points = [...atoms.map((atom) => atom.place), ...lines.flat()];
    const middle = [0, 1, 2].map((d) => points.reduce((sum, point) => sum + point[d], 0) / points.length);
    const [ct, st, cl, sl] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
    const turned = (point) => {
      const [x, y, z] = point.map((value, d) => value - middle[d]);
      const [u, w] = [ct * x + st * y, -st * x + ct * y];
      return [u, cl * z - sl * w, sl * z + cl * w];
    };
    const reach = Math.max(...points.map((point) => Math.hypot(...turned(point)))) + 1;
    const size = Math.min(canvas.width, canvas.height) / (2 * reach);
    const at = ([u, v]) => [canvas.width / 2 + size * u, canvas.height / 2 - size * v];
    pen.strokeStyle = "#7a869a";
    pen.lineWidth = 1.5 * scale;
    for (const [a, b] of lines) {
      pen.beginPath();
      pen.moveTo(...at(turned(a)));
      pen.lineTo(...at(turned(b)));
      pen.stroke();
    }
    for (const [a, b] of bonds(atoms)) {
      pen.beginPath();
      pen.moveTo(...at(turned(a.place)));
      pen.lineTo(...at(turned(b.place)));
      pen.stroke();
    }
    const far = atoms.map((atom) => [turned(atom.place), atom]).sort((one, other) => other[0][2] - one[0][2]);
    for (const [place, atom] of far) {
      pen.beginPath();
      pen.arc(...at(place), size * radius(atom.symbol), 0, 2 * Math.PI);
      pen.fillStyle = colourOf(atom);
      pen.fill();
      pen.strokeStyle = "#00000066";
      pen.stroke();
    }
    box.dataset.drawn = `${times}:${atoms.length}`;
  }
  canvas.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    turn += (event.clientX - held[0]) / 120;
    tilt += (event.clientY - held[1]) / 120;
    held = [event.clientX, event.clientY];
    paint();
  });
  canvas.addEventListener("pointerup", () => { held = null; });
  return {
    picture: () => canvas.toDataURL(),
    draw: (...what) => { last = what; paint(); },
    spin(on) {
      clearInterval(timer);
      timer = on ? setInterval(() => (box.isConnected ? ((turn += 0.02), paint()) : clearInterval(timer)), 40) : null;
    },
  };
}
