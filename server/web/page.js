// The page: submits jobs, follows their events and keeps the list of this browser. No libraries.
"use strict";

const $ = (id) => document.getElementById(id);
const PREVIEWS = 10;
const LIST = "imagend.jobs", KEY = "imagend.key", MAX_JOBS = 60;
// The name of a field in the API, and the id of its element.
const FIELDS = { prompt: "prompt", negative_prompt: "negative", size: "size", n: "count",
  preset: "preset", seed: "seed", picture: "picture", steps: "steps", guidance_scale: "guidance", sampler: "sampler" };

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
  let said = { message: "the server responded with status " + answer.status };
  try { said = (await answer.json()).error; } catch { /* not our JSON: keep the status */ }
  const error = new Error(said.message);
  error.param = said.param;
  error.status = answer.status;
  error.retry = Number(answer.headers.get("Retry-After")) || 0;
  throw error;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/\.?$/, ".");
const field = (error) => $(FIELDS[error.param]);

function words(error) {
  if (error.status === 401) {
    $("key-field").hidden = false;
    return localStorage.getItem(KEY) ? "This API key is not valid."
      : "This server requires an API key.";
  }
  if (error.status === 429)
    return sentence(error.message) + " Try again in " + error.retry + " s.";
  if (error.status === 503) return "The server is not ready: " + sentence(error.message);
  if (!error.status) return "Cannot reach the server.";
  const label = field(error) && field(error).labels[0].textContent;
  return sentence(label ? error.message.replace('"' + error.param + '"', label) : error.message);
}

// Shows the error beside the button and focuses the field that caused it.
function complain(error) {
  $("message").textContent = words(error);
  const wrong = error.status === 401 ? $("key") : field(error);
  if (!wrong) return;
  if ($("more").contains(wrong)) $("more").open = true;
  wrong.setAttribute("aria-invalid", "true");
  wrong.setAttribute("aria-describedby", "message");
  wrong.focus();
  $("message").scrollIntoView({ block: "nearest" });
}

function settle() {
  $("message").textContent = "";
  for (const wrong of document.querySelectorAll("[aria-invalid]")) {
    wrong.removeAttribute("aria-invalid");
    wrong.removeAttribute("aria-describedby");
  }
  $("seed").setAttribute("aria-describedby", "seed-help");
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

// Newest first: the id and the request as it was entered; a job reports only the resolved settings.
function list() {
  try { return JSON.parse(localStorage.getItem(LIST)) || []; } catch { return []; }
}
function save(jobs) { localStorage.setItem(LIST, JSON.stringify(jobs.slice(0, MAX_JOBS))); }
function remember(id, asked) { save([{ id, asked }, ...list()]); }
function forget(id) { save(list().filter((other) => other.id !== id)); }

// Common sizes besides those of the stages; those that exceed the model are left out.
const SHAPES = ["512x512", "512x768", "768x512", "768x1024", "1024x768"];
const sides = (size) => String(size).includes("x") ? size.split("x").map(Number) : [size, size];
const sizeText = (size) => sides(size)[0] === sides(size)[1] ? sides(size)[0] + " px"
  : sides(size).join(" × ") + " px";

// ---- cards: one per image -------------------------------------------------------------------

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const seconds = (s) => s < 90 ? Math.max(1, Math.round(s)) + " s" : Math.round(s / 60) + " min";

function say(text) { $("status").textContent = text; }

// The window's title shows the progress while another tab is open.
function showTitle() {
  const bars = [...document.querySelectorAll(".working progress")];
  const done = bars.reduce((sum, bar) => sum + bar.value, 0) / bars.length;
  document.title = (bars.length ? Math.round(100 * done) + "% · " : "") + "imagend";
}

function makeCard(job, asked, index) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  const part = (name) => card.querySelector(name);
  const request = job.request;
  card.dataset.job = job.id;
  part(".what").textContent = request.prompt;
  part("img").alt = request.prompt + (request.n > 1 ? ", " + (index + 1) + " of " + request.n : "");
  part("progress").setAttribute("aria-label", "Progress of: " + part("img").alt);
  part(".cancel").onclick = () => cancel(job.id);
  part(".remove").onclick = () => remove(job.id);
  part(".again").onclick = () => again(request, asked, index);
  part(".copy").onclick = () => copy(part(".copy"), String(request.seed));
  part(".open").onclick = () => view(part("img"));
  part(".frame").style.aspectRatio = sides(request.size).join(" / ");
  card.classList.add("working");
  $("gallery").prepend(card);
  $("empty").hidden = true;
  return { card, part, index };
}

function about(request, index) {
  const parts = [sizeText(request.size), "seed " + request.seed, request.steps.join("+") + " steps",
    "guidance " + request.guidance_scale.map((g) => Math.round(g * 10) / 10).join("/")];
  if (request.preset) parts.push(request.preset);
  if (request.negative_prompt) parts.push("negative prompt: " + request.negative_prompt);
  if (request.n > 1) parts.unshift((index + 1) + " of " + request.n);
  else if (request.picture) parts.unshift("image number " + request.picture);
  return parts.join(" · ");
}

