// The input image: opening it, brushing marks and paint by pointer or keyboard, undo. #editor sends
// events to the page: "new-input", "change-input" (after every step), and "upscale" (with the factor).
import { $ } from "./api.js";
import { limits, openInput, sourceOf } from "./input.js";
import { findInput, rememberInput } from "./jobs.js";
import { newCanvas } from "./paint.js";
import { complain, fault, say, settle, sides, sizeText } from "./words.js";

const DRAGGED = "application/x-imagend";
const NAMES = { stroke: "stroke", fill: "fill", clear: "clearing", invert: "inverting",
  transparent: "marking of what is transparent" };
const COLOURS = [
  ["white", "#ffffff"], ["light gray", "#c3c7cd"], ["gray", "#7b8087"], ["black", "#17181b"],
  ["brown", "#7a4a27"], ["sand", "#dcb27c"], ["red", "#d9292a"], ["orange", "#ef8a1d"],
  ["yellow", "#f6d223"], ["light green", "#8bcb4b"], ["green", "#3a9a3f"], ["dark green", "#1d5a2c"],
  ["light blue", "#86c8f5"], ["blue", "#2559cb"], ["purple", "#7c40c0"], ["pink", "#f08cba"],
];
const can = { edit: false, inpaint: false, upscale: [] };
let current = null, painting = null, marked = false; // of the open input; null: none
let last = null; // the input that was closed last, or was open when the page was
let stroke = null; // in progress
const cursor = { x: .5, y: .5 }; // of the keyboard

const picked = (name) => document.querySelector('input[name="' + name + '"]:checked').value;
const pick = (name, value) => {
  document.querySelector('input[name="' + name + '"][value="' + value + '"]').checked = true;
};
const brushSize = () => Number(picked("brush"));
const longer = () => Math.max(painting.width, painting.height);
// The bottom right corner, in fractions of the longer side.
const corner = () => [painting.width / longer(), painting.height / longer()];

// ---- display ----------------------------------------------------------------------------------

// Violet with stripes, so that marks are visible on any image, also for color-blind people.
let veil;
function veilPattern(ctx) {
  if (veil) return veil;
  const tile = newCanvas(16, 16), t = tile.getContext("2d");
  t.fillStyle = "rgb(124 58 237 / .5)";
  t.fillRect(0, 0, 16, 16);
  t.strokeStyle = "rgb(255 255 255 / .6)";
  t.lineWidth = 2;
  for (const x of [-16, 0, 16]) {
    t.beginPath();
    t.moveTo(x - 1, 17);
    t.lineTo(x + 17, -1);
    t.stroke();
  }
  veil = ctx.createPattern(tile, "repeat");
  return veil;
}

let tinted, planned = 0;
function paintView() {
  planned = 0;
  if (!painting) return;
  const canvas = $("canvas"), ctx = canvas.getContext("2d");
  const { width, height } = canvas;
  ctx.clearRect(0, 0, width, height);
  ctx.drawImage(painting.work, 0, 0);
  ctx.drawImage(painting.layers.paint, 0, 0);
  const t = tinted.getContext("2d");
  t.globalCompositeOperation = "copy";
  t.drawImage(painting.layers.mark, 0, 0);
  t.globalCompositeOperation = "source-in";
  t.fillStyle = veilPattern(t);
  t.fillRect(0, 0, width, height);
  ctx.drawImage(tinted, 0, 0);
}
function refresh() { planned = planned || requestAnimationFrame(paintView); }

function showRing(x, y) {
  const ring = $("ring"), scale = $("canvas").clientWidth / corner()[0];
  const size = $("editor").dataset.tool === "fill" ? 12 : Math.max(6, brushSize() * scale);
  ring.hidden = false;
  ring.style.width = ring.style.height = size + "px";
  ring.style.left = $("canvas").offsetLeft + x * scale - size / 2 + "px";
  ring.style.top = $("canvas").offsetTop + y * scale - size / 2 + "px";
  ring.classList.toggle("down", Boolean(stroke));
}

