// Structures as the service writes them (extended XYZ), for pictures and for the question about one of them.

const SYMBOLS = (
  "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc " +
  "Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi " +
  "Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
).split(" ");
const COLOURS = {
  H: "#e8e8e8", Li: "#b57edc", Be: "#a5c800", B: "#f2a99b", C: "#6b6b6b", N: "#3d5fe0", O: "#e02b20", F: "#7ac943",
  Na: "#9a5bd6", Mg: "#5fae2e", Al: "#b7a6a6", Si: "#d9b38c", P: "#f08a1d", S: "#e3c21b", Cl: "#2fb344", K: "#7d3fc4",
  Ca: "#3f9e3f", Ti: "#9aa3ad", V: "#8c8fa8", Cr: "#7d8fc2", Mn: "#8f74bd", Fe: "#d0652a", Co: "#d97a92", Ni: "#4fae55",
  Cu: "#c2783c", Zn: "#7a80ad", Ga: "#bd8c8c", Ge: "#648c8c", As: "#b07ad6", Se: "#e59a1c", Br: "#a03030", Rb: "#6a2ca8",
  Sr: "#35b535", Zr: "#85c9c9", Ag: "#b5b5b5", Cs: "#57178f", Ba: "#2f9e2f", La: "#6ab5e0", I: "#8a2be2", Au: "#e0b020",
  Pb: "#575961", Bi: "#9e4fb5", U: "#2f8fe0",
};
const ROWS = [2, 10, 18, 36, 54, 86, 118];
const RADII = [0.32, 0.75, 1.1, 1.3, 1.45, 1.6, 1.7]; // Å, about covalent, by row of the periodic table

export const number = (symbol) => SYMBOLS.indexOf(symbol) + 1;
export const colour = (symbol) => COLOURS[symbol] ?? `hsl(${(number(symbol) * 47) % 360} 45% 55%)`;
const SMALLER = 0.42; // than the radii, so that one sees through
export const radius = (symbol) => SMALLER * RADII[Math.max(ROWS.findIndex((last) => number(symbol) <= last), 0)];

/** Frames of a file: id, cell (rows, Å), symbols, positions (Å). */
export function frames(text) {
  const lines = text.split("\n");
  const found = [];
  for (let at = 0; at < lines.length && lines[at].trim(); ) {
    const n = Number(lines[at]);
    const comment = lines[at + 1];
    const numbers = /Lattice="([^"]+)"/.exec(comment)[1].trim().split(/\s+/).map(Number);
    const cell = [numbers.slice(0, 3), numbers.slice(3, 6), numbers.slice(6, 9)];
    const symbols = [];
    const positions = [];
    for (const line of lines.slice(at + 2, at + 2 + n)) {
      const [symbol, ...places] = line.trim().split(/\s+/);
      symbols.push(symbol);
      positions.push(places.slice(0, 3).map(Number));
    }
    found.push({ cell, symbols, positions });
    at += n + 2;
  }
  return found;
}

/** A frame as ase writes it in JSON. */
export const asJson = (frame) => ({
  numbers: frame.symbols.map(number),
  positions: frame.positions,
  cell: frame.cell,
  pbc: [true, true, true],
});

const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const EDGE = 0.02; // of a cell vector: atoms so near to a face are drawn on the opposite one too

/** Atoms of so many cells along each vector, those on faces on both sides; each knows its site. */
export function supercell(frame, times) {
  const [a, b, c] = frame.cell;
  const volume = dot(a, cross(b, c));
  const inverse = [cross(b, c), cross(c, a), cross(a, b)].map((row) => row.map((x) => x / volume));
  const atoms = [];
  frame.positions.forEach((place, site) => {
    const inside = inverse.map((row) => {
      const x = dot(row, place) - Math.floor(dot(row, place));
      return x > 1 - EDGE ? x - 1 : x;
    });
    const [I, J, K] = inside.map((x) => Array.from({ length: times + (x < EDGE ? 1 : 0) }, (_, n) => x + n));
    for (const i of I)
      for (const j of J)
        for (const k of K)
          atoms.push({ symbol: frame.symbols[site], site, place: [0, 1, 2].map((d) => i * a[d] + j * b[d] + k * c[d]) });
  });
  return atoms;
}

const JOINED = new Set("B C N O F Si P S Cl Ge As Se Br Sb Te I".split(" ")); // to their own kind too, in compounds
const [MOST_ATOMS, MOST_BONDS] = [600, 1500];

/** Pairs of neighbouring atoms, for the eye: those nearer than radii that touch; none where there would be too many. */
export function bonds(atoms) {
  if (atoms.length > MOST_ATOMS) return [];
  const alone = new Set(atoms.map((atom) => atom.symbol)).size === 1;
  const pairs = [];
  for (let i = 0; i < atoms.length; i++)
    for (let j = 0; j < i; j++) {
      const [one, other] = [atoms[i], atoms[j]];
      const same = one.symbol === other.symbol;
      if (same && !alone && !JOINED.has(one.symbol)) continue;
      const reach = ((same ? 1.1 : 1.16) * (radius(one.symbol) + radius(other.symbol))) / SMALLER;
      const gap = one.place.map((x, d) => x - other.place[d]);
      if (dot(gap, gap) < reach * reach) pairs.push([one, other]);
    }
  return pairs.length > MOST_BONDS ? [] : pairs;
}

/** The twelve edges of a cell as pairs of corners. */
export function edges(cell, times = 1) {
  const at = (i, j, k) => [0, 1, 2].map((d) => times * (i * cell[0][d] + j * cell[1][d] + k * cell[2][d]));
  const lines = [];
  for (const a of [0, 1])
    for (const b of [0, 1])
      lines.push([at(0, a, b), at(1, a, b)], [at(a, 0, b), at(a, 1, b)], [at(a, b, 0), at(a, b, 1)]);
  return lines;
}