async function showPicture(view, job) {
  const answer = await ask("GET", "v1/jobs/" + job.id + "/images/" + view.index);
  const url = URL.createObjectURL(await answer.blob());
  const image = view.part("img"), link = view.part(".download");
  image.src = url;
  image.hidden = false;
  link.href = url;
  link.download = "imagend-" + job.request.seed + (job.request.n > 1 || job.request.picture ? "-" + (job.request.picture + view.index) : "") +
    "." + job.request.format;
  link.hidden = false;
  view.part(".open").disabled = false;
  view.part(".copy").hidden = false;
  view.part(".state").textContent = about(job.request, view.index);
  endWork(view);
}

function endWork(view) {
  view.card.classList.remove("working");
  view.part("progress").hidden = view.part(".cancel").hidden = true;
  view.part(".again").hidden = view.part(".remove").hidden = false;
  showTitle();
}

function showEnd(view, job) {
  const cancelled = job.status === "cancelled";
  view.card.classList.add("failed");
  view.card.classList.toggle("error", !cancelled);
  view.part("img").hidden = true;
  view.part(".end").hidden = false;
  view.part(".end").textContent = cancelled ? "Cancelled" : "Failed";
  view.part(".state").textContent = cancelled ? about(job.request, view.index)
    : sentence((job.error || { message: "the server gave no reason" }).message);
  view.part(".again").textContent = "Try again";
  endWork(view);
}

function showPreview(view, data) {
  const image = view.part("img");
  image.src = "data:image/" + data.format + ";base64," + data.b64_json;
  image.hidden = false;
}

function showQueue(views, data) {
  const place = data.position ? data.position + (data.position > 1 ? " images" : " image") +
    " ahead" : "Next in line";
  const wait = data.estimate_seconds >= 1 ? ", about " + seconds(data.estimate_seconds) : "";
  for (const view of views) view.part(".state").textContent = place + wait;
}

function showStep(view, data) {
  view.stepped = true;
  const stage = "Stage " + (data.stage + 1) + " of " + data.stages;
  view.part("progress").value = (data.stage + data.step / data.steps) / data.stages;
  view.part(".state").textContent = stage + ", step " + data.step + " of " + data.steps;
  showTitle();
  // A screen reader should not announce every step.
  if (data.step === 1) say(stage + " of " + view.part("img").alt);
}

async function finish(views, job) {
  for (const view of views) {
    if (job.status !== "done") showEnd(view, job);
    else if (view.card.classList.contains("working")) await showPicture(view, job);
    view.part(".warning").hidden = !job.warnings.length;
    view.part(".warning").textContent = job.warnings.map(sentence).join(" ");
  }
  say(job.status === "done" ? "Done: " + job.request.prompt
    : job.status === "cancelled" ? "Cancelled: " + job.request.prompt
      : "Failed: " + views[0].part(".state").textContent);
}

async function onEvent(event, job, views) {
  const data = event.data, view = views[data.index];
  switch (event.name) {
  case "status":
  case "queued":
    if (data.position !== undefined) showQueue(views, data);
    else if (data.status === "running")
      for (const v of views) v.part(".state").textContent = "Drawing …";
    break;
  case "started":
    for (const v of views) v.part(".state").textContent = "Starting …";
    break;
  case "step":
    showStep(view, data);
    break;
  case "preview":
    // The first of a page that came late; the next step may be long in coming.
    if (!view.stepped) showStep(view, data);
    showPreview(view, data);
    break;
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
      if (error.status) complain(error);
      for (const v of views) v.part(".state").textContent = "Waiting for the server …";
    }
    await pause(1000);
  }
}

function show(job, asked) {
  const views = [];
  for (let i = job.request.n - 1; i >= 0; i--) views[i] = makeCard(job, asked, i);
  if (job.status === "done" || job.status === "failed" || job.status === "cancelled")
    return finish(views, job).catch(() => drop(job.id));
  showTitle();
  follow(job, views);
  return null;
}

// ---- buttons --------------------------------------------------------------------------------

function drop(id) {
  forget(id);
  for (const card of document.querySelectorAll('[data-job="' + id + '"]')) card.remove();
  $("empty").hidden = $("gallery").children.length > 0;
  showTitle();
}

async function cancel(id) {
  try { await ask("DELETE", "v1/jobs/" + id); } catch (error) { complain(error); }
}

async function remove(id) {
  const cards = [...$("gallery").children];
  const last = cards.findLastIndex((card) => card.dataset.job === id);
  const next = cards[last + 1] || cards.find((card) => card.dataset.job !== id);
  try { await ask("DELETE", "v1/jobs/" + id); } catch { /* already deleted on the server */ }
  drop(id);
  ((next && next.querySelector(".remove:not([hidden])")) || $("prompt")).focus();
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // the clipboard API requires HTTPS
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  say("Seed " + text + " copied");
  button.textContent = "Copied";
  await pause(1500);
  button.textContent = "Copy seed";
}

