// Requests to the server: JSON or multipart, errors as exceptions, event streams.
export const $ = (id) => document.getElementById(id);
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

const KEY = "imagend.key";
export const key = { get: () => localStorage.getItem(KEY), set: (text) => localStorage.setItem(KEY, text) };

function headers(more) {
  return key.get() ? { Authorization: "Bearer " + key.get(), ...more } : { ...more };
}

// body: a JSON value, or a FormData.
export async function ask(method, path, body, more) {
  const form = body instanceof FormData;
  const answer = await fetch(path, {
    method,
    headers: headers(body && !form ? { "Content-Type": "application/json", ...more } : more),
    body: form ? body : body && JSON.stringify(body),
  });
  if (answer.ok) return answer;
  let said = { message: "the server responded with status " + answer.status };
  try { said = (await answer.json()).error; } catch { /* not our JSON: keep the status */ }
  const error = new Error(said.message);
  error.param = said.param;
  error.status = answer.status;
  error.retry = Number(answer.headers.get("Retry-After")) || 0;
  throw error;
}

export const imagePath = (id, index) => "v1/jobs/" + id + "/images/" + index;

// Server-sent events by fetch, because EventSource cannot send a key.
export async function* events(path, last) {
  const answer = await ask("GET", path, null, last ? { "Last-Event-ID": last } : {});
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const event = {};
      for (const line of text.slice(0, end).split("\n")) {
        const colon = line.indexOf(": ");
        if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 2);
      }
      if (event.event) yield { name: event.event, id: event.id, data: JSON.parse(event.data) };
    }
  }
}
