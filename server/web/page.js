// The page: the form, the model's abilities, and the start of jobs. No libraries.
import { $, ask, key, pause } from "./api.js";
import { show } from "./cards.js";
import { editor } from "./editor.js";
import { bodyWith, limits } from "./input.js";
import { findInput, forget, list, remember, rememberInput } from "./jobs.js";
import { showKnown } from "./known.js";
import { chosen, offer, select } from "./loras.js";
import { complain, say, settle, sizeText, sides, strengthWord, words } from "./words.js";

const PREVIEWS = 10;
// Common sizes besides those of the stages; those that the model cannot generate are omitted.
const SHAPES = ["256x384", "384x256", "512x512", "512x768", "768x512", "768x1024", "1024x768", "1024x1536", "1536x1024"];
// The server's default strengths: for a whole image, and with marks.
const WHOLE = .7, MARKED = 1;

// ---- the form ---------------------------------------------------------------------------------

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

// chosen: by the user; otherwise the default depends on the marks.
function setStrength(strength, chosen) {
  $("strength").value = strength;
  $("strength").dataset.chosen = chosen ? "yes" : "";
  $("strength-word").textContent = strengthWord(strength);
  $("strength").setAttribute("aria-valuetext", strengthWord(strength) + ", " + strength);
}

// Shows the settings that apply to the current input image.
function showInput() {
  const there = editor.isOpen(), own = there && !editor.isBlank(), marked = editor.isMarked();
  $("start-field").hidden = there || !editor.can.edit;
  $("strength-field").hidden = !there;
  $("prompt").required = !there;
  document.body.classList.toggle("editing", there);
  if (own === $("size-own").hidden) { // it was otherwise before
    if (own) $("size").dataset.other = $("size").value;
    $("size-own").hidden = $("size-own").disabled = !own;
    $("size").value = own ? "" : $("size").dataset.other;
  }
  // With a mask, the result has the size of the image.
  if (marked) $("size").value = "";
  $("size").disabled = marked;
  if (there && !$("strength").dataset.chosen) setStrength(marked ? MARKED : WHOLE);
  if (!there) $("strength").dataset.chosen = "";
}

// The images of a job share its seed and differ in their number.
async function again({ id, request, asked, index }) {
  asked = asked || {};
  settle();
  const others = [...$("model").options].filter((option) => !option.selected);
  if (others.some((option) => option.value === request.model))
    await choose(request.model).catch(complain);
  $("prompt").value = request.prompt;
  $("negative").value = request.negative_prompt || "";
  setSeed(request.seed, request.picture + index);
  $("count").value = 1;
  $("steps").value = asked.steps || "";
  $("guidance").value = asked.guidance_scale || "";
  $("sampler").value = asked.sampler || "";
  $("preset").value = request.preset || "";
  try { select(asked.loras); } catch (error) { complain(error); }
  $("more").open = $("more").open || Boolean(request.negative_prompt || asked.steps ||
    asked.guidance_scale || asked.sampler || $("picture").value);
  if (!asked.task) {
    editor.close();
    setSize(request.size);
  } else {
    await editor.open(await findInput(id)).catch(complain);
    $("size").value = asked.size || "";
    if (asked.strength) setStrength(asked.strength, true);
    showInput();
  }
  $("prompt").focus();
  window.scrollTo({ top: 0 });
}

// The chosen model; null if there is only one.
const model = () => $("model-field").hidden ? null : $("model").value;

function fields() {
  const number = (id) => $(id).value.trim() === "" ? null : Number($(id).value);
  const size = $("size").disabled ? "" : $("size").value;
  const job = { n: Number($("count").value), previews: PREVIEWS };
  for (const [name, value] of [["model", model()], ["prompt", $("prompt").value || null], ["size", size.includes("x") ? size : Number(size) || null],
    ["negative_prompt", $("negative").value || null],
    ["seed", number("seed")], ["picture", number("picture")], ["steps", number("steps")],
    ["guidance_scale", number("guidance")],
    ["sampler", $("sampler").value || null], ["preset", $("preset").value || null], ["loras", chosen()]])
    if (value !== null) job[name] = value;
  return job;
}

// Sends the request and shows its cards. input: kept for comparison with the result.
async function submit(asked, body, input) {
  const job = await (await ask("POST", "v1/jobs", body)).json();
  remember(job.id, asked);
  if (input) await rememberInput(job.id, input);
  say("Waiting: " + (job.request.prompt || "image"));
  show(job, asked);
  $("gallery").firstElementChild.scrollIntoView({ block: "nearest" });
}

