// This browser's list of jobs, and their input images.
const LIST = "imagend.jobs", MAX_JOBS = 60;
const MAX_INPUTS = 20; // jobs whose input is kept: their files may be large

// Newest first: the id and the request as entered, because a job reports only resolved settings.
export function list() {
  try { return JSON.parse(localStorage.getItem(LIST)) || []; } catch { return []; }
}

function save(jobs) {
  for (const { id } of jobs.slice(MAX_INPUTS)) forgetInput(id);
  localStorage.setItem(LIST, JSON.stringify(jobs.slice(0, MAX_JOBS)));
}

export function remember(id, asked) { save([{ id, asked }, ...list()]); }

export function forget(id) {
  save(list().filter((other) => other.id !== id));
  forgetInput(id);
}

// ---- input images: files and strokes are too large for localStorage --------------------------

let opening;
const finished = (request) => new Promise((done, fail) => {
  request.onsuccess = () => done(request.result);
  request.onerror = () => fail(request.error);
});

function open() {
  const request = indexedDB.open("imagend", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("inputs");
  return finished(request);
}

// A private window may have no database; a reloaded page then has no input images.
async function inputs(mode, act) {
  try {
    opening = opening || open();
    return await finished(act((await opening).transaction("inputs", mode).objectStore("inputs")));
  } catch {
    return undefined;
  }
}

export const rememberInput = (id, input) => inputs("readwrite", (store) => store.put(input, id));
export const findInput = (id) => inputs("readonly", (store) => store.get(id));
const forgetInput = (id) => inputs("readwrite", (store) => store.delete(id));