function noteText() {
  if (picked("layer") === "paint")
    return "Paint roughly what should be where; the prompt says what it is.";
  return marked ? "Only the marked area changes. The rest stays exactly as it is."
    : "Brush over what should change. Without marks, the whole image changes.";
}

// Called after a step, and when another tool is selected.
function changed() {
  const layer = picked("layer");
  marked = can.inpaint && !current.source.blank && painting.has("mark");
  if (layer === "mark" && picked("tool") === "fill") pick("tool", "brush");
  $("editor").dataset.layer = layer;
  $("editor").dataset.tool = picked("tool");
  $("undo").disabled = !painting.canUndo;
  $("redo").disabled = !painting.canRedo;
  $("clear").disabled = !painting.has(layer);
  if ($("note").textContent !== noteText()) $("note").textContent = noteText();
  refresh();
  keep();
  $("editor").dispatchEvent(new Event("change-input"));
}

// ---- opening and closing ------------------------------------------------------------------------

function showUpscale() {
  const buttons = [...document.querySelectorAll("#upscale button")];
  for (const button of buttons) {
    const scale = Number(button.value), width = painting.width * scale, height = painting.height * scale;
    const to = sizeText(width + "x" + height);
    button.hidden = Math.max(width, height) > limits.output.edge || width * height > limits.output.pixels;
    button.textContent = scale + "× · " + to;
    button.setAttribute("aria-label", "Upscale " + scale + "× · " + to);
  }
  $("upscale").hidden = current.source.blank || buttons.every((button) => button.hidden);
}

async function open(input) {
  if (!input) throw fault("this browser no longer has the input image; choose it again");
  const next = await openInput(input);
  [current, painting, stroke] = [input, next, null];
  for (const canvas of [$("canvas"), tinted = newCanvas(1, 1)]) {
    canvas.width = painting.work.width;
    canvas.height = painting.work.height;
  }
  const [right, bottom] = corner();
  [cursor.x, cursor.y] = [right / 2, bottom / 2];
  $("stage").style.setProperty("--shape", painting.width / painting.height);
  $("editor-title").textContent = current.source.blank ? "Painting" : "Input image";
  $("editor-size").textContent = sizeText(painting.width + "x" + painting.height);
  $("editor").hidden = false;
  $("layer").hidden = current.source.blank || !can.inpaint;
  if ($("layer").hidden) pick("layer", "paint");
  showUpscale();
  changed();
}

async function openSource(source) {
  settle();
  try {
    const size = $("size").value || $("size").dataset.other;
    pick("layer", "mark");
    await open({ source, size: sides(size).join("x"), steps: source.blank ? [] : undefined });
    $("editor").dispatchEvent(new Event("new-input"));
    say((source.blank ? "Empty canvas, " : "Image opened, ") + $("editor-size").textContent);
    $("editor").scrollIntoView({ block: "start" });
    $("canvas").focus({ preventScroll: true });
  } catch (error) {
    complain(error);
  }
}

async function openFile(file) {
  if (!can.edit) {
    complain(fault("this model cannot edit images; it only generates them from a prompt"));
    return;
  }
  settle();
  try { await openSource(await sourceOf(file)); } catch (error) { complain(error); }
}

function input() { return { ...current, steps: [...painting.steps] }; }

// Lets a reloaded page restore it.
let keeping = 0;
function keep() {
  clearTimeout(keeping);
  keeping = setTimeout(() => { if (current) rememberInput("last", input()); }, 300);
}

function close() {
  if (!current) return;
  last = input();
  current = painting = null;
  marked = false;
  $("editor").hidden = true;
  $("back").hidden = false;
  $("editor").dispatchEvent(new Event("change-input"));
}

// An empty canvas has the shape of the requested image.
function setSize(size) {
  if (current && current.source.blank && size)
    open({ ...input(), size: sides(size).join("x") }).catch(complain);
}

