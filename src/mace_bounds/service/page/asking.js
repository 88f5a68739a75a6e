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

const PATIENCE_MS = 60_000; // for a busy service, asked again as it says itself

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
    const wait = 1000 * Number(answer.headers.get("retry-after") ?? Infinity);
    if (answer.status !== 503 || Date.now() + wait > ends) break;
    await new Promise((done) => setTimeout(done, wait));
  }
  let said = null;
  try {
    said = await answer.json();
  } catch { /* an answer of something in between */ }
  const error = said?.error ?? { sentence: `The service answered ${answer.status}.`, remedy: "Try again in a moment." };
  throw new Problem(answer.status, error, said?.rows ?? null);
}

export const get = async (path) => (await ask(path)).json();

/** Send files with parameters; the answer as it is. */
export function send(path, files, parameters) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  return ask(`${path}?${new URLSearchParams(parameters)}`, { method: "POST", body: form });
}

export const sendJson = (path, value, parameters) =>
  ask(`${path}?${new URLSearchParams(parameters)}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(value),
  });
