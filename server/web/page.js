// The page: sends jobs, follows their events, keeps this browser's list. No libraries.
"use strict";

const $ = (id) => document.getElementById(id);
const PREVIEWS = 10;
const LIST = "imagend.jobs", KEY = "imagend.key", MAX_JOBS = 60;

// ---- the server ----------------------------------------------------------------------------

function headers(more) {
  const key = localStorage.getItem(KEY);
  return key ? { Authorization: "Bearer " + key, ...more } : { ...more };
}

async function ask(method, path, body, more) {
  const answer = await fetch(path, {
    method,
    headers: headers(body ? { "Content-Type": "application/json", ...more } : more),
    body: body && JSON.stringify(body),
  });
  if (answer.ok) return answer;
  let text = "The server answered with status " + answer.status + ".";
  try { text = (await answer.json()).error.message; } catch { /* not ours: the status must do */ }
  const error = new Error(text);
  error.status = answer.status;
  error.retry = Number(answer.headers.get("Retry-After")) || 0;
  throw error;
}

function words(error) {
  if (error.status === 401) {
    $("key-field").hidden = false;
    return "This server wants an API key.";
  }
  if (error.status === 429) return "Too many pictures are waiting. Try again in " + error.retry + " s.";
  if (error.status === 503) return "The server is not ready: " + error.message;
  if (error.status) return error.message.charAt(0).toUpperCase() + error.message.slice(1) + ".";
  return "The server cannot be reached.";
}

// Server-sent events by fetch, because EventSource cannot send a key.
async function* events(path, last) {
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

// ---- this browser's list -------------------------------------------------------------------

function list() {
  try { return JSON.parse(localStorage.getItem(LIST)) || []; } catch { return []; }
}
function save(jobs) { localStorage.setItem(LIST, JSON.stringify(jobs.slice(0, MAX_JOBS))); }
function remember(id) { save([id, ...list().filter((other) => other !== id)]); }
function forget(id) { save(list().filter((other) => other !== id)); }

function say(text) { $("status").textContent = text; }

// ---- cards: one per picture -----------------------------------------------------------------

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const seconds = (s) => s < 90 ? Math.max(1, Math.round(s)) + " s" : Math.round(s / 60) + " min";

function makeCard(job, index) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  const part = (name) => card.querySelector(name);
  const request = job.request;
  card.dataset.job = job.id;
  part(".what").textContent = request.prompt;
  part("img").alt = request.prompt;
  part("progress").setAttribute("aria-label", "Progress of: " + request.prompt);
  part(".cancel").onclick = () => cancel(job.id);
  part(".remove").onclick = () => remove(job.id);
  part(".again").onclick = () => again(request);
  part("img").onclick = () => {
    if (card.classList.contains("working")) return;
    $("viewer").querySelector("img").src = part("img").src;
    $("viewer").querySelector("img").alt = request.prompt;
    $("viewer").showModal();
  };
  card.classList.add("working");
  $("gallery").prepend(card);
  $("empty").hidden = true;
  return { card, part, index };
}

function about(request) {
  const parts = [request.size + " px", "seed " + request.seed, request.steps.join("+") + " steps",
    "guidance " + request.guidance_scale.map((g) => Math.round(g * 10) / 10).join("/")];
  if (request.negative_prompt) parts.push("without: " + request.negative_prompt);
  return parts.join(" · ");
}

async function showPicture(view, job) {
  const answer = await ask("GET", "v1/jobs/" + job.id + "/images/" + view.index);
  const url = URL.createObjectURL(await answer.blob());
  const image = view.part("img"), link = view.part(".download");
  image.src = url;
  image.hidden = false;
  link.href = url;
  link.download = "imagend-" + job.request.seed + (job.request.n > 1 ? "-" + view.index : "") +
    "." + job.request.format;
  link.hidden = false;
  view.part("progress").hidden = true;
  view.part(".again").hidden = view.part(".remove").hidden = false;
  view.part(".cancel").hidden = true;
  view.part(".state").textContent = about(job.request);
  view.card.classList.remove("working");
}

function showEnd(view, job) {
  const text = job.status === "cancelled" ? "Cancelled" : "Failed: " + (job.error || {}).message;
  view.card.classList.remove("working");
  view.card.classList.add("failed");
  view.part(".state").textContent = text;
  view.part("progress").hidden = view.part(".cancel").hidden = true;
  view.part(".again").hidden = view.part(".remove").hidden = false;
}

function showPreview(view, data) {
  const image = view.part("img");
  image.src = "data:image/" + data.format + ";base64," + data.b64_json;
  image.hidden = false;
}

function showQueue(views, data) {
  const place = data.position ? data.position + (data.position > 1 ? " pictures" : " picture") +
    " ahead" : "Next in line";
  const wait = data.estimate_seconds >= 1 ? ", about " + seconds(data.estimate_seconds) : "";
  for (const view of views) view.part(".state").textContent = place + wait;
}

