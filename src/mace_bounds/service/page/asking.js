// Requests to the service: an answer, or the sentence and remedy of a problem.

export class Problem extends Error {
  constructor(status, error, rows) {
    super(error.sentence);
    Object.assign(this, { status, sentence: error.sentence, remedy: error.remedy, id: error.request_id, rows });
  }
}

const KEY = "mace-bounds-key";
export const keyOf = () => sessionStorage.getItem(KEY) || "";
export const setKey = (key) => sessionStorage.setItem(KEY, key);

const PATIENCE_MS = 180_000; // for a busy service, asked again as it says itself
const BUSY = [429, 503];
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** What is told while a busy service is waited for. */
export const patience = { tell: () => {} };

export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (keyOf()) headers.set("authorization", `Bearer ${keyOf()}`);
  const ends = Date.now() + (options.method === "POST" ? PATIENCE_MS : 0);
  let answer;
  for (;;) {
    try {
      answer = await fetch(path, { ...options, headers });
    } catch {
      throw new Problem(0, { sentence: "The service does not answer.", remedy: "Is it still running? Try again in a moment." });
    }
    if (answer.ok) return answer;
    // later than it says by a random share, so that pages that were refused together do not come together
    const wait = 1000 * Number(answer.headers.get("retry-after") ?? Infinity) * (1 + Math.random() / 2);
    if (!BUSY.includes(answer.status) || Date.now() + wait > ends) break;
    patience.tell(Math.ceil(wait / 1000));
    await sleep(wait);
  }
  let said = null;
  try {
    said = await answer.json();
  } catch { /* an answer of something in between */ }
  const error = said?.error ?? { sentence: `The service answered ${answer.status}.`, remedy: "Try again in a moment." };
  throw new Problem(answer.status, error, said?.rows ?? null);
}

export const get = async (path) => (await ask(path)).json();

/** Send files with parameters, and more files by their fields; the answer as it is. */
export function send(path, files, parameters, more = {}) {
  const form = new FormData();
  for (const [field, some] of Object.entries({ files, ...more })) for (const file of some) form.append(field, file, file.name);
  return ask(`${path}?${new URLSearchParams(parameters)}`, { method: "POST", body: form });
}

export const sendJson = (path, value, parameters) =>
  ask(`${path}?${new URLSearchParams(parameters)}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(value),
  });
