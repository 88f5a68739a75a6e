// The interval of one crystal on an axis, above the errors of the labelled crystals that the head knows.

import { count, drawn, signed, svg } from "./dom.js";

const HEIGHT = 210;
const LEFT = 14;
const BASE = 168;
const TOP = 62;

export function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough);
  const places = [];
  for (let x = Math.ceil(low / step) * step; x <= high + 1e-9; x += step) places.push(Math.round(x / step) * step);
  return places;
}

export const axis = (row, errors) => drawn((width) => picture(row, errors, width));

function picture(row, errors, WIDTH) {
  const { lower_mev_per_atom: lower, upper_mev_per_atom: upper, expected_error_mev_per_atom: best } = row;
  const edges = errors ? errors.edges_mev_per_atom : [];
  const reach = [lower, upper, 0, ...(edges.length ? [edges[0], edges[edges.length - 1]] : [])];
  if (row.error_mev_per_atom !== null) reach.push(row.error_mev_per_atom);
  const pad = 0.06 * (Math.max(...reach) - Math.min(...reach) || 1);
  const [low, high] = [Math.min(...reach) - pad, Math.max(...reach) + pad];
  const x = (value) => LEFT + ((value - low) / (high - low)) * (WIDTH - 2 * LEFT);
  const inside = (value) => Math.min(Math.max(x(value), 44), WIDTH - 44);
  const text = (value, y, words, more = {}) => svg("text", { x: inside(value), y, "text-anchor": "middle", ...more }, words);

  const said =
    `Bounds of the error from ${signed(lower)} to ${signed(upper)} meV per atom, best guess ${signed(best)}` +
    (errors ? `; the middle half of the head's ${count(errors.n)} labelled crystals is near ${signed(errors.median_mev_per_atom)}.` : ".");
  const drawing = svg("svg", { class: "axis", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said });
  if (errors) {
    const most = Math.max(...errors.counts);
    errors.counts.forEach((n, i) => {
      const height = (n / most) * (BASE - TOP - 12);
      const left = x(edges[i]);
      drawing.append(
        svg("rect", { class: "bar", x: left, y: BASE - height, width: Math.max(x(edges[i + 1]) - left - 0.6, 0.5), height }),
      );
    });
  }
  drawing.append(svg("line", { class: "rule", x1: LEFT, x2: WIDTH - LEFT, y1: BASE, y2: BASE }));
  for (const place of ticks(low, high, WIDTH / 100)) {
    drawing.append(svg("line", { class: "rule", x1: x(place), x2: x(place), y1: BASE, y2: BASE + 5 }));
    drawing.append(text(place, BASE + 19, signed(place), { class: "small" }));
  }
  drawing.append(
    svg("text", { x: WIDTH / 2, y: HEIGHT - 6, "text-anchor": "middle", class: "small" }, "E(DFT) − E(model), meV per atom"),
    svg("line", { class: "zero", x1: x(0), x2: x(0), y1: 30, y2: BASE }),
    text(0, 24, "the model's energy", { class: "small" }),
    svg("line", { class: "span", x1: x(lower), x2: x(upper), y1: 48, y2: 48 }),
    ...[lower, upper].map((end) => svg("line", { class: "cap", x1: x(end), x2: x(end), y1: 39, y2: 57 })),
    svg("circle", { class: "best", cx: x(best), cy: 48, r: 6 }),
  );
  const close = x(upper) - x(lower) < 90;
  drawing.append(
    text(lower, 34, signed(lower), close ? { "text-anchor": "end" } : {}),
    text(upper, 34, signed(upper), close ? { "text-anchor": "start" } : {}),
  );
  if (row.error_mev_per_atom !== null) {
    drawing.append(
      svg("line", { class: "true", x1: x(row.error_mev_per_atom), x2: x(row.error_mev_per_atom), y1: 38, y2: 58 }),
      text(row.error_mev_per_atom, 72, "label"),
    );
  }
  return drawing;
}