async function finish(views, job) {
  for (const view of views) {
    if (job.status !== "done") showEnd(view, job);
    else if (view.card.classList.contains("working")) await showPicture(view, job);
  }
  say(job.status === "done" ? "The picture is done: " + job.request.prompt
    : "The picture was not drawn: " + views[0].part(".state").textContent);
}

async function onEvent(event, job, views) {
  const data = event.data, view = views[data.picture];
  switch (event.name) {
  case "status":
  case "queued":
    if (data.position !== undefined) showQueue(views, data);
    break;
  case "started":
    for (const v of views) v.part(".state").textContent = "Starting …";
    break;
  case "step":
    view.part("progress").value = (data.stage + data.step / data.steps) / data.stages;
    view.part(".state").textContent = "Stage " + (data.stage + 1) + " of " + data.stages +
      ", step " + data.step + " of " + data.steps;
    break;
  case "preview": showPreview(view, data); break;
  case "picture": await showPicture(view, job); break;
  case "done":
  case "failed":
  case "cancelled": await finish(views, data); return true;
  }
  return false;
}

async function follow(job, views) {
  let last = "";
  for (let tries = 0; tries < 200; tries++) {
    try {
      for await (const event of events("v1/jobs/" + job.id + "/events", last)) {
        last = event.id || last;
        tries = 0;
        if (await onEvent(event, job, views)) return;
      }
    } catch (error) {
      if (error.status === 404) { drop(job.id); return; }
      if (error.status) $("message").textContent = words(error);
      for (const v of views) v.part(".state").textContent = "Waiting for the server …";
    }
    await pause(1000);
  }
}

function show(job) {
  const views = [];
  for (let i = job.request.n - 1; i >= 0; i--) views[i] = makeCard(job, i);
  if (job.status === "done" || job.status === "failed" || job.status === "cancelled")
    return finish(views, job).catch(() => drop(job.id));
  follow(job, views);
  return null;
}

// ---- what the buttons do --------------------------------------------------------------------

function drop(id) {
  forget(id);
  for (const card of document.querySelectorAll('[data-job="' + id + '"]')) card.remove();
  $("empty").hidden = $("gallery").children.length > 0;
}

async function cancel(id) {
  try { await ask("DELETE", "v1/jobs/" + id); } catch (error) { $("message").textContent = words(error); }
}

async function remove(id) {
  try { await ask("DELETE", "v1/jobs/" + id); } catch { /* gone on the server is gone here, too */ }
  drop(id);
  $("prompt").focus();
}

function again(request) {
  $("prompt").value = request.prompt;
  $("negative").value = request.negative_prompt || "";
  $("seed").value = request.seed;
  $("size").value = request.size;
  $("count").value = 1;
  $("prompt").focus();
  window.scrollTo({ top: 0 });
}

function fields() {
  const number = (id) => $(id).value.trim() === "" ? null : Number($(id).value);
  const job = { prompt: $("prompt").value, size: Number($("size").value), n: Number($("count").value),
    previews: PREVIEWS };
  for (const [name, value] of [["negative_prompt", $("negative").value || null],
    ["seed", number("seed")], ["steps", number("steps")], ["guidance_scale", number("guidance")],
    ["sampler", $("sampler").value || null]])
    if (value !== null) job[name] = value;
  return job;
}

async function draw(event) {
  event.preventDefault();
  $("message").textContent = "";
  if ($("key").value) localStorage.setItem(KEY, $("key").value);
  $("draw").disabled = true;
  try {
    const job = await (await ask("POST", "v1/jobs", fields())).json();
    remember(job.id);
    say("Waiting: " + job.request.prompt);
    show(job);
  } catch (error) {
    $("message").textContent = words(error);
  }
  $("draw").disabled = false;
}

// ---- at the start ---------------------------------------------------------------------------

async function describe() {
  for (;;) {
    try {
      const can = await (await ask("GET", "v1/capabilities")).json();
      $("server").textContent = can.model + " on " + can.device;
      $("size").replaceChildren(...can.sizes.map((s) => new Option(s + " px", s)));
      $("size").value = can.sizes[Math.min(1, can.sizes.length - 1)];
      $("sampler").append(...can.samplers.map((s) => new Option(s, s)));
      $("count").max = can.limits.n;
      return;
    } catch (error) {
      $("server").textContent = words(error);
      if (error.status === 401 && !$("key").value) {
        await new Promise((done) => $("key").addEventListener("change", done, { once: true }));
        localStorage.setItem(KEY, $("key").value);
      } else {
        await pause(1500);
      }
    }
  }
}

async function restore() {
  for (const id of list().reverse()) {
    try {
      await show(await (await ask("GET", "v1/jobs/" + id)).json());
    } catch (error) {
      if (error.status === 404) forget(id);
    }
  }
}

$("form").addEventListener("submit", draw);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
describe().then(restore);