// ---- strokes ------------------------------------------------------------------------------------

const rounded = (v) => Math.round(v * 1e4) / 1e4;

function begin(x, y) {
  const layer = picked("layer"), tool = picked("tool"), colour = picked("colour");
  const paint = layer === "paint" && { colour: colour === "own" ? $("own-colour").value : colour };
  if (tool === "fill") {
    painting.add({ layer, kind: "fill", x: rounded(x), y: rounded(y), ...paint });
    changed();
    return;
  }
  stroke = { layer, kind: "stroke", erase: tool === "erase", size: brushSize(),
    points: [rounded(x), rounded(y)], ...paint };
  painting.add(stroke);
  refresh();
}

function extend(x, y) {
  const from = stroke.points.length;
  if (stroke.points[from - 2] === rounded(x) && stroke.points[from - 1] === rounded(y)) return;
  stroke.points.push(rounded(x), rounded(y));
  painting.grow(from);
  refresh();
}

function end() {
  if (!stroke) return;
  stroke = null;
  changed();
}

function step(kind) {
  painting.add({ layer: picked("layer"), kind });
  changed();
  say({ clear: "Cleared", invert: "Inverted" }[kind]);
}

function turn(back) {
  end();
  if (!painting || !(back ? painting.canUndo : painting.canRedo)) return;
  const { kind } = back ? painting.undo() : painting.redo();
  changed();
  say((back ? "Undone: " : "Redone: ") + NAMES[kind]);
}

// ---- pointer ------------------------------------------------------------------------------------

function place(event) {
  const box = $("canvas").getBoundingClientRect(), [right, bottom] = corner();
  return [(event.clientX - box.left) / box.width * right, (event.clientY - box.top) / box.height * bottom];
}

$("canvas").addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0 || stroke) return;
  $("canvas").setPointerCapture(event.pointerId);
  begin(...place(event));
});
$("canvas").addEventListener("pointermove", (event) => {
  if (!event.isPrimary) return;
  const more = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const one of stroke ? more.length ? more : [event] : []) extend(...place(one));
  showRing(...place(event));
});
for (const name of ["pointerup", "pointercancel"]) $("canvas").addEventListener(name, end);
$("canvas").addEventListener("pointerleave", () => { $("ring").hidden = true; });

// ---- keyboard -----------------------------------------------------------------------------------

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TOOLS = { b: "brush", e: "erase", f: "fill" };

function where() {
  const [right, bottom] = corner();
  return Math.round(100 * cursor.x / right) + " % across, " + Math.round(100 * cursor.y / bottom) + " % down";
}

function press() {
  if (stroke) {
    end();
    say("Brush up, " + where());
    return;
  }
  begin(cursor.x, cursor.y);
  say((stroke ? "Brush down, " : "Filled, ") + where());
}

function resize(by) {
  const sizes = [...document.querySelectorAll('input[name="brush"]')];
  const next = sizes[sizes.findIndex((size) => size.checked) + by];
  if (next) next.checked = true;
  say("Brush size: " + sizes.find((size) => size.checked).getAttribute("aria-label"));
}

function move([dx, dy], far) {
  const by = far ? .1 : .02, [right, bottom] = corner();
  cursor.x = Math.min(right, Math.max(0, cursor.x + dx * by));
  cursor.y = Math.min(bottom, Math.max(0, cursor.y + dy * by));
  if (stroke) extend(cursor.x, cursor.y);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key } = event, tool = TOOLS[key.toLowerCase()];
  if (MOVES[key]) move(MOVES[key], event.shiftKey);
  else if (key === " " || key === "Enter") press();
  else if (key === "Escape") end();
  else if (key === "[" || key === "]") resize(key === "[" ? -1 : 1);
  else if (tool && !(tool === "fill" && picked("layer") === "mark")) {
    end();
    pick("tool", tool);
    changed();
    say("Tool: " + tool);
  } else return;
  event.preventDefault();
  showRing(cursor.x, cursor.y);
}

