// Novelty as colours: of atoms, and as a bar with a mark.

import { drawn, svg } from "./dom.js";

/** From blue (as in the data) over yellow (at the threshold, 1) to red (twice the threshold). */
const STOPS = [[0, [44, 98, 186]], [0.5, [110, 178, 205]], [1, [247, 212, 80]], [1.5, [226, 118, 49]], [2, [176, 24, 43]]];
export function noveltyColour(value) {
  const at = Math.min(Math.max(value, 0), 2);
  const i = Math.max(STOPS.findIndex(([stop]) => stop >= at), 1);
  const [[low, a], [high, b]] = [STOPS[i - 1], STOPS[i]];
  const mixed = a.map((x, d) => Math.round(x + ((at - low) / (high - low)) * (b[d] - x)));
  return `rgb(${mixed.join(", ")})`;
}

const [STEPS, LEFT, TOP] = [60, 8, 12];

/** The colours from 0 to 2 with the threshold at 1, and where a value lies. */
export const noveltyBar = (label, value = null) => drawn((width) => {
  const x = (novelty) => LEFT + (Math.min(Math.max(novelty, 0), 2) / 2) * (width - 2 * LEFT);
  const step = (width - 2 * LEFT) / STEPS;
  const picture = svg("svg", { class: "axis", viewBox: `0 0 ${width} 44`, role: "img", "aria-label": label });
  for (let i = 0; i < STEPS; i++)
    picture.append(svg("rect", { x: LEFT + i * step, y: TOP, width: step + 0.5, height: 10, fill: noveltyColour((2 * (i + 0.5)) / STEPS) }));
  for (const [at, words, anchor] of [[0, "0", "start"], [1, "1, threshold", "middle"], [2, "2 or more", "end"]])
    picture.append(
      svg("line", { class: "rule", x1: x(at), x2: x(at), y1: TOP, y2: TOP + 14 }),
      svg("text", { class: "small", x: x(at), y: TOP + 28, "text-anchor": anchor }, words),
    );
  if (value !== null) picture.append(svg("path", { class: "mark", d: `M ${x(value)} ${TOP + 1} l -7 -11 h 14 z` }));
  return picture;
});