// Runs a button's action; the buttons that start jobs are disabled meanwhile.
async function start(work) {
  settle();
  if ($("key").value) key.set($("key").value);
  const buttons = [$("draw"), ...document.querySelectorAll("#upscale button")];
  for (const button of buttons) button.disabled = true;
  try { await work(); } catch (error) { complain(error); }
  for (const button of buttons) button.disabled = false;
}

async function draw() {
  const asked = fields();
  if (!editor.isOpen()) {
    await submit(asked, asked);
    return;
  }
  asked.task = "edit";
  asked.strength = Number($("strength").value);
  await submitInput(asked, editor.isMarked());
}

async function submitInput(asked, marked, input = editor.input(), painting = editor.painting()) {
  try {
    await submit(asked, await bodyWith(asked, input, painting, marked), input);
  } catch (error) {
    if (error.param !== "image" || !input.source.job) throw error;
    await submitInput(asked, marked, editor.asFile(input, painting), painting);
  }
}

async function upscale(scale) {
  const { model, prompt, seed, preset, loras } = fields(); // the others concern the first stage
  const asked = { ...model && { model }, ...prompt && { prompt }, ...seed !== undefined && { seed }, ...preset && { preset },
    ...loras && { loras }, task: "upscale", scale, previews: PREVIEWS };
  await submitInput(asked, false);
}

// ---- startup ----------------------------------------------------------------------------------

// The model's abilities with input images.
function abilities(can) {
  const { edit, inpaint } = can.features;
  return { edit: Boolean(edit), inpaint: Boolean(inpaint), upscale: can.scales || [] };
}

function showModel(can) {
  const chosen = $("size").value;
  $("server").textContent = $("server").title = can.model + (can.device && " on " + can.device);
  $("server").classList.add("ready");
  $("key-field").hidden = true;
  const largest = can.sizes[can.sizes.length - 1];
  const shapes = SHAPES.filter((s) => Math.max(...sides(s)) <= largest || can.native_sizes.includes(s));
  $("size").replaceChildren($("size-own"), ...[...can.sizes, ...shapes].map((s) => new Option(sizeText(s), s)));
  $("size").value = $("size").dataset.other = can.sizes[Math.min(1, can.sizes.length - 1)];
  if ([...$("size").options].some((option) => option.value && option.value === chosen)) $("size").value = chosen;
  $("model").replaceChildren(...can.models.map((m) => new Option(m.name, m.name)));
  $("model").value = can.model;
  $("model-field").hidden = can.models.length < 2;
  $("sampler").replaceChildren($("sampler").options[0], ...can.samplers.map((s) => new Option(s, s)));
  $("preset").replaceChildren($("preset").options[0], ...can.presets.map((p) => new Option(p.name, p.name)));
  $("preset-field").hidden = !can.presets.length;
  offer(can.loras, can.limits.loras);
  showKnown(can.vocabulary);
  $("count").max = can.limits.n;
  Object.assign(limits, can.input, can.output && { output: can.output });
  editor.setAbilities(abilities(can));
  document.body.classList.toggle("editable", editor.can.edit);
  showInput();
}

// name: "" for the default model.
async function choose(name) {
  const query = name && "?model=" + encodeURIComponent(name);
  showModel(await (await ask("GET", "v1/capabilities" + query)).json());
}

// The first model that has not failed; "": there is none.
async function working() {
  try {
    const { data } = await (await ask("GET", "v1/models")).json();
    return data.find((m) => m.state !== "failed").root;
  } catch {
    return "";
  }
}

async function describe() {
  for (let name = "";; name = await working()) {
    try {
      await choose(name);
      return;
    } catch (error) {
      $("server").textContent = words(error);
      if (error.status === 401) {
        await new Promise((done) => $("key").addEventListener("change", done, { once: true }));
        key.set($("key").value);
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

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  start(draw);
});
$("seed").addEventListener("input", () => setSeed($("seed").value));
$("seed-clear").addEventListener("click", () => {
  setSeed("");
  $("seed").focus();
});
for (const list of [$("examples"), $("known-list")])
  list.addEventListener("click", ({ target }) => {
    const example = target.closest("button");
    if (!example) return;
    $("prompt").value = example.dataset.prompt || example.textContent;
    $("form").requestSubmit();
  });
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
$("strength").addEventListener("input", () => setStrength(Number($("strength").value), true));
$("model").addEventListener("change", () => {
  settle();
  choose($("model").value).catch(complain);
});
$("size").addEventListener("change", () => editor.setSize($("size").value));
$("gallery").addEventListener("again", (event) => again(event.detail));
$("gallery").addEventListener("edit", (event) => editor.openSource(event.detail));
$("editor").addEventListener("change-input", showInput);
$("editor").addEventListener("new-input", () => {
  $("strength").dataset.chosen = "";
  showInput();
});
$("editor").addEventListener("upscale", (event) => start(() => upscale(event.detail)));
describe().then(restore);