$("canvas").addEventListener("keydown", onKey);
$("canvas").addEventListener("focus", () => {
  if ($("canvas").matches(":focus-visible")) showRing(cursor.x, cursor.y);
});
$("canvas").addEventListener("blur", () => {
  end();
  $("ring").hidden = true;
});
document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (!painting || !(event.ctrlKey || event.metaKey) || (key !== "z" && key !== "y")) return;
  if (event.target.matches("textarea, input:not([type=radio], [type=range], [type=color])")) return;
  event.preventDefault();
  turn(key === "z" && !event.shiftKey);
});

// ---- colors ------------------------------------------------------------------------------------

$("colours").querySelector("legend").after(...COLOURS.map(([name, value]) => {
  const swatch = $("swatch").content.firstElementChild.cloneNode(true), input = swatch.querySelector("input");
  input.value = value;
  input.title = name;
  input.setAttribute("aria-label", name);
  input.defaultChecked = name === "red";
  swatch.querySelector("path").setAttribute("fill", value);
  return swatch;
}));

// ---- buttons, drop and paste ------------------------------------------------------------------

$("tools").addEventListener("change", () => {
  if (document.activeElement === $("own-colour")) pick("colour", "own");
  changed();
});
$("own-colour").addEventListener("input", () => pick("colour", "own"));
$("layer").addEventListener("change", changed);
$("undo").addEventListener("click", () => turn(true));
$("redo").addEventListener("click", () => turn(false));
$("clear").addEventListener("click", () => step("clear"));
$("invert").addEventListener("click", () => step("invert"));
$("editor-close").addEventListener("click", () => {
  close();
  $("back").focus();
  say("Image removed");
});
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files[0]) openFile($("file").files[0]);
  $("file").value = "";
});
$("start-painting").addEventListener("click", () => openSource({ blank: true }));
$("back").addEventListener("click", () => open(last).then(() => $("canvas").focus(), complain));

const imageIn = (data) => [...data.files].find((file) => file.type.startsWith("image/")) || data.files[0];
const carries = (event) => event.dataTransfer &&
  ["Files", DRAGGED].some((type) => event.dataTransfer.types.includes(type));

$("gallery").addEventListener("dragstart", (event) => {
  const card = event.target.closest(".card");
  if (!card || !event.dataTransfer) return;
  event.dataTransfer.setData(DRAGGED, JSON.stringify({ job: card.dataset.job, index: Number(card.dataset.index) }));
});
document.addEventListener("dragover", (event) => {
  if (!carries(event) || !can.edit) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!carries(event)) return;
  event.preventDefault();
  const result = event.dataTransfer.getData(DRAGGED);
  if (result && can.edit) openSource(JSON.parse(result));
  else openFile(imageIn(event.dataTransfer));
});
document.addEventListener("paste", (event) => {
  const file = event.clipboardData && event.clipboardData.files.length && imageIn(event.clipboardData);
  if (!file) return;
  event.preventDefault();
  openFile(file);
});

// The model's abilities; other controls are hidden.
function setAbilities(abilities) {
  Object.assign(can, abilities);
  $("upscale-buttons").replaceChildren(...can.upscale.map((scale) => {
    const button = document.createElement("button");
    button.type = "button";
    button.value = scale;
    button.onclick = () => $("editor").dispatchEvent(new CustomEvent("upscale", { detail: scale }));
    return button;
  }));
}

// An input whose job the server has deleted, as the file that the page still has. Another image may be open by now.
function asFile(input, from) {
  const file = { ...input, source: { file: from.file } };
  if (current && current.source === input.source) current = file;
  return file;
}

findInput("last").then((input) => {
  last = last || input;
  $("back").hidden = !last;
});

export const editor = {
  can, open, openSource, close, input, asFile, setSize, setAbilities,
  isOpen: () => Boolean(current),
  isBlank: () => Boolean(current && current.source.blank),
  isMarked: () => marked,
  painting: () => painting,
};
