// The LoRAs of the form: which ones the image is drawn with, and how strongly. Called by page.js.
import { $ } from "./api.js";
import { fault } from "./words.js";

let offered = [], most = 0;

const rows = () => [...$("lora-list").children].map((row, i) => ({ ...offered[i],
  box: row.querySelector("[type=checkbox]"), number: row.querySelector("[type=number]") }));

// Shows the scales of the chosen LoRAs; no more can be chosen than a request may name.
function update() {
  const all = rows(), full = all.filter((row) => row.box.checked).length >= most;
  for (const { box, number } of all) {
    number.disabled = number.hidden = !box.checked;
    box.disabled = full && !box.checked;
  }
  $("lora-help").hidden = all.length <= most;
}

function makeRow({ name, scale }) {
  const row = $("lora").content.firstElementChild.cloneNode(true);
  row.querySelector("span").textContent = name;
  row.querySelector("[type=checkbox]").onchange = update;
  row.querySelector("[type=number]").placeholder = scale;
  row.querySelector("[type=number]").setAttribute("aria-label", "Scale of " + name);
  return row;
}

// list: of the capabilities; limit: how many a request may name. Selects the default ones. A name
// that two files have cannot be requested, and is omitted.
export function offer(list, limit) {
  offered = list.filter(({ name }) => list.filter((other) => other.name === name).length === 1);
  most = limit;
  $("lora-help").textContent = "up to " + most + " at once";
  $("lora-list").replaceChildren(...offered.map(makeRow));
  $("loras").hidden = !offered.length;
  select();
}

// named: as chosen() returned it; without it, the default ones are selected.
export function select(named) {
  for (const { name, scale, default: applied, box, number } of rows()) {
    const found = named && named.find((other) => other.name === name);
    box.checked = named ? Boolean(found) : applied;
    number.value = found ? found.scale : scale;
  }
  update();
  const missing = named && named.find(({ name }) => !offered.some((other) => other.name === name));
  if (missing) throw fault("the model no longer has the LoRA \"" + missing.name + "\"");
}

const scaleOf = ({ number, scale }) => number.value === "" ? scale : Number(number.value);

// What the request names; null: the default ones, which need not be named.
export function chosen() {
  const all = rows();
  if (all.every((row) => row.box.checked === row.default && (!row.default || scaleOf(row) === row.scale)))
    return null;
  return all.filter((row) => row.box.checked).map((row) => ({ name: row.name, scale: scaleOf(row) }));
}