function setSeed(seed, picture) {
  $("seed").value = seed;
  $("picture").value = picture || "";
  $("seed-clear").hidden = !seed;
}

function setSize(size) {
  if (![...$("size").options].some((option) => option.value === String(size)))
    $("size").append(new Option(sizeText(size), size));
  $("size").value = size;
}

// The images of a job share its seed and differ by their number.
function again(request, asked, index) {
  asked = asked || {};
  $("prompt").value = request.prompt;
  $("negative").value = request.negative_prompt || "";
  setSeed(request.seed, request.picture + index);
  setSize(request.size);
  $("count").value = 1;
  $("steps").value = asked.steps || "";
  $("guidance").value = asked.guidance_scale || "";
  $("sampler").value = asked.sampler || "";
  $("preset").value = request.preset || "";
  $("more").open = $("more").open || Boolean(request.negative_prompt || asked.steps ||
    asked.guidance_scale || asked.sampler || $("picture").value);
  settle();
  $("prompt").focus();
  window.scrollTo({ top: 0 });
}

function fields() {
  const number = (id) => $(id).value.trim() === "" ? null : Number($(id).value);
  const size = $("size").value;
  const job = { prompt: $("prompt").value, size: size.includes("x") ? size : Number(size),
    n: Number($("count").value), previews: PREVIEWS };
  for (const [name, value] of [["negative_prompt", $("negative").value || null],
    ["seed", number("seed")], ["picture", number("picture")], ["steps", number("steps")], ["guidance_scale", number("guidance")],
    ["sampler", $("sampler").value || null], ["preset", $("preset").value || null]])
    if (value !== null) job[name] = value;
  return job;
}

async function draw(event) {
  event.preventDefault();
  settle();
  if ($("key").value) localStorage.setItem(KEY, $("key").value);
  $("draw").disabled = true;
  try {
    const asked = fields();
    const job = await (await ask("POST", "v1/jobs", asked)).json();
    remember(job.id, asked);
    say("Waiting: " + job.request.prompt);
    show(job, asked);
    $("gallery").firstElementChild.scrollIntoView({ block: "nearest" });
  } catch (error) {
    complain(error);
  }
  $("draw").disabled = false;
}

// ---- the full-size view ---------------------------------------------------------------------

function view(image) {
  const all = [...document.querySelectorAll(".open:not(:disabled) img")];
  const at = all.indexOf(image), shown = $("viewer").querySelector("img");
  const turn = (by) => { if (all[at + by]) view(all[at + by]); };
  shown.src = image.src;
  shown.alt = image.alt;
  $("caption").textContent = image.alt;
  $("previous").disabled = at === 0;
  $("next").disabled = at === all.length - 1;
  $("previous").onclick = () => turn(-1);
  $("next").onclick = () => turn(1);
  $("viewer").onkeydown = (event) => {
    if (event.key === "ArrowLeft") turn(-1);
    if (event.key === "ArrowRight") turn(1);
  };
  if (!$("viewer").open) {
    $("viewer").showModal();
    $("close").focus();
  }
}

// ---- startup --------------------------------------------------------------------------------

async function describe() {
  for (;;) {
    try {
      const can = await (await ask("GET", "v1/capabilities")).json();
      $("server").textContent = $("server").title = can.model + " on " + can.device;
      $("server").classList.add("ready");
      $("key-field").hidden = true;
      const largest = can.sizes[can.sizes.length - 1];
      const shapes = SHAPES.filter((s) => Math.max(...sides(s)) <= largest);
      $("size").replaceChildren(...[...can.sizes, ...shapes].map((s) => new Option(sizeText(s), s)));
      $("size").value = can.sizes[Math.min(1, can.sizes.length - 1)];
      $("sampler").append(...can.samplers.map((s) => new Option(s, s)));
      $("preset").append(...can.presets.map((p) => new Option(p.name, p.name)));
      $("preset-field").hidden = !can.presets.length;
      $("count").max = can.limits.n;
      return;
    } catch (error) {
      $("server").textContent = words(error);
      if (error.status === 401) {
        await new Promise((done) => $("key").addEventListener("change", done, { once: true }));
        localStorage.setItem(KEY, $("key").value);
      } else {
        await pause(1500);
      }
    }
  }
}

async function restore() {
  for (const { id, asked } of list().reverse()) {
    try {
      await show(await (await ask("GET", "v1/jobs/" + id)).json(), asked);
    } catch (error) {
      if (error.status === 404) forget(id);
    }
  }
}

$("form").addEventListener("submit", draw);
$("seed").addEventListener("input", () => setSeed($("seed").value));
$("seed-clear").addEventListener("click", () => {
  setSeed("");
  $("seed").focus();
});
for (const example of document.querySelectorAll("#examples button"))
  example.addEventListener("click", () => {
    $("prompt").value = example.textContent;
    $("form").requestSubmit();
  });
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
describe().then(restore);
