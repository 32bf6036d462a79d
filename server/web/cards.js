// The gallery: one card per image, which follows its job; the full-size view. Cards send events to
// the rest of the page: "again" (reuse settings) and "edit" (use the image as input).
import { $, ask, events, imagePath, pause } from "./api.js";
import { compare } from "./compare.js";
import { openInput } from "./input.js";
import { findInput, forget } from "./jobs.js";
import { toBlob } from "./paint.js";
import { complain, say, seconds, sentence, sides, sizeText, strengthWord, words } from "./words.js";

// The window's title shows the progress while another tab is open.
function showTitle() {
  const bars = [...document.querySelectorAll(".working progress")];
  const done = bars.reduce((sum, bar) => sum + bar.value, 0) / bars.length;
  document.title = (bars.length ? Math.round(100 * done) + "% · " : "") + "imagend";
}

const UNTITLED = { generate: "Image", edit: "Edited image", upscale: "Upscaled image" };
const titleOf = (request) => request.prompt || UNTITLED[request.task];

function tell(card, name, detail) {
  card.dispatchEvent(new CustomEvent(name, { bubbles: true, detail }));
}

function makeCard(job, asked, index) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  const part = (name) => card.querySelector(name);
  const request = job.request;
  card.dataset.job = job.id;
  card.dataset.index = index;
  const title = titleOf(request);
  part(".what").textContent = title;
  part("img").alt = title + (request.n > 1 ? ", " + (index + 1) + " of " + request.n : "");
  part("progress").setAttribute("aria-label", "Progress of: " + part("img").alt);
  part(".cancel").onclick = () => cancel(job.id);
  part(".remove").onclick = () => remove(job.id);
  part(".again").onclick = () => tell(card, "again", { id: job.id, request, asked, index });
  part(".edit").onclick = () => tell(card, "edit", { job: job.id, index });
  part(".compare").onclick = () => toggleCompare(card, job.id);
  part(".copy").onclick = () => copy(part(".copy"), String(request.seed));
  part(".open").onclick = () => view(part("img"));
  part(".frame").style.aspectRatio = sides(request.size).join(" / ");
  card.classList.add("working");
  $("gallery").prepend(card);
  $("empty").hidden = true;
  return { card, part, index };
}

function about(request, index) {
  // Stages that an upscaled image skips have no steps.
  const run = (list) => list.filter((_, stage) => request.steps[stage]);
  const parts = [sizeText(request.size), "seed " + request.seed, run(request.steps).join("+") + " steps",
    "guidance " + run(request.guidance_scale).map((g) => Math.round(g * 10) / 10).join("/")];
  const strength = request.strength && [request.strength].flat()[0];
  if (strength) parts.push("strength " + strength + ", " + strengthWord(strength));
  if (request.scale) parts.push("upscaled " + request.scale + "×");
  if (request.preset) parts.push(request.preset);
  if (request.loras) parts.push("LoRAs " + request.loras);
  if (!$("model-field").hidden) parts.push(request.model);
  if (request.negative_prompt) parts.push("negative prompt: " + request.negative_prompt);
  if (request.n > 1) parts.unshift((index + 1) + " of " + request.n);
  else if (request.picture) parts.unshift("image number " + request.picture);
  return parts.join(" · ");
}

async function showPicture(view, job) {
  const answer = await ask("GET", imagePath(job.id, view.index));
  const url = URL.createObjectURL(await answer.blob());
  const image = view.part("img"), link = view.part(".download");
  image.src = url;
  image.hidden = false;
  link.href = url;
  const number = job.request.n > 1 || job.request.picture ? "-" + (job.request.picture + view.index) : "";
  link.download = "imagend-" + job.request.seed + number + "." + job.request.format;
  link.hidden = false;
  view.part(".open").disabled = false;
  view.part(".copy").hidden = view.part(".edit").hidden = false;
  view.part(".state").textContent = about(job.request, view.index);
  endWork(view);
  view.part(".compare").hidden = !await findInput(job.id);
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
  say(job.status === "done" ? "Done: " + titleOf(job.request)
    : job.status === "cancelled" ? "Cancelled: " + titleOf(job.request)
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
    // The first event of a page that was opened late; the next step may take a while.
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

export function show(job, asked) {
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
  for (const card of document.querySelectorAll('[data-job="' + id + '"]')) {
    for (const url of [card.querySelector(".download").href, card.dataset.before]) URL.revokeObjectURL(url);
    card.remove();
  }
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

// The URL of a job's input image, including its painting.
async function beforeUrl(id) {
  const painting = await openInput(await findInput(id));
  return URL.createObjectURL(await toBlob(painting.flat(1024)));
}

async function toggleCompare(card, id) {
  const button = card.querySelector(".compare"), frame = card.querySelector(".frame");
  const on = button.getAttribute("aria-pressed") !== "true";
  try {
    card.dataset.before = card.dataset.before || await beforeUrl(id);
    const handle = compare(frame, on ? card.dataset.before : null);
    button.setAttribute("aria-pressed", on);
    if (handle) handle.focus({ preventScroll: true });
  } catch (error) {
    complain(error);
  }
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

// ---- the full-size view ---------------------------------------------------------------------

function view(image) {
  const all = [...document.querySelectorAll(".open:not(:disabled) img")];
  const at = all.indexOf(image), frame = $("viewer").querySelector(".full"), shown = frame.querySelector("img");
  const turn = (by) => { if (all[at + by]) view(all[at + by]); };
  const card = image.closest(".card"), button = $("viewer-compare");
  const setCompare = async (on) => {
    try {
      card.dataset.before = card.dataset.before || await beforeUrl(card.dataset.job);
      compare(frame, on ? card.dataset.before : null);
      button.setAttribute("aria-pressed", on);
    } catch (error) {
      $("caption").textContent = words(error);
    }
  };
  frame.style.setProperty("--shape", image.naturalWidth / image.naturalHeight);
  shown.src = image.src;
  shown.alt = image.alt;
  $("caption").textContent = image.alt;
  $("previous").disabled = at === 0;
  $("next").disabled = at === all.length - 1;
  $("previous").onclick = () => turn(-1);
  $("next").onclick = () => turn(1);
  compare(frame, null);
  button.hidden = card.querySelector(".compare").hidden;
  button.setAttribute("aria-pressed", "false");
  button.onclick = () => setCompare(button.getAttribute("aria-pressed") !== "true");
  $("viewer").onkeydown = (event) => {
    if (event.target.type === "range") return;
    if (event.key === "ArrowLeft") turn(-1);
    if (event.key === "ArrowRight") turn(1);
  };
  if (!$("viewer").open) {
    $("viewer").showModal();
    $("close").focus();
  }
}
